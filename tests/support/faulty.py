"""A server for the upstream side that fails as it is told, and remembers what it has really accepted: it is the truth.

Client and server are the two ends of one TCP connection, in the test's own loop. What the client hands to its transport
is recorded too, because that decides what may be called ambiguous.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.login import Endpoint, Login, Target
from relay.core.message import Content
from relay.core.outcome import Ambiguous, Delivered, Fact, Outcome, classify
from relay.core.ports import Effort, Permit
from relay.core.secret import Secret
from relay.upstream.session import Session
from relay.upstream.timeouts import SessionTimeouts
from relay.upstream.transaction import Features

LOGIN: Final = Login(Target("localhost", (587,)), "SMTP_Injection", Secret("key"), "default")
ENVELOPE: Final = Envelope(ReversePath(Address("a", "example.com")))
PATIENT: Final = SessionTimeouts(command=10, data_progress=10, final_dot=10)

ADMITTED: Final = {
    b"MAIL": (b"250",), b"RCPT": (b"250", b"251"), b"DATA": (b"354",), b".": (b"250",), b"RSET": (b"250",), b"QUIT": ()
}  # fmt: skip

_SUBJECT = re.compile(rb"^Subject: (\S+)\r$", re.MULTILINE)
_MAILBOX = re.compile(rb"<([^@>]*)@")


@dataclass(frozen=True)
class Twist:
    """What is said in place of a reply. `takes`: the server has done nevertheless what it was asked to. `then` it goes
    on ("go"), ends the connection ("close"), or says nothing any more ("hang"). `unfit`: it is said only where it does
    not fit the command.
    """

    said: bytes
    takes: bool = False
    then: str = "go"
    unfit: bool = False

    def replaces(self, verb: bytes) -> bool:
        return not (self.unfit and self.said[:3] in ADMITTED[verb])


@dataclass(frozen=True)
class Plan:
    """How a server behaves.

    twists: the replies, counted from 0 for each connection, that are replaced. refuse: local parts that are answered
    550. limit: recipients of one transaction, more are answered 452 4.5.3. lax: 354 to a DATA for which there is no
    recipient; `lax_mail`: even after a refused MAIL. heard, said: octets heard, or said, after which the connection
    ends; with `reset` by a reset. padding: octets that make each reply longer. polite: nothing is read while a reply
    has not left.
    """

    twists: Mapping[int, Twist] = field(default_factory=dict)
    refuse: frozenset[str] = frozenset()
    limit: int | None = None
    lax: bool = False
    lax_mail: bool = False
    heard: int | None = None
    said: int | None = None
    reset: bool = False
    padding: int = 0
    polite: bool = False


class Peer(asyncio.Protocol):
    """The server's end of one connection. `accepted`: name and recipients of each message it has taken, in order;
    `told`: the names of those whose 250 has been written to its end.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.heard = bytearray()
        self.said = 0
        self.accepted: list[tuple[str, tuple[str, ...]]] = []
        self.contents: dict[str, bytes] = {}
        self.told: set[str] = set()
        self.changed = asyncio.Event()
        self.gone = asyncio.Event()
        self._replies = 0
        self._buffer = b""
        self._recipients: list[str] | None = None
        self._in_data = False
        self._over = False

    # -- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.plan.polite:
            transport.set_write_buffer_limits(high=0)

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self.gone.set()

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        limit = self.plan.heard
        octets = data if limit is None else data[: limit - len(self.heard)]
        self.heard += octets
        self._buffer += octets
        while not self._over and self._step():
            pass
        if limit is not None and len(self.heard) >= limit:
            self._end()
        self.changed.set()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        if self.plan.reset:
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.transport.abort()
        else:
            self.transport.write_eof()

    def _say(self, octets: bytes) -> bool:
        """True if it has been said to the end."""
        limit = self.plan.said
        part = octets if limit is None else octets[: limit - self.said]
        self.transport.write(part)
        self.said += len(part)
        if limit is not None and self.said >= limit:
            self._end()
        return part == octets

    async def until(self, octets: bytes) -> None:
        """Until these have been heard."""
        while octets not in self.heard:
            self.changed.clear()
            await self.changed.wait()

    def forget(self, name: str) -> None:
        """Let a message be nobody's concern any more."""
        self.accepted = [taken for taken in self.accepted if taken[0] != name]
        self.contents.pop(name, None)

    # -- the dialogue -------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Take one command, or one content, if there is a whole one."""
        if self._in_data:
            end = (b"\r\n" + self._buffer).find(b"\r\n.\r\n")
            if end < 0:
                return False
            content, self._buffer = self._buffer[:end], self._buffer[end + 3 :]
            self._dot(content)
            return True
        line, found, rest = self._buffer.partition(b"\r\n")
        if found:
            self._buffer = rest
            self._command(line)
        return bool(found)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        usual, good = self._usual(verb, line)
        takes, twisted = self._answer(verb, usual + b"x" * self.plan.padding, good)
        if verb == b"MAIL":
            self._recipients = [] if takes else None
        elif verb == b"RCPT" and takes and self._recipients is not None:
            self._recipients.append(_mailbox(line))
        elif verb == b"DATA":
            self._in_data = takes
        elif verb == b"RSET":
            self._recipients = None
        elif verb == b"QUIT" and not twisted:
            self._end()

    def _usual(self, verb: bytes, line: bytes) -> tuple[bytes, bool]:
        """The reply of a server that works, and whether it does what it is asked to."""
        match verb:
            case b"RCPT" if self._recipients is None:
                return b"503 5.5.1 MAIL first", False
            case b"RCPT" if self.plan.limit is not None and len(self._recipients) >= self.plan.limit:
                return b"452 4.5.3 too many recipients", False
            case b"RCPT" if _mailbox(line) in self.plan.refuse:
                return b"550 5.1.1 no such user", False
            case b"DATA":
                lax = self.plan.lax_mail if self._recipients is None else self.plan.lax
                return (b"354 go", True) if self._recipients or lax else (b"503 5.5.1 no valid recipients", False)
            case b"QUIT":
                return b"221 2.0.0 bye", True
        return b"250 2.0.0 ok", True

    def _answer(self, verb: bytes, usual: bytes, good: bool) -> tuple[bool, bool]:
        """Say it, or what the plan has in its place: whether the request is fulfilled, and whether it was twisted."""
        twist = self.plan.twists.get(self._replies)
        self._replies += 1
        if twist is None or not twist.replaces(verb):
            self._say(usual + b"\r\n")
            return good, False
        self._say(twist.said)
        if twist.then == "close":
            self._end()
        elif twist.then == "hang":
            self._over = True
        return twist.takes and good, True

    def _dot(self, content: bytes) -> None:
        self._in_data = False
        recipients, self._recipients = self._recipients, None
        if not recipients:
            self._answer(b".", b"554 5.5.1 no valid recipients", False)
            return
        found = _SUBJECT.search(content)
        name = found[1].decode() if found else "(empty)"
        before, usual = self.said, b"250 2.0.0 OK id-" + name.encode()
        takes, twisted = self._answer(b".", usual, True)
        if takes:
            self.accepted.append((name, tuple(recipients)))
            self.contents[name] = content
            if not twisted and self.said - before == len(usual) + 2:
                self.told.add(name)


def _mailbox(line: bytes) -> str:
    found = _MAILBOX.search(line)
    return found[1].decode() if found else ""


class Wire:
    """The client's transport, with a memory of what was handed to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.octets = bytearray()
        self._changed = asyncio.Event()

    def write(self, octets: bytes) -> None:
        self.octets += octets
        self.transport.write(octets)
        self._changed.set()

    async def until(self, octets: bytes) -> None:
        """Until these have been handed over."""
        while octets not in self.octets:
            self._changed.clear()
            await self._changed.wait()

    def abort(self) -> None:
        self.transport.abort()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def get_extra_info(self, name: str) -> object:
        return self.transport.get_extra_info(name)

    def dot_left(self, name: str) -> bool:
        return b"end of %s\r\n.\r\n" % name.encode() in self.octets


class SlicedSession(Session):
    """A session that hears replies in two pieces, parted after so many octets."""

    part_after = 0
    _came = 0

    def data_received(self, data: bytes) -> None:
        at = self.part_after - self._came
        self._came += len(data)
        if 0 < at < len(data):
            super().data_received(data[:at])
            data = data[at:]
        super().data_received(data)


@dataclass
class Flight:
    """Both ends of a connection; `confused` counts the replies that were found not to fit."""

    session: Session
    peer: Peer
    wire: Wire
    confused: list[None]


async def connect(
    plan: Plan,
    *,
    chained: bool = True,
    pipelining: bool = True,
    messages: int = 100,
    timeouts: SessionTimeouts = PATIENT,
    part_after: int = 0,
    buffers: int | None = None,
) -> Flight:
    """A session with a server. `buffers`: octets of each socket's buffers, as few as the system allows if 1."""
    loop = asyncio.get_running_loop()
    client, server = _pair(buffers)
    _, peer = await loop.connect_accepted_socket(lambda: Peer(plan), server)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=client)
    wire, confused = Wire(transport), []
    session = SlicedSession(
        wire,  # type: ignore[arg-type]
        LOGIN,
        Endpoint("localhost", 587, "127.0.0.1"),
        Features(pipelining=pipelining, eight_bit=True, size=False),
        timeouts,
        messages=messages,
        chained=chained,
        on_misbehaviour=lambda: confused.append(None),
    )
    session.part_after = part_after
    transport.set_protocol(session)
    return Flight(session, peer, wire, confused)


def _pair(buffers: int | None) -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection."""
    client = socket.socket()
    with socket.socket() as listener:
        for one in (client, listener):
            if buffers is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    for one in (client, server):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


@contextlib.asynccontextmanager
async def flight(plan: Plan, **options: object) -> AsyncIterator[Flight]:
    """The same, closed at the end."""
    both = await connect(plan, **options)  # type: ignore[arg-type]
    try:
        yield both
    finally:
        await hang_up(both)


async def hang_up(both: Flight) -> None:
    both.session.abort()
    both.peer.transport.abort()
    await both.peer.gone.wait()


@dataclass(frozen=True)
class Pieces:
    """A body that is read piece by piece, as one in a file is."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, self.size, 16384):
            yield self.octets[at : at + 16384]

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True)
class Mail:
    """One message to send: its name, its recipients' local parts, how much body it has."""

    name: str
    to: tuple[str, ...] = ("b",)
    size: int = 0

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        return tuple(Recipient(Address(one, "example.net")) for one in self.to)

    @property
    def content(self) -> Content:
        lines = (b"0123456789abcdef" * 4 + b"\r\n") * (self.size // 66)
        body = b"\r\n" + lines + b"end of %s\r\n" % self.name.encode()
        return Content(b"Subject: %s\r\n" % self.name.encode(), Pieces(body), 80, eight_bit=False)

    @property
    def octets(self) -> bytes:
        return b"".join(self.content.chunks())


def sending(
    session: Session, mail: Mail, *, whole: bool = False, patience: float = 10, permit: Permit | None = None
) -> "asyncio.Task[list[Fact]]":
    """A task that sends one message."""
    effort = Effort(patience, whole=whole, permit=permit or Permit())
    return asyncio.create_task(session.transact(ENVELOPE, mail.recipients, mail.content, effort, patience=patience))


def check(mails: Sequence[Mail], outcomes: Sequence[Sequence[Outcome]], flights: Iterable[Flight]) -> None:
    """Nobody has been told a lie.

    What is told as delivered was accepted once; what is told as not accepted was not; what is told as ambiguous was
    accepted once at most, and its dot had been handed over. Nothing else was accepted, and all of it is as it was sent.
    """
    flights = list(flights)
    copies = Counter((name, to) for one in flights for name, group in one.peer.accepted for to in group)
    for mail, told in zip(mails, outcomes, strict=True):
        assert len(told) == len(mail.to)
        for to, outcome in zip(mail.to, told, strict=True):
            count = copies.pop((mail.name, to), 0)
            if isinstance(outcome, Ambiguous):
                assert count <= 1, (mail, to, outcome)
                assert any(one.wire.dot_left(mail.name) for one in flights), (mail, to, outcome)
            else:
                assert count == isinstance(outcome, Delivered), (mail, to, outcome, count)
    assert not copies, f"nobody sent {copies}"
    contents = {mail.name: mail.octets for mail in mails}
    for one in flights:
        for name, content in one.peer.contents.items():
            assert content == contents[name]


def meanings(facts: Iterable[Sequence[Fact]]) -> list[list[Outcome]]:
    return [[classify(fact) for fact in group] for group in facts]
