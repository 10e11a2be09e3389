"""Faults by magic address: who writes to `tempfail@…` is answered 451, whatever the domain.

The local part of a recipient, or of the reverse-path, names the fault, in any case; `+anything` after it is ignored, so
that many different addresses can fail alike.

    address                     what happens
    tempfail@                   451 4.3.0 to the command that names it
    permfail@                   550 5.1.1 to that command
    NNN-X.Y.Z@                  that reply to that command: 550-5.7.1@, 452-4.5.3@, 421-4.3.2@ (a 421 closes)
    disconnect@                 the connection drops at that command
    silent@                     that command is never answered
    slow@, slow-800ms@          that command is answered late (3 s, or as said)
    gibberish@                  that command is answered with octets that are no reply
    endless-reply@              that command is answered with a reply of many lines that never ends
    huge-reply@                 that command is answered with one line of 1 MiB
    NNN-X.Y.Z-at-data@          that reply to DATA
    disconnect-in-data@         354 to DATA, then the connection drops at the first octet of content
    tempfail-after-dot@         451 4.3.0 to the final dot
    permfail-after-dot@         550 5.7.1 to the final dot
    NNN-X.Y.Z-after-dot@        that reply to the final dot
    quota@                      550 5.7.1 Exceed Sending Limit (daily) to the final dot
    disconnect-after-dot@       accepted (as ambiguous), but the connection drops instead of the 250
    silent-after-dot@           accepted (as ambiguous), but the 250 never comes
    gibberish-after-dot@        accepted (as ambiguous), but no reply can be read
    endless-reply-after-dot@    accepted (as ambiguous), but the reply never ends
    slow-dot@, slow-dot-800ms@  accepted, the 250 comes late (3 s, or as said)

`MAGIC` is the same table as data.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from relay.sandbox.answers import SEND_CONTENT, Answer, Then

GIBBERISH: Final = Answer(b"\x00\xff\xfe\x16\x03\x01 this is no SMTP reply \x80\x81\r\n")
ENDLESS: Final = Answer(b"250-and there is more to say\r\n" * 512, Then.FLOOD)
HUGE: Final = Answer(b"450 4.3.0 " + b"x" * (1 << 20) + b"\r\n")
SILENCE: Final = Answer(then=Then.HANG)
DISCONNECT: Final = Answer(then=Then.DROP)

_SLOW: Final = 3.0  # seconds


class Stage(Enum):
    """Where in the transaction a fault strikes."""

    COMMAND = auto()  # the MAIL or RCPT that names it
    DATA = auto()
    DOT = auto()


@dataclass(frozen=True, slots=True)
class Magic:
    """One row of the table: the local part, where it strikes, and what is said or done there."""

    form: str
    pattern: re.Pattern[str]
    stage: Stage
    answer: Callable[[re.Match[str]], Answer]
    meaning: str


def _does(answer: Answer) -> Callable[[re.Match[str]], Answer]:
    return lambda _: answer


def _says(text: str) -> Callable[[re.Match[str]], Answer]:
    return _does(Answer.line(text))


def _as_named(match: re.Match[str]) -> Answer:
    return Answer.line(f"{match[1]} {match[2]} as the address asked")


def _late(match: re.Match[str]) -> Answer:
    return Answer(delay=int(match[1]) / 1000 if match[1] else _SLOW)


def _row(
    form: str, pattern: str, stage: Stage, answer: Callable[[re.Match[str]], Answer], meaning: str
) -> tuple[str, Magic]:
    return form, Magic(form, re.compile(pattern), stage, answer, meaning)


_CODE: Final = r"([45]\d\d)-([45]\.\d{1,3}\.\d{1,3})"
_COMMAND, _DATA, _DOT = Stage.COMMAND, Stage.DATA, Stage.DOT

MAGIC: Final = dict(
    [
        _row("tempfail@", "tempfail", _COMMAND, _says("451 4.3.0 temporary failure"), "451 4.3.0 to the command"),
        _row("permfail@", "permfail", _COMMAND, _says("550 5.1.1 permanent failure"), "550 5.1.1 to the command"),
        _row("NNN-X.Y.Z@", _CODE, _COMMAND, _as_named, "that reply to the command; a 421 closes"),
        _row("disconnect@", "disconnect", _COMMAND, _does(DISCONNECT), "the connection drops at the command"),
        _row("silent@", "silent", _COMMAND, _does(SILENCE), "the command is never answered"),
        _row("slow@", r"slow(?:-(\d{1,6})ms)?", _COMMAND, _late, "the command is answered late: 3 s, or slow-800ms@"),
        _row("gibberish@", "gibberish", _COMMAND, _does(GIBBERISH), "octets that are no reply to the command"),
        _row("endless-reply@", "endless-reply", _COMMAND, _does(ENDLESS), "a reply of many lines that never ends"),
        _row("huge-reply@", "huge-reply", _COMMAND, _does(HUGE), "a reply of one line of 1 MiB"),
        _row("NNN-X.Y.Z-at-data@", f"{_CODE}-at-data", _DATA, _as_named, "that reply to DATA"),
        _row(
            "disconnect-in-data@",
            "disconnect-in-data",
            _DATA,
            _does(Answer(SEND_CONTENT.reply, Then.DROP_ON_INPUT)),
            "354 to DATA, then the connection drops at the first octet of content",
        ),
        _row("tempfail-after-dot@", "tempfail-after-dot", _DOT, _says("451 4.3.0 transaction failed"), "451 4.3.0"),
        _row("permfail-after-dot@", "permfail-after-dot", _DOT, _says("550 5.7.1 message refused"), "550 5.7.1"),
        _row("NNN-X.Y.Z-after-dot@", f"{_CODE}-after-dot", _DOT, _as_named, "that reply to the final dot"),
        # The SMTP text is not documented; the HTTP one is, and the two agree where both are known (fact sheet 1.4).
        _row("quota@", "quota", _DOT, _says("550 5.7.1 Exceed Sending Limit (daily)"), "over the daily limit"),
        _row("disconnect-after-dot@", "disconnect-after-dot", _DOT, _does(DISCONNECT), "accepted, but no 250: drop"),
        _row("silent-after-dot@", "silent-after-dot", _DOT, _does(SILENCE), "accepted, but no 250: silence"),
        _row("gibberish-after-dot@", "gibberish-after-dot", _DOT, _does(GIBBERISH), "accepted, but no reply to read"),
        _row("endless-reply-after-dot@", "endless-reply-after-dot", _DOT, _does(ENDLESS), "accepted, endless reply"),
        _row("slow-dot@", r"slow-dot(?:-(\d{1,6})ms)?", _DOT, _late, "the 250 comes late: 3 s, or slow-dot-800ms@"),
    ]
)


@lru_cache(maxsize=4096)
def fault_of(local_part: str) -> tuple[Stage, Answer] | None:
    """The fault that `local_part` asks for, or None for an ordinary address."""
    name = local_part.partition("+")[0].lower()
    for magic in MAGIC.values():
        if match := magic.pattern.fullmatch(name):
            return magic.stage, magic.answer(match)
    return None
