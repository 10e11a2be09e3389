"""Plays the dialogue scripts in this folder against the sans-IO dialogue, whole and one octet at a time.

A script is what a client and the relay say to each other, in order:

    auth: optional          what the listener offers (any of DEFAULTS)
    C: EHLO client          the client sends this line and CRLF
    R: MAIL FROM:<>\\n       the client sends exactly these octets (Python escapes)
    S: 250 *                the relay's next reply line, with shell-style wildcards
    T:                      TLS is negotiated
    M: <text>               the message just taken contains this text (Python escapes)
    X:                      the relay closes the connection
    O: <kinds>              the leniencies since the last such line, each once, by the alphabet

Lines that begin with # are comments. All client lines up to the next other line are sent as one flight.
"""

import fnmatch
from pathlib import Path

import pytest

from relay.core import reply
from relay.core.login import Assignment
from relay.core.reply import Reply
from relay.ingress.data import DataLimits
from relay.ingress.dialogue import Authenticate, BeginTls, Dialogue, DialogueSettings, TakeMessage
from relay.ingress.transaction import EnvelopeLimits
from tests.support.decisions import decision

SCRIPTS = sorted(Path(__file__).parent.glob("*.dlg"))
DEFAULTS = {
    "hostname": "relay.test",
    "origin": "",
    "auth": "optional",
    "starttls": "no",
    "plain_auth": "yes",
    "recipients": "1000",
    "message_size": "100000",
}


class Stage:
    """The outside of a dialogue: what a listener, an authenticator and an intake would do."""

    def __init__(self, options: dict[str, str]) -> None:
        settings = DialogueSettings(
            hostname=options["hostname"],
            auth=options["auth"],
            starttls=options["starttls"] == "yes",
            envelope=EnvelopeLimits(int(options["message_size"]), int(options["recipients"])),
            data=DataLimits(int(options["message_size"]), 10_000),
            origin=options["origin"] or None,
        )
        self.dialogue = Dialogue(settings, lambda path: decision(), self, plain_auth=options["plain_auth"] == "yes")
        self.tolerances: list[str] = []
        self.messages: list[bytes] = []
        self.tls_wanted = False
        self.dialogue.greet()

    def replied(self, verb: str, answer: Reply) -> None:
        assert "correct horse" not in str(answer)

    def tolerated(self, kind: str) -> None:
        self.tolerances.append(kind)

    def hear(self, octets: bytes) -> None:
        self.dialogue.receive(octets)
        while (step := self.dialogue.advance()) is not None:
            match step:
                case BeginTls():
                    self.tls_wanted = True
                    return
                case Authenticate(user, password):
                    good = (user, password.reveal()) == ("app", "correct horse")
                    self.dialogue.authenticated(reply.AUTH_OK if good else reply.AUTH_FAILED, user if good else None)
                case TakeMessage():
                    self.messages.append(b"".join(step.content.chunks()))
                    step.content.body.close()
                    self.dialogue.accepted(reply.OK.with_text(f"taken for {len(step.envelope.recipients)}"))

    def take_lines(self) -> list[str]:
        lines = self.dialogue.out.decode("ascii").splitlines()
        self.dialogue.out.clear()
        return lines


def play(script: str, *, piece: int) -> None:
    options = dict(DEFAULTS)
    stage: Stage | None = None
    heard: list[str] = []
    flight = b""
    for number, line in enumerate(script.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if kind in DEFAULTS:
            options[kind] = text
            continue
        if stage is None:
            stage = Stage(options)
        if kind in "CR":
            flight += (
                text.encode() + b"\r\n" if kind == "C" else text.encode().decode("unicode_escape").encode("latin-1")
            )
            continue
        for start in range(0, len(flight), piece):
            stage.hear(flight[start : start + piece])
        flight = b""
        heard += stage.take_lines()
        where = f"line {number}: {line!r}, heard {heard!r}"
        match kind:
            case "S":
                assert heard, where
                assert fnmatch.fnmatchcase(heard.pop(0), text), where
            case "T":
                assert stage.tls_wanted, where
                stage.dialogue.upgraded()
            case "M":
                assert text.encode().decode("unicode_escape").encode("latin-1") in stage.messages[-1], where
            case "O":
                assert sorted(set(stage.tolerances)) == text.split(), where
                stage.tolerances.clear()
            case "X":
                assert stage.dialogue.closed, where
            case _:
                raise ValueError(f"line {number}: {line!r} is not a script line")
    assert stage is not None
    assert heard == []


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script, piece):
    """The dialogue goes as written, however its octets are cut."""
    play(script.read_text(), piece=piece)


def test_an_assignment_is_names_only():
    """What the stage decides about is what a policy would: names, no secret."""
    assert decision().assignment == Assignment("default", "default", None)
