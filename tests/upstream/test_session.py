"""Transactions against a peer that says what the test wants, over real sockets."""

import asyncio
import contextlib
from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.login import Endpoint, Login, Target
from relay.core.message import Content
from relay.core.outcome import Ambiguous, Answer, Bounced, Deferred, Delivered, Failure, FailureKind, Phase, classify
from relay.core.ports import Effort, Permit
from relay.core.secret import Secret
from relay.upstream import session as session_module
from relay.upstream.outflow import TURN
from relay.upstream.session import Session
from relay.upstream.stuffing import WRITE_SIZE
from relay.upstream.timeouts import SessionTimeouts
from relay.upstream.transaction import Features

LOGIN = Login(Target("localhost", (587,)), "SMTP_Injection", Secret("key"), "default")
ENVELOPE = Envelope(ReversePath(Address("a", "example.com")))
TO = tuple(Recipient(Address(name, "example.net")) for name in ("b", "c"))
OK = b"250 2.0.0 ok\r\n"
GO = b"354 go\r\n"


class Octets:
    """A body in memory."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.size = len(octets)

    def chunks(self):
        for at in range(0, len(self.octets), 65536):
            yield self.octets[at : at + 65536]

    def close(self) -> None:
        return None


def content(octets: bytes = b"Subject: x\r\n\r\nhello\r\n") -> Content:
    return Content(b"", Octets(octets), 80, False)


@contextlib.asynccontextmanager
async def session_with(*script: bytes | None, pipelining: bool = True, final_dot: float = 5, stall: float = 5):
    """A session whose peer answers the n-th flight with the n-th piece of the script; None closes, "" is silence.

    Gives the session and what the peer has heard.
    """
    heard = bytearray()
    writers = []

    async def peer(reader, writer):
        writers.append(writer)
        for piece in script:
            octets = await reader.read(1 << 20)
            if not octets:
                break
            heard.extend(octets)
            if piece is None:
                writer.transport.abort()
                return
            writer.write(piece)
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(1 << 20):
                heard.extend(octets)
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    timeouts = SessionTimeouts(command=5, data_progress=stall, final_dot=final_dot)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
    session = Session(
        transport,
        LOGIN,
        Endpoint("localhost", port, "127.0.0.1"),
        Features(pipelining, True, False),
        timeouts,
        messages=100,
        chained=True,
        on_misbehaviour=lambda: None,
    )
    transport.set_protocol(session)
    try:
        yield session, heard
    finally:
        session.abort()
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def run(session: Session, recipients=TO[:1], octets: bytes | None = None, patience=5, stall=5, **effort):
    message = content() if octets is None else content(octets)
    return await session.transact(ENVELOPE, recipients, message, Effort(stall, **effort), patience=patience)


async def test_one_flight_for_a_lone_recipient():
    """MAIL, RCPT and DATA leave together, the content and the dot after them."""
    async with session_with(OK + OK + GO, OK) as (session, heard):
        facts = await run(session)

        assert isinstance(classify(facts[0]), Delivered)
        assert session.usable
        assert bytes(heard) == (
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n"
        )


async def test_a_session_that_has_died_at_rest_is_given_up_soon(monkeypatch):
    """NAT has forgotten it, or the peer has vanished: nobody waits out a time-out, and nothing was accepted."""
    monkeypatch.setattr(session_module, "REST_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "SUSPECT_SECONDS", 0.1)
    async with session_with(OK + OK + GO, OK, b"") as (session, _):
        before = await run(session)
        async with asyncio.timeout(3):
            facts = await asyncio.gather(run(session), run(session))

        assert isinstance(classify(before[0]), Delivered)
        assert [(fact.kind, fact.phase) for (fact,) in facts] == [(FailureKind.LOST, Phase.MAIL)] * 2
        assert str(facts[0][0]) == "no answer within 0.1 s at MAIL"
        assert not session.usable


@pytest.mark.parametrize("first", [1, len(OK)])
async def test_a_session_that_answers_after_a_rest_has_all_its_time(monkeypatch, first):
    """From its first octet on it is only slow."""
    monkeypatch.setattr(session_module, "REST_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "SUSPECT_SECONDS", 0.1)
    async with session_with(OK + OK + GO, OK) as (session, _):
        await run(session)
        again = asyncio.create_task(run(session))
        await asyncio.sleep(0)
        session.data_received(OK[:first])
        await asyncio.wait([again], timeout=0.3)
        session.data_received(OK[first:] + OK + GO)
        session.data_received(OK)

        assert isinstance(classify((await again)[0]), Delivered)


async def test_a_session_that_has_not_rested_has_the_time_of_every_command(monkeypatch):
    """SparkPost is busy: another connection would find it no less so."""
    monkeypatch.setattr(session_module, "SUSPECT_SECONDS", 0.0)
    async with session_with(OK + OK + GO, OK, b"") as (session, _):
        await run(session)
        facts = await run(session, patience=0.1)

        assert (facts[0].kind, facts[0].phase) == (FailureKind.DEADLINE, Phase.MAIL)


async def test_without_pipelining_one_by_one():
    """Each command waits for the reply to the one before."""
    async with session_with(OK, OK, GO, OK, pipelining=False) as (session, _):
        assert isinstance(classify((await run(session))[0]), Delivered)


async def test_all_or_none_wait_with_data():
    """DATA is said only when all have been accepted."""
    async with session_with(OK + OK + OK, GO, OK) as (session, heard):
        facts = await run(session, TO, whole=True)

        assert [type(classify(fact)) for fact in facts] == [Delivered, Delivered]
        assert bytes(heard).count(b"DATA") == 1


async def test_one_refused_recipient_of_all_or_none_means_nothing_is_sent():
    """RSET, and each recipient has its own fact."""
    async with session_with(OK + OK + b"550 5.1.1 no\r\n", OK) as (session, heard):
        facts = await run(session, TO, whole=True)

        assert isinstance(facts[0], Failure)
        assert facts[0].kind is FailureKind.WITHHELD
        assert isinstance(classify(facts[1]), Bounced)
        assert bytes(heard).endswith(b"RSET\r\n")
        assert session.usable


async def test_each_recipient_for_itself_in_one_flight():
    """DATA need not wait: who was accepted gets the content, who was refused his refusal."""
    async with session_with(OK + b"550 5.1.1 no\r\n" + OK + GO, OK) as (session, heard):
        facts = await run(session, TO)

        assert [type(classify(fact)) for fact in facts] == [Bounced, Delivered]
        assert bytes(heard).startswith(
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\nDATA\r\nSubject: x"
        )
        assert session.usable


async def test_who_was_refused_stays_refused_when_the_connection_dies():
    """The refusal is a fact; for the other nobody knows."""
    async with session_with(OK + b"550 5.1.1 no\r\n" + OK + GO, None) as (session, _):
        facts = await run(session, TO)

        assert [type(classify(fact)) for fact in facts] == [Bounced, Ambiguous]


async def test_data_refused_for_those_who_were_accepted():
    """The others keep their own answers, and no transaction is left open."""
    async with session_with(OK + b"550 5.1.1 no\r\n" + OK + b"451 4.3.0 later\r\n", OK) as (session, heard):
        facts = await run(session, TO)

        assert [type(classify(fact)) for fact in facts] == [Bounced, Deferred]
        assert bytes(heard).endswith(b"RSET\r\n")
        assert session.usable


async def test_nobody_accepted_and_354_end_with_a_lone_dot():
    """Several refused recipients are as one."""
    refused = b"550 5.1.1 no\r\n"
    async with session_with(OK + refused + refused + GO, b"554 5.5.1 no valid recipients\r\n") as (session, heard):
        facts = await run(session, TO)

        assert [type(classify(fact)) for fact in facts] == [Bounced, Bounced]
        assert bytes(heard).endswith(b"DATA\r\n.\r\n")
        assert session.usable


async def test_without_a_claim_no_dot_is_sent():
    """The lease has run out: the message may be another's by now, and nothing of it may be accepted."""
    permit = Permit()
    permit.under(lambda: False)
    async with session_with(OK + OK + GO) as (session, heard):
        facts = await run(session, permit=permit)

        assert isinstance(facts[0], Failure)
        assert facts[0].kind is FailureKind.LEASE
        assert isinstance(classify(facts[0]), Deferred)
        assert not bytes(heard).endswith(b".\r\n")
        assert not permit.used


async def test_a_refused_lone_recipient_and_354_end_with_a_lone_dot():
    """RFC 2920: nobody gets it, and the session goes on."""
    async with session_with(OK + b"550 5.1.1 no\r\n" + GO, b"554 5.5.1 no valid recipients\r\n") as (session, heard):
        facts = await run(session)

        assert isinstance(classify(facts[0]), Bounced)
        assert bytes(heard).endswith(b"DATA\r\n.\r\n")
        assert session.usable


async def test_several_recipients_and_data_refused():
    """The refusal is everybody's, and the transaction is reset: the next message must not be a nested one."""
    async with session_with(OK + OK + OK, b"451 4.3.0 later\r\n", OK) as (session, heard):
        facts = await run(session, TO, whole=True)

        assert [str(fact) for fact in facts] == ["451 4.3.0 later"] * 2
        assert bytes(heard).endswith(b"DATA\r\nRSET\r\n")
        assert session.usable


@pytest.mark.parametrize("script", [OK + b"550 5.1.1 no\r\n503 5.5.1 no\r\n", OK + b"550 5.1.1 no\r\n" + GO])
@pytest.mark.parametrize("end", [b"", None])
async def test_a_transaction_that_cannot_be_left_hides_no_refusal(script, end, monkeypatch):
    """RSET, or the lone dot, is not answered: the application still hears what SparkPost said about its message."""
    monkeypatch.setattr(session_module, "LEAVE_SECONDS", 0.05)
    async with session_with(script, end) as (session, _):
        facts = await run(session, patience=0.02)

        assert isinstance(facts[0], Answer)
        assert facts[0].reply.code == 550
        assert not session.usable


async def test_a_354_after_a_refused_mail_ends_the_connection():
    """Whose transaction that would be nobody knows: no dot is sent."""
    async with session_with(b"550 5.7.1 no\r\n" + OK + GO) as (session, heard):
        facts = await run(session)

        assert isinstance(classify(facts[0]), Bounced)
        assert not session.usable
        assert not bytes(heard).endswith(b".\r\n")


@pytest.mark.parametrize(
    ("replies", "phase"),
    [(b"354 what\r\n" + OK + GO, Phase.MAIL), (OK + GO + GO, Phase.RCPT), (OK + OK + OK, Phase.DATA)],
)
async def test_a_reply_of_the_wrong_class_ends_the_connection(replies, phase):
    """Replies and commands no longer line up; nothing was sent."""
    async with session_with(replies) as (session, _):
        facts = await run(session)

        assert isinstance(facts[0], Failure)
        assert (facts[0].phase, facts[0].kind) == (phase, FailureKind.PROTOCOL)
        assert isinstance(classify(facts[0]), Deferred)
        assert not session.usable


@pytest.mark.parametrize(
    ("script", "kind", "phase"),
    [
        ((None,), Deferred, Phase.MAIL),
        ((OK + OK, None), Deferred, Phase.DATA),
        ((OK + OK + GO, None), Ambiguous, Phase.DOT),
        ((OK + OK + GO, b"gibberish\r\n"), Ambiguous, Phase.DOT),
        ((OK + OK + GO, b"354 again\r\n"), Ambiguous, Phase.DOT),
        ((OK + OK + GO, b""), Ambiguous, Phase.DOT),
        ((b"421 4.3.2 bye\r\n",), Deferred, Phase.MAIL),
        ((OK + OK + GO, b"421 4.3.3 bye\r\n"), Deferred, Phase.DOT),
        ((OK + OK + GO, b"550 5.6.0 no\r\n"), Bounced, Phase.DOT),
    ],
)
async def test_what_an_end_at_each_phase_means(script, kind, phase):
    """Before the dot nothing can have been accepted; after it only a reply tells."""
    async with session_with(*script, final_dot=0.2) as (session, _):
        facts = await run(session, patience=0.5)

        assert isinstance(classify(facts[0]), kind)
        assert facts[0].phase is phase


async def test_a_refusal_while_the_content_flows_ends_the_sending():
    """The reply is the answer, and the rest of the content stays here."""
    async with session_with(OK + OK + GO, b"552 5.3.4 too big\r\n") as (session, heard):
        facts = await run(session, octets=b"x" * 70 + b"\r\n" + b"y" * 30_000_000 + b"\r\n")

        assert isinstance(facts[0], Answer)
        assert isinstance(classify(facts[0]), Bounced)
        assert len(heard) < 30_000_000
        assert not session.usable


async def test_content_that_stands_still_is_given_up():
    """A peer that stops reading costs the stall limit and no memory."""
    async with session_with(OK + OK + GO) as (session, _):
        session.pause_writing()
        facts = await run(session, octets=b"y" * 200_000 + b"\r\n", stall=0.1)

        assert isinstance(facts[0], Failure)
        assert (facts[0].phase, facts[0].kind) == (Phase.DATA, FailureKind.TIMEOUT)
        assert not session.usable


async def test_time_too_short_to_be_measured_is_short_and_no_more():
    """The loop's timer for it is at once another kind of handle; nobody's transaction breaks on that."""
    async with session_with(b"") as (session, _):
        attempts = [asyncio.ensure_future(run(session, patience=0.0004)) for _ in range(2)]
        facts = [(await attempt)[0] for attempt in attempts]

    assert [(type(fact), fact.phase) for fact in facts] == [(Failure, Phase.MAIL)] * 2


@pytest.mark.parametrize("pieces", [0, 1, 10])
async def test_a_defect_in_the_midst_of_content_ends_the_attempt(pieces):
    """Nobody waits for it for ever: the place is logged, and nothing of the message can have been accepted."""

    class Defective(Octets):
        def chunks(self):
            yield from [self.octets] * pieces
            raise RuntimeError("a defect")

    message = Content(b"", Defective(b"y" * 65_536), 80, False)
    with capture_logs() as logged:
        async with session_with(OK + OK + GO) as (session, heard), asyncio.timeout(5):
            facts = await session.transact(ENVELOPE, TO[:1], message, Effort(5), patience=5)

            assert not session.usable
            assert not heard.endswith(b"\r\n.\r\n")
    assert (facts[0].phase, facts[0].kind) == (Phase.DATA, FailureKind.LOST)
    assert [event["event"] for event in logged] == ["internal.error"]


async def test_a_cancelled_transaction_never_leaves_a_usable_session():
    """Replies would no longer line up."""
    async with session_with(b"") as (session, _):
        task = asyncio.create_task(run(session))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not session.usable


async def test_an_unsolicited_word_makes_an_idle_session_unusable():
    """421 while idle: SparkPost is about to close."""
    async with session_with(OK + OK + GO, OK + b"421 4.4.2 idle\r\n") as (session, _):
        await run(session)

        assert not session.usable


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(
        st.sampled_from(
            [OK, GO, b"550 no\r\n", b"451 later\r\n", b"421 bye\r\n", b"250-", b"x", b"\r\n", b"\xff" * 9000]
        ),
        max_size=8,
    ),
    close=st.booleans(),
)
def test_any_octets_give_an_outcome(pieces, close):
    """Whatever a server says, each recipient has a fact, and no other exception comes."""

    async def attempt():
        script = (
            (b"".join(pieces[:4]), b"".join(pieces[4:]), None)
            if close
            else (b"".join(pieces[:4]), b"".join(pieces[4:]))
        )
        async with session_with(*script, final_dot=0.05) as (session, _):
            return await run(session, patience=0.05)

    facts = asyncio.run(attempt())

    assert len(facts) == 1
    classify(facts[0])


async def test_a_peer_that_takes_all_at_once_has_no_right_to_all_of_the_loop():
    """Whoever is ready to run does so each time that so much of large content has left."""
    loop = asyncio.get_running_loop()
    left: list[int] = []  # octets; 0 where somebody else had a turn
    ended = asyncio.Event()

    class Transport(asyncio.Transport):
        """Takes everything; somebody else is ready to run each time."""

        def write(self, data) -> None:
            left.append(len(data))
            loop.call_soon(left.append, 0)
            if data.endswith(b"\r\n.\r\n"):
                ended.set()

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            return None

    session = Session(
        Transport(),
        LOGIN,
        Endpoint("localhost", 587, "127.0.0.1"),
        Features(True, True, False),
        SessionTimeouts(command=5, data_progress=5, final_dot=5),
        messages=100,
        chained=True,
        on_misbehaviour=lambda: None,
    )
    sending = asyncio.create_task(run(session, octets=b"\r\n" * 500_000))
    await asyncio.sleep(0)
    session.data_received(OK + OK + GO)
    async with asyncio.timeout(5):
        await ended.wait()
    session.data_received(OK)

    assert isinstance(classify((await sending)[0]), Delivered)
    at_once = [sum(run) for octets, run in groupby(left, bool) if octets]
    assert sum(at_once) > 1_000_000
    assert max(at_once) < TURN + 2 * WRITE_SIZE
