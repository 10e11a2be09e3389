"""Transactions one behind the other on one connection, against a peer that answers as SparkPost does, or breaks."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.login import Endpoint, Login, Target
from relay.core.message import Content, MemoryBody
from relay.core.outcome import Ambiguous, Answer, Bounced, Delivered, Failure, FailureKind, Phase, classify
from relay.core.ports import Effort
from relay.core.secret import Secret
from relay.upstream.session import Session
from relay.upstream.timeouts import SessionTimeouts
from relay.upstream.transaction import Features

LOGIN = Login(Target("localhost", (587,)), "SMTP_Injection", Secret("key"), "default")
ENVELOPE = Envelope(ReversePath(Address("a", "example.com")))


class Server:
    """A server that takes pipelined commands. It answers what each read brought in one write.

    `refuse`: recipients that are refused. `cut_after`: octets after which the connection is dropped. `hold_dot`: final
    dots that are answered only when `release` is set. `pieces`: replies leave in pieces of this size.
    """

    def __init__(self, *, refuse=(), cut_after=None, hold_dot=(), pieces=None):
        self.refuse, self.cut_after, self.hold_dot, self.pieces = refuse, cut_after, hold_dot, pieces
        self.release = asyncio.Event()
        self.reads: list[bytes] = []
        self.accepted: list[bytes] = []
        self.taken = asyncio.Event()
        self.tasks: set[asyncio.Task] = set()

    async def __call__(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self.tasks.discard(task)

    async def _serve(self, reader, writer):
        buffer, data, heard = b"", None, 0
        rcpt = []
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(1 << 16):
                self.reads.append(octets)
                heard += len(octets)
                if self.cut_after is not None and heard >= self.cut_after:
                    octets = octets[: len(octets) - (heard - self.cut_after)]
                buffer += octets
                out = b""
                while True:
                    if data is not None:
                        end = (b"\r\n" + buffer).find(b"\r\n.\r\n")
                        if end < 0:
                            break
                        content, buffer, data = buffer[:end], buffer[end + 3 :], None
                        if not rcpt:
                            out += b"554 5.5.1 no valid recipients\r\n"
                            continue
                        self.accepted.append(content)
                        self.taken.set()
                        if len(self.accepted) in self.hold_dot:
                            writer.write(out)
                            out = b""
                            await self.release.wait()
                        out += b"250 2.0.0 OK id-%d\r\n" % len(self.accepted)
                        continue
                    line, found, rest = buffer.partition(b"\r\n")
                    if not found:
                        break
                    buffer = rest
                    if line.startswith(b"MAIL"):
                        rcpt = []
                        out += b"250 2.0.0 MAIL FROM accepted\r\n"
                    elif line.startswith(b"RCPT"):
                        refused = any(name in line for name in self.refuse)
                        if not refused:
                            rcpt.append(line)
                        out += b"550 5.1.1 no\r\n" if refused else b"250 2.0.0 RCPT TO accepted\r\n"
                    elif line == b"DATA":
                        data = b""
                        out += b"354 3.0.0 continue\r\n"
                    else:
                        out += b"250 2.0.0 ok\r\n"
                for at in range(0, len(out), self.pieces or len(out) or 1):
                    writer.write(out[at : at + (self.pieces or len(out))])
                    if self.pieces:
                        await asyncio.sleep(0)
                if self.cut_after is not None and heard >= self.cut_after:
                    await writer.drain()
                    break
        writer.transport.abort()


@contextlib.asynccontextmanager
async def session_to(server: Server, *, final_dot: float = 5.0, chained: bool = True, messages: int = 100):
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
    session = Session(
        transport,
        LOGIN,
        Endpoint("localhost", port, "127.0.0.1"),
        Features(pipelining=True, eight_bit=True, size=False),
        SessionTimeouts(command=5, data_progress=5, final_dot=final_dot),
        messages=messages,
        chained=chained,
        on_misbehaviour=lambda: None,
    )
    transport.set_protocol(session)
    try:
        yield session
    finally:
        session.abort()
        server.release.set()
        if server.tasks:
            await asyncio.wait(server.tasks)
        listening.close()
        await listening.wait_closed()


def sending(session: Session, name: str, *recipients: str, body: bytes = b"\r\nhello\r\n", patience: float = 5):
    to = tuple(Recipient(Address(one, "example.net")) for one in recipients or ("b",))
    content = Content(b"Subject: %s\r\n" % name.encode(), MemoryBody(body), 80, False)
    return asyncio.create_task(session.transact(ENVELOPE, to, content, Effort(patience), patience=patience))


async def test_the_next_message_leaves_with_the_dot_of_the_one_before():
    """Content, dot, MAIL, RCPT and DATA in one flight: a message costs one round trip while there are more."""
    server = Server()
    async with session_to(server) as session:
        results = await asyncio.gather(*(sending(session, f"m{number}") for number in range(5)))

    assert all(isinstance(classify(facts[0]), Delivered) for facts in results)
    assert len(server.accepted) == 5
    flights = [read for read in server.reads if read.startswith(b"Subject")]
    assert [
        b"\r\n.\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n" in read for read in flights
    ] == [
        True,
        True,
        True,
        True,
        False,
    ]


async def test_each_message_hears_its_own_reply():
    """In order, whatever became of the one before."""
    server = Server(refuse=(b"bad@",))
    async with session_to(server) as session:
        good, bad, mixed, last = await asyncio.gather(
            sending(session, "one"),
            sending(session, "two", "bad"),
            sending(session, "three", "bad", "c"),
            sending(session, "four"),
        )

    assert isinstance(classify(good[0]), Delivered)
    assert isinstance(classify(bad[0]), Bounced)
    assert [type(classify(fact)) for fact in mixed] == [Bounced, Delivered]
    assert [str(facts[-1]) for facts in (good, mixed, last)] == [f"250 2.0.0 OK id-{n}" for n in (1, 2, 3)]
    assert [content.split(b"\r\n")[0] for content in server.accepted] == [
        b"Subject: one",
        b"Subject: three",
        b"Subject: four",
    ]


async def test_large_content_passes_the_floor_on_at_its_end():
    """A message that is streamed is followed like any other."""
    server = Server()
    large = b"\r\n" + b"y" * 70 + b"\r\n" * 200_000
    async with session_to(server) as session:
        results = await asyncio.gather(sending(session, "large", body=large), sending(session, "small"))

    assert all(isinstance(classify(facts[0]), Delivered) for facts in results)
    assert [len(content) > 200_000 for content in server.accepted] == [True, False]


async def test_when_it_breaks_each_learns_where_it_stood():
    """The one whose dot has left is ambiguous; the one behind it was certainly not accepted."""
    server = Server(hold_dot=(1,))
    async with session_to(server) as session:
        first, second, third = (sending(session, name) for name in ("one", "two", "three"))
        await server.taken.wait()
        session.connection_lost(ConnectionResetError())
        facts = [(await one)[0] for one in (first, second, third)]

    assert isinstance(classify(facts[0]), Ambiguous)
    assert [(fact.phase, fact.kind) for fact in facts[1:]] == [(Phase.MAIL, FailureKind.LOST)] * 2
    assert not session.usable


async def test_who_waits_long_behind_a_dot_goes_elsewhere(monkeypatch):
    """Nothing of it has been accepted; the dot before it is waited for, and then the session is given up."""
    monkeypatch.setattr("relay.upstream.session.BEHIND_SECONDS", 0.1)
    server = Server(hold_dot=(1,))
    async with session_to(server) as session:
        first, second = sending(session, "one"), sending(session, "two")
        behind = (await second)[0]
        usable = session.usable
        server.release.set()
        answered = (await first)[0]

    assert isinstance(behind, Failure)
    assert (behind.phase, behind.kind) == (Phase.MAIL, FailureKind.LOST)
    assert not usable
    assert isinstance(classify(answered), Delivered)
    assert len(server.accepted) == 1


async def test_without_chaining_one_after_the_other():
    """The next message's MAIL waits for the reply to the dot."""
    server = Server()
    async with session_to(server, chained=False) as session:
        assert not session.takes_more
        results = await asyncio.gather(*(sending(session, f"m{number}") for number in range(3)))

    assert all(isinstance(classify(facts[0]), Delivered) for facts in results)
    assert not any(b".\r\nMAIL" in read for read in server.reads)


async def test_a_message_cancelled_before_its_turn_harms_nobody():
    """It leaves the line; the others go on."""
    server = Server(hold_dot=(1,))
    async with session_to(server) as session:
        first, second, third = (sending(session, name) for name in ("one", "two", "three"))
        await server.taken.wait()
        third.cancel()
        await asyncio.sleep(0)
        server.release.set()
        facts = await asyncio.gather(first, second)

    assert all(isinstance(classify(one[0]), Delivered) for one in facts)
    assert len(server.accepted) == 2


@pytest.mark.parametrize("pieces", [1, 7])
async def test_replies_in_any_pieces(pieces):
    """However they arrive."""
    server = Server(pieces=pieces, refuse=(b"bad@",))
    async with session_to(server) as session:
        results = await asyncio.gather(
            *(sending(session, f"m{number}", *(["bad", "c"] if number % 2 else ["b"])) for number in range(4))
        )

    assert [isinstance(classify(facts[-1]), Delivered) for facts in results] == [True] * 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cut=st.integers(1, 1500), messages=st.integers(1, 6), seed=st.integers(0, 1000))
def test_cut_anywhere_nobody_is_told_a_lie(cut, messages, seed):
    """Wherever the connection ends: what is told as accepted was accepted, and what is told as not accepted was not."""
    rng = random.Random(seed)
    recipients = [rng.choice([["b"], ["bad"], ["bad", "c"], ["b", "c"]]) for _ in range(messages)]

    async def run():
        server = Server(cut_after=cut, refuse=(b"bad@",))
        async with session_to(server) as session:
            facts = await asyncio.gather(*(sending(session, f"m{n}", *to) for n, to in enumerate(recipients)))
        return server, facts

    server, results = asyncio.run(run())
    accepted = {content.split(b"\r\n")[0] for content in server.accepted}
    for number, (to, facts) in enumerate(zip(recipients, results, strict=True)):
        assert len(facts) == len(to)
        taken = b"Subject: m%d" % number in accepted
        for fact in facts:
            outcome = classify(fact)
            if isinstance(outcome, Delivered):
                assert taken
            elif isinstance(fact, Failure) and not isinstance(outcome, Ambiguous):
                assert not taken
            elif isinstance(fact, Answer):
                assert isinstance(outcome, Bounced)


async def test_goodbye_leaves_with_the_last_dot():
    """The last message that a connection carries costs no round trip more: its QUIT is pipelined."""
    server = Server()
    async with session_to(server, messages=2) as session:
        for number in range(2):
            assert all(isinstance(classify(fact), Delivered) for fact in await sending(session, f"m{number}"))
        assert server.reads[-1].endswith(b"\r\n.\r\nQUIT\r\n")
        assert not session.usable
        await session.quit()

    assert b"".join(server.reads).count(b"QUIT") == 1


async def test_who_is_to_leave_carries_what_is_on_it():
    """Two messages are under way when it is told to leave; goodbye stands behind the second dot."""
    server = Server(hold_dot={1})
    async with session_to(server) as session:
        first = sending(session, "m0")
        await server.taken.wait()
        second = sending(session, "m1")
        await asyncio.sleep(0)
        session.end_after(2)
        server.release.set()
        outcomes = [classify(fact) for facts in await asyncio.gather(first, second) for fact in facts]

    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered]
    assert b"".join(server.reads).endswith(b"\r\n.\r\nQUIT\r\n")
