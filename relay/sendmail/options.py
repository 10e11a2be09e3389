"""The command line of sendmail(8), as decades of callers write it.

Letters may stand together (`-ti`), values may stand in the same word or in the next (`-fADDRESS`, `-f ADDRESS`), and
options may follow recipients, as with GNU getopt and so with Postfix on Linux. `--` ends the options.
"""

import os
from collections.abc import Iterator

from relay.sendmail.failure import Failure

NOTHING, VALUE, ATTACHED = "nothing", "a value", "a value in the same word, or none"

# What is acted upon. docs/sendmail.md has both tables, and a test compares them.
HEEDED = {
    "b": VALUE,
    "C": VALUE,
    "F": VALUE,
    "f": VALUE,
    "I": NOTHING,
    "i": NOTHING,
    "N": VALUE,
    "O": VALUE,
    "o": VALUE,
    "q": ATTACHED,
    "R": VALUE,
    "r": VALUE,
    "t": NOTHING,
    "V": VALUE,
    "v": NOTHING,
}
# What is taken and changes nothing: it concerns a queue, a routing or a format that the relay does not have.
IGNORED = {
    "A": VALUE,
    "B": VALUE,
    "D": VALUE,
    "d": ATTACHED,
    "e": VALUE,
    "G": NOTHING,
    "h": VALUE,
    "L": VALUE,
    "m": NOTHING,
    "n": NOTHING,
    "p": VALUE,
    "U": NOTHING,
    "X": VALUE,
    "x": NOTHING,
}
_TAKES = {**IGNORED, **HEEDED}

SEND, SMTP, LIST, NOTHING_TO_DO = "send", "smtp", "list", "nothing"
_MODES = {"m": SEND, "a": SEND, "s": SMTP, "p": LIST, "i": NOTHING_TO_DO}
_NAMES = {"mailq": LIST, "newaliases": NOTHING_TO_DO}
_REMEDIES = {
    "d": "the daemon is `sparkpost-relay serve`",
    "D": "the daemon is `sparkpost-relay serve`",
    "v": "`sparkpost-relay explain` says what would become of a message",
    "t": "`sparkpost-relay explain` says what would become of a message",
}
_USAGE = (
    "usage: sendmail [-t] [-i] [-f ADDRESS] [-F NAME] [-v] [--] [ADDRESS ...] < message, or sendmail -bs, -bp or -bi; "
    "docs/sendmail.md has every option"
)
_NOTIFY = {"NEVER", "SUCCESS", "FAILURE", "DELAY"}


class Options:
    """What was asked for. `sender` is None if nobody said; `recipients` are as they were written."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.recipients: list[str] = []
        self.from_header = False
        self.dot_ends = True
        self.sender: str | None = None
        self.full_name: str | None = None
        self.config: str | None = None
        self.verbose = False
        self.notify: str | None = None
        self.ret: str | None = None
        self.envid: str | None = None


def parse(name: str, arguments: list[str]) -> Options:
    """The options of a program called by this name; raises Failure with EX_USAGE."""
    options = Options(_NAMES.get(name, SEND))
    words = iter(arguments)
    for word in words:
        if word == "--":
            options.recipients.extend(words)
        elif word.startswith("--"):
            raise Failure(os.EX_USAGE, f"there is no option {word}; {_USAGE}")
        elif word.startswith("-") and word != "-":
            _letters(options, word[1:], words)
        else:
            options.recipients.append(word)
    if options.mode != SEND and (options.recipients or options.from_header):
        text = "recipients, or -t, with an option (or a name) that sends no message: it would be lost. Nothing was sent"
        raise Failure(os.EX_USAGE, f"{text}; {_USAGE}")
    return options


def _letters(options: Options, letters: str, words: Iterator[str]) -> None:
    """One word of options, with the value that may stand in it or behind it."""
    while letters:
        letter, letters = letters[0], letters[1:]
        takes = _TAKES.get(letter)
        if takes is None:
            raise Failure(os.EX_USAGE, f"there is no option -{letter}; {_USAGE}")
        value = ""
        if takes != NOTHING:
            value, letters = letters, ""
        if takes == VALUE and not value:
            given = next(words, None)
            if given is None:
                raise Failure(os.EX_USAGE, f"option -{letter} needs a value")
            value = given
        if letter in HEEDED:
            _heed(options, letter, value)


def _heed(options: Options, letter: str, value: str) -> None:
    match letter:
        case "b":
            options.mode = _mode(value)
        case "C":
            options.config = value
        case "F":
            options.full_name = value
        case "f" | "r":
            options.sender = value
        case "I":
            options.mode = NOTHING_TO_DO
        case "i":
            options.dot_ends = False
        case "N":
            options.notify = _notify(value)
        case "O":
            key, _, setting = value.partition("=")
            if key.strip().lower() in ("i", "ignoredots"):
                options.dot_ends = setting.strip().lower() in ("false", "f", "no", "0")
        case "o":
            if value.startswith("i"):
                options.dot_ends = False
        case "q":
            options.mode = NOTHING_TO_DO
        case "R":
            options.ret = _ret(value)
        case "t":
            options.from_header = True
        case "V":
            options.envid = _xtext(value)
        case "v":
            options.verbose = True


def _mode(value: str) -> str:
    mode = _MODES.get(value)
    if mode is None:
        remedy = _REMEDIES.get(value, "-bm sends, -bs speaks SMTP, -bp lists the queue, -bi does nothing")
        raise Failure(os.EX_USAGE, f"-b{value} is not what this program does: {remedy}")
    return mode


def _notify(value: str) -> str:
    """RFC 3461 §4.1: NEVER alone, or some of the others."""
    wanted = [word.strip().upper() for word in value.split(",")]
    if not set(wanted) <= _NOTIFY or ("NEVER" in wanted and len(wanted) > 1):
        raise Failure(os.EX_USAGE, f"-N {value}: never, or some of failure, delay, success with commas between them")
    return ",".join(wanted)


def _ret(value: str) -> str:
    """RFC 3461 §4.3."""
    if value.upper() not in ("FULL", "HDRS"):
        raise Failure(os.EX_USAGE, f"-R {value}: full or hdrs")
    return value.upper()


def _xtext(value: str) -> str:
    """RFC 3461 §4: what is not a plain character is written as + and two hexadecimal digits."""
    octets = os.fsencode(value)
    if not octets or len(octets) > 100:  # RFC 3461 §4.4
        raise Failure(os.EX_USAGE, f"-V {value}: an envelope id has 1 to 100 characters")
    return "".join(chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in octets)
