"""Whatever breaks, wherever: nobody is told a lie. The server is the truth; see `check` for what that means."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core.message import Content, Message
from relay.core.outcome import (
    Ambiguous,
    Answer,
    Bounced,
    Cause,
    Deferred,
    Delivered,
    Failure,
    FailureKind,
    Outcome,
    Phase,
)
from relay.core.ports import Effort, Permit
from relay.core.reply import Reply
from relay.upstream.channel import SmtpChannel
from relay.upstream.failure import UpstreamFailure
from relay.upstream.lanes import DEPTH
from relay.upstream.pool import Pool, PoolLimits
from relay.upstream.session import Session
from relay.upstream.timeouts import SessionTimeouts
from tests.support.faulty import (
    ENVELOPE,
    LOGIN,
    Flight,
    Mail,
    Plan,
    Twist,
    check,
    connect,
    flight,
    hang_up,
    meanings,
    sending,
)

IMPATIENT = SessionTimeouts(command=0.1, data_progress=0.1, final_dot=0.1)
AT_ONCE = 40  # connections

ONE = (Mail("m1"), Mail("m2"))
SOME_REFUSED = (Mail("m1", ("b", "bad", "c")), Mail("m2", ("bad", "d")))
ALL_REFUSED_FIRST = (Mail("m1", ("bad", "worse")), Mail("m2", ("b",)))
THREE = (Mail("m1", ("b", "c")), Mail("m2", ("bad",)), Mail("m3"))

CONFIGURATIONS = [
    pytest.param(ONE, {}, id="one recipient"),
    pytest.param(ONE, {"chained": False}, id="one recipient, not chained"),
    pytest.param(ONE, {"pipelining": False}, id="one recipient, not pipelined"),
    pytest.param(ONE, {"messages": 2}, id="one recipient, then goodbye"),
    pytest.param(SOME_REFUSED, {}, id="some refused"),
    pytest.param(SOME_REFUSED, {"whole": True}, id="some refused, all or none"),
    pytest.param(ALL_REFUSED_FIRST, {"lax": True}, id="all refused and a lone dot"),
    pytest.param(THREE, {"whole": True}, id="three, all or none"),
    pytest.param(THREE, {"messages": 3}, id="three, then goodbye"),
]


async def each(run: Callable[[int], Awaitable[None]], numbers: Iterable[int]) -> None:
    """All of them, some at a time; raises what went wrong with the first."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with room:
            try:
                await run(number)
            except AssertionError as error:
                raise AssertionError(f"at {number}: {error}") from error

    for error in await asyncio.gather(*(one(number) for number in numbers), return_exceptions=True):
        if error is not None:
            raise error


async def fly(
    plan: Plan, mails: Sequence[Mail], *, whole: bool = False, patience: float = 10, **options: object
) -> tuple[Flight, list[list[Outcome]]]:
    """All messages at once on one connection; what became of each, and nobody was told a lie."""
    async with flight(plan, **options) as both:
        async with asyncio.timeout(20):
            facts = await asyncio.gather(
                *(sending(both.session, mail, whole=whole, patience=patience) for mail in mails)
            )
            await both.session.quit()
    outcomes = meanings(facts)
    check(mails, outcomes, [both])
    return both, outcomes


def flat(outcomes: Iterable[Sequence[Outcome]]) -> list[Outcome]:
    return [outcome for told in outcomes for outcome in told]


def lost(outcome: Outcome) -> bool:
    """It was certainly not accepted, for no reason of its own: it may be sent elsewhere at once."""
    fact = outcome.fact
    return isinstance(fact, Failure) and fact.kind is FailureKind.LOST and fact.phase is not Phase.DOT


def answered(outcome: Outcome) -> bool:
    return isinstance(outcome.fact, Answer)


# -- the connection ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mails", "options"), CONFIGURATIONS)
async def test_dropped_after_any_octet_that_the_server_has_heard(mails, options):
    """By a reset, and in order."""
    options = dict(options)
    lax = options.pop("lax", False)
    refuse = frozenset({"bad", "worse"})
    whole, _ = await fly(Plan(refuse=refuse, lax=lax), mails, **options)

    async def dropped(at: int) -> None:
        plan = Plan(refuse=refuse, lax=lax, heard=at, reset=bool(at % 2))
        _, outcomes = await fly(plan, mails, **options)
        for outcome in flat(outcomes):
            assert answered(outcome) or isinstance(outcome, Ambiguous) or lost(outcome) or withheld(outcome), outcome

    await each(dropped, range(1, len(whole.peer.heard) + 1))


def withheld(outcome: Outcome) -> bool:
    return isinstance(outcome.fact, Failure) and outcome.fact.kind is FailureKind.WITHHELD


@pytest.mark.parametrize(("mails", "options"), CONFIGURATIONS)
async def test_dropped_after_any_octet_of_the_replies(mails, options):
    """What has been told to its end, and then an orderly end of the connection, is known."""
    options = dict(options)
    lax = options.pop("lax", False)
    refuse = frozenset({"bad", "worse"})
    whole, _ = await fly(Plan(refuse=refuse, lax=lax), mails, **options)

    async def dropped(at: int) -> None:
        plan = Plan(refuse=refuse, lax=lax, said=at, reset=bool(at % 2))
        both, outcomes = await fly(plan, mails, **options)
        for mail, told in zip(mails, outcomes, strict=True):
            for outcome in told:
                known = answered(outcome) or lost(outcome) or withheld(outcome)
                assert known or isinstance(outcome, Ambiguous), outcome
                assert not (isinstance(outcome, Ambiguous) and mail.name in both.peer.told and not plan.reset)

    await each(dropped, range(1, whole.peer.said + 1))


@pytest.mark.parametrize("reset", [False, True])
async def test_dropped_within_content_that_is_streamed(reset):
    """The one whose content flows, the one before it and the one behind it."""
    mails = (Mail("m1"), Mail("m2", ("b", "c"), size=200_000), Mail("m3"))
    whole, _ = await fly(Plan(), mails)
    length = len(whole.peer.heard)

    async def dropped(at: int) -> None:
        _, outcomes = await fly(Plan(heard=at, reset=reset), mails)
        assert all(answered(one) or isinstance(one, Ambiguous) or lost(one) for one in flat(outcomes))

    await each(dropped, [*range(200, length, 7001), *range(length - 120, length)])


# -- the wrong word ---------------------------------------------------------------------------------------------------

REFUSALS = [b"451 4.3.0 later\r\n", b"452 4.5.3 too many\r\n", b"550 5.7.1 no\r\n", b"503 5.5.1 bad sequence\r\n"]
WRONG = [
    b"220 what\r\n", b"250 2.0.0 fine\r\n", b"251 will forward\r\n", b"252 perhaps\r\n", b"334 \r\n", b"354 go\r\n"
]  # fmt: skip
GIBBERISH = [b"\x00\xff\r\n", b"25\r\n", b"2500 no\r\n", b"\r\n", b"250-a\r\n251 b\r\n", b"600 no\r\n"]


@pytest.mark.parametrize(("mails", "options"), CONFIGURATIONS)
async def test_every_reply_refused_in_turn(mails, options):
    """The others go on as if nothing had happened."""
    options = dict(options)
    lax = options.pop("lax", False)
    refuse = frozenset({"bad", "worse"})

    async def refused(case: int) -> None:
        number, which = divmod(case, len(REFUSALS))
        plan = Plan({number: Twist(REFUSALS[which])}, refuse=refuse, lax=lax)
        both, outcomes = await fly(plan, mails, **options)
        # Only where RSET itself is refused the connection is given up, and what is behind goes elsewhere.
        told = flat(outcomes)
        assert all(answered(one) or withheld(one) or (lost(one) and b"RSET" in both.peer.heard) for one in told), told
        assert not both.confused

    await each(refused, range(replies_of(mails) * len(REFUSALS)))


def replies_of(mails: Sequence[Mail]) -> int:
    """How many a server gives if it takes everything: MAIL, RCPT …, DATA, dot; and QUIT."""
    return sum(len(mail.to) + 3 for mail in mails) + 1


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize(("mails", "options"), CONFIGURATIONS)
async def test_421_at_every_place(mails, options, close):
    """One message hears it; those behind it were certainly not accepted."""
    options = dict(options)
    lax = options.pop("lax", False)
    refuse = frozenset({"bad", "worse"})

    async def closing(number: int) -> None:
        plan = Plan({number: Twist(b"421 4.3.2 closing\r\n", then="close" if close else "go")}, refuse=refuse, lax=lax)
        _, outcomes = await fly(plan, mails, **options)
        assert all(answered(one) or lost(one) or withheld(one) for one in flat(outcomes)), outcomes

    await each(closing, range(replies_of(mails)))


@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize(("mails", "options"), CONFIGURATIONS)
async def test_a_reply_that_its_command_does_not_admit(mails, options, takes):
    """The connection ends and is called confused. Whose dot has left may have been accepted; the others were not, and
    who had no part in it may go elsewhere at once.
    """
    options = dict(options)
    lax = options.pop("lax", False)
    refuse = frozenset({"bad", "worse"})
    words = WRONG + GIBBERISH

    async def confused(case: int) -> None:
        number, which = divmod(case, len(words))
        plan = Plan({number: Twist(words[which], takes=takes, unfit=True)}, refuse=refuse, lax=lax)
        _, outcomes = await fly(plan, mails, **options)
        culprits = [
            mail
            for mail, told in zip(mails, outcomes, strict=True)
            if not all(answered(one) or lost(one) or withheld(one) for one in told)
        ]
        assert len(culprits) <= 1, (plan, outcomes)

    await each(confused, range(replies_of(mails) * len(words)))


@pytest.mark.parametrize(
    ("number", "word"),
    [(0, b"354 go\r\n"), (1, b"354 go\r\n"), (2, b"250 ok\r\n"), (3, b"354 go\r\n"), (3, b"251 ok\r\n"), (3, b"?\r\n")],
)
async def test_an_endpoint_that_is_confused_is_told_of(number, word):
    """So that less is said to it before it has answered."""
    both, outcomes = await fly(Plan({number: Twist(word, takes=True)}), ONE)

    assert both.confused == [None]
    assert isinstance(outcomes[0][0], Ambiguous if number == 3 else Deferred)
    assert lost(outcomes[1][0])


@pytest.mark.parametrize(
    ("number", "octets", "options"),
    [
        (2, b"354 go\r\n250 2.0.0 OK\r\n", {}),
        (2, b"354 go\r\n250 2.0.0 OK\r\n", {"messages": 1}),
        (0, b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n", {"pipelining": False}),
    ],
)
async def test_what_is_answered_before_it_has_been_said_is_not_answered(number, octets, options):
    """The reply to a dot, or a command, that has not left: nothing was accepted, and the endpoint is told of."""
    mail = ONE[:1]
    both, outcomes = await fly(Plan({number: Twist(octets, takes=True)}), mail, **options)

    assert isinstance(outcomes[0][0], Deferred)
    assert b".\r\n" not in both.peer.heard
    assert both.confused == [None]


@pytest.mark.parametrize(
    ("plan", "mails"),
    [
        pytest.param(
            Plan({0: Twist(b"550 5.7.1 no\r\n"), 1: Twist(b"354 go\r\n")}), ONE, id="wrong class behind a refused MAIL"
        ),
        pytest.param(Plan({0: Twist(b"550 5.7.1 no\r\n")}, lax_mail=True), ONE, id="354 behind a refused MAIL"),
        pytest.param(
            Plan({3: Twist(b"250 2.0.0 ok\r\n")}, refuse=frozenset({"bad"}), lax=True),
            (Mail("m1", ("bad",)), Mail("m2")),
            id="a lone dot that is taken for a message",
        ),
    ],
)
async def test_an_endpoint_that_is_confused_about_who_has_been_refused_is_told_of(plan, mails):
    """The refusal stands; the endpoint is not to be trusted with flights."""
    both, outcomes = await fly(plan, mails)

    assert isinstance(outcomes[0][0], Bounced)
    assert both.confused == [None]
    assert lost(outcomes[1][0])


async def test_503_after_a_refused_mail():
    """MAIL's answer is the answer, and the next message goes on."""
    both, outcomes = await fly(Plan({0: Twist(b"550 5.7.1 no\r\n")}), ONE)

    assert str(outcomes[0][0].fact) == "550 5.7.1 no"
    assert isinstance(outcomes[1][0], Delivered)
    assert b"DATA\r\nRSET\r\nMAIL" in both.peer.heard


async def test_354_after_a_refused_mail_ends_the_connection():
    """Nobody knows whose transaction it is: no dot is sent, not even a lone one."""
    both, outcomes = await fly(Plan({0: Twist(b"451 4.7.1 later\r\n")}, lax_mail=True), ONE)

    assert isinstance(outcomes[0][0], Deferred)
    assert both.peer.heard.endswith(b"DATA\r\n")


async def test_354_after_every_recipient_was_refused():
    """A lone dot, and the next message goes on."""
    plan = Plan(refuse=frozenset({"bad", "worse"}), lax=True)
    both, outcomes = await fly(plan, ALL_REFUSED_FIRST)

    assert [type(outcome) for outcome in outcomes[0]] == [Bounced, Bounced]
    assert isinstance(outcomes[1][0], Delivered)
    assert b"DATA\r\n.\r\nMAIL" in both.peer.heard


# -- replies in pieces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "twists",
    [
        {},
        {3: Twist(b"250-2.0.0 OK\r\n250 2.0.0 id-m1\r\n", takes=True)},
        {3: Twist(b"250 2.0.0 OK id-m1\r\n\x00\xff\r\n", takes=True)},
        {3: Twist(b"250 2.0.0 OK id-m1\r\n421 4.3.2 closing\r\n", takes=True, then="close")},
        {3: Twist(b"250 2.0.0 OK id-m1\r\n354 go\r\n", takes=True)},
        {2: Twist(b"354 go\r\n552 5.3.4 too big\r\n", takes=True, then="close")},
        {7: Twist(b"250 2.0.0 OK id-m2\r\n\x00\xff\r\n", takes=True)},
    ],
)
async def test_replies_parted_anywhere_mean_the_same(twists):
    """Where the network cuts what the server says is no fact about the message."""
    plan = Plan(twists)
    whole, expected = await fly(plan, ONE)

    async def parted(at: int) -> None:
        _, outcomes = await fly(plan, ONE, part_after=at)
        assert [[type(one) for one in told] for told in outcomes] == [[type(one) for one in told] for told in expected]

    await each(parted, range(1, whole.peer.said))


# -- silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mails", "options"), CONFIGURATIONS)
async def test_silence_at_each_phase(mails, options):
    """The server does as it is asked, or not, and says nothing any more."""
    options = dict(options)
    lax = options.pop("lax", False)
    refuse = frozenset({"bad", "worse"})

    async def silent(case: int) -> None:
        number, takes = divmod(case, 2)
        plan = Plan({number: Twist(b"", takes=bool(takes), then="hang")}, refuse=refuse, lax=lax)
        await fly(plan, mails, timeouts=IMPATIENT, **options)

    await each(silent, range(2 * (replies_of(mails) - 1)))


async def test_silence_in_the_midst_of_a_reply():
    """Half a word is none."""

    async def silent(number: int) -> None:
        plan = Plan({number: Twist(b"250-2.0.0 OK", takes=True, then="hang")})
        await fly(plan, ONE, timeouts=IMPATIENT)

    await each(silent, range(8))


@pytest.mark.parametrize("patience", [0.05, 10])
async def test_content_that_nobody_reads_any_more(patience):
    """Within the content the server stops reading: nothing of it can have been accepted."""
    mails = (Mail("m1"), Mail("m2", size=4_000_000), Mail("m3"))
    async with flight(Plan(), timeouts=IMPATIENT, buffers=8192) as both:
        tasks = [sending(both.session, mail, patience=patience) for mail in mails]
        await both.peer.until(b"Subject: m2")
        both.peer.transport.pause_reading()
        outcomes = meanings(await asyncio.gather(*tasks))
    check(mails, outcomes, [both])

    assert isinstance(outcomes[0][0], Delivered)
    assert outcomes[1][0].fact.phase is Phase.DATA
    assert isinstance(outcomes[2][0], Deferred)


async def test_who_waits_behind_content_waits_no_longer_than_he_can():
    """A large message that moves, but slowly, is no reason to keep the application of the next one waiting."""
    large, small = Mail("m1", size=4_000_000), Mail("m2")
    async with flight(Plan(), buffers=8192) as both:
        first = sending(both.session, large)
        await both.peer.until(b"Subject: m1")
        both.peer.transport.pause_reading()
        async with asyncio.timeout(3):
            behind = await sending(both.session, small, patience=0.1)
        both.peer.transport.resume_reading()
        outcomes = meanings([await first, behind])
    check((large, small), outcomes, [both])

    assert isinstance(outcomes[0][0], Delivered)
    assert outcomes[1][0].fact.kind is FailureKind.DEADLINE


async def test_who_was_too_late_before_his_turn_ends_nothing():
    """The patience of one runs out while the messages before it are under way: the connection goes on with the next."""
    mails = (*ONE, Mail("m3"))
    async with flight(Plan()) as both:
        tasks = [sending(both.session, mail, patience=0 if mail.name == "m2" else 10) for mail in mails]
        outcomes = meanings(await asyncio.gather(*tasks))
        usable = both.session.usable
    check(mails, outcomes, [both])

    assert [type(told[0]) for told in outcomes] == [Delivered, Deferred, Delivered]
    assert outcomes[1][0].fact.kind is FailureKind.DEADLINE
    assert usable


# -- back-pressure ----------------------------------------------------------------------------------------------------


async def test_a_server_that_reads_only_when_it_has_been_heard():
    """RFC 2920 §3.1: with all buffers full in both directions nobody waits for the other for ever."""
    crowd = tuple(f"r{number}" for number in range(400))
    mails = (Mail("m1", crowd), Mail("m2", size=300_000), Mail("m3", crowd, size=300_000), Mail("m4"))
    _, outcomes = await fly(Plan(padding=400, polite=True), mails, buffers=8192)

    assert all(isinstance(outcome, Delivered) for outcome in flat(outcomes))


# -- somebody leaves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", [0, 1, 2])
async def test_a_message_cancelled_at_each_step(whom):
    """The others are told the truth; of it nothing is accepted unless its permit was used."""

    async def cancelled(steps: int) -> None:
        mails = (Mail("m1"), Mail("m2", size=150_000 * (steps % 2)), Mail("m3"))
        permit = Permit()
        async with flight(Plan()) as both:
            tasks = [
                sending(both.session, mail, permit=permit if number == whom else None)
                for number, mail in enumerate(mails)
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            done = tasks[whom].done()
            tasks[whom].cancel()
            await asyncio.wait([tasks[whom]])
            used = permit.used
            facts = await asyncio.gather(*tasks, return_exceptions=True)
            both.session.abort()
            await both.peer.gone.wait()
        if done:
            check(mails, meanings(facts), [both])
            return
        assert isinstance(facts[whom], asyncio.CancelledError)
        taken = [name for name, _ in both.peer.accepted]
        assert used or mails[whom].name not in taken
        both.peer.forget(mails[whom].name)
        others = [number for number in range(3) if number != whom]
        check([mails[n] for n in others], meanings(facts[n] for n in others), [both])

    await each(cancelled, range(60))


async def test_cancelled_when_it_is_over_harms_nobody():
    """The answer has come, and he who waits for it is cancelled before he can take it: the next message goes on."""
    async with flight(Plan()) as both:
        first, second = (sending(both.session, mail) for mail in ONE)
        hear = both.session._hear

        def heard(reply):
            hear(reply)
            if "id-m1" in str(reply):
                first.cancel()

        both.session._hear = heard
        facts = await asyncio.gather(first, second, return_exceptions=True)

    assert isinstance(facts[0], asyncio.CancelledError)
    assert isinstance(meanings([facts[1]])[0][0], Delivered)


@pytest.mark.parametrize(("mails", "options"), [(ONE, {}), (THREE, {"whole": True}), (ONE, {"chained": False})])
async def test_told_to_leave_at_any_moment(mails, options):
    """It carries what is on it, says QUIT once, behind the last dot where it can, and takes no more."""
    options = dict(options)
    whole = options.pop("whole", False)

    async def leaving(steps: int) -> None:
        async with flight(Plan(refuse=frozenset({"bad"})), **options) as both:
            tasks = [sending(both.session, mail, whole=whole) for mail in mails]
            for _ in range(steps):
                await asyncio.sleep(0)
            both.session.end_after(len(mails))
            outcomes = meanings(await asyncio.gather(*tasks))
            await both.session.quit()
            await both.peer.gone.wait()
        check(mails, outcomes, [both])
        assert all(answered(outcome) for outcome in flat(outcomes)), outcomes
        assert both.peer.heard.count(b"QUIT\r\n") <= 1
        assert not both.session.usable

    await each(leaving, range(40))


async def test_nothing_new_on_a_session_that_is_given_up(monkeypatch):
    """Somebody left it because a dot was not answered: his DATA must never be, not even by a lone dot."""
    monkeypatch.setattr("relay.upstream.session.BEHIND_SECONDS", 0.05)
    mails = (*ONE, Mail("m3"))
    async with flight(Plan()) as both:
        first = sending(both.session, mails[0])
        await both.wire.until(b"end of m1")
        both.peer.transport.pause_reading()
        behind = await sending(both.session, mails[1])
        late = sending(both.session, mails[2])
        await asyncio.sleep(0)
        both.peer.transport.resume_reading()
        outcomes = meanings([await first, behind, await late])
        await both.peer.gone.wait()
    check(mails, outcomes, [both])

    assert isinstance(outcomes[0][0], Delivered)
    assert lost(outcomes[1][0])
    assert lost(outcomes[2][0])


# -- content that cannot be read, and claims that run out -------------------------------------------------------------


class Broken:
    """A body whose reading fails after so many pieces."""

    def __init__(self, pieces: int) -> None:
        self.size = 70_000 * pieces
        self._pieces = pieces

    def chunks(self):
        for _ in range(self._pieces):
            yield (b"x" * 68 + b"\r\n") * 1000
        raise OSError(5, "Input/output error")

    def close(self) -> None:
        return None


@pytest.mark.parametrize("pieces", [0, 1, 2, 5])
async def test_content_that_cannot_be_read(pieces):
    """Nothing of it is accepted, whichever piece is missing; the one before it is delivered."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    broken = Content(b"Subject: m2\r\n", Broken(pieces), 80, eight_bit=False)
    async with flight(Plan()) as both:
        first = sending(both.session, ONE[0])
        second = asyncio.create_task(
            both.session.transact(ENVELOPE, ONE[1].recipients, broken, Effort(10), patience=10)
        )
        third = sending(both.session, Mail("m3"))
        outcomes = meanings(await asyncio.gather(first, second, third))
    check((ONE[0], ONE[1], Mail("m3")), outcomes, [both])

    assert isinstance(outcomes[0][0], Delivered)
    assert outcomes[1][0].fact.phase is Phase.DATA
    assert "cannot be read" in str(outcomes[1][0].fact)
    assert lost(outcomes[2][0])
    assert complaints == []


class Watched:
    """A large body that tells how much of it has been read."""

    def __init__(self) -> None:
        self.size = 10_000_000
        self.read = 0

    def chunks(self):
        for _ in range(100):
            self.read += 100_000
            yield (b"x" * 98 + b"\r\n") * 1000

    def close(self) -> None:
        return None


async def test_content_is_read_no_further_when_nobody_wants_it():
    """The connection has ended: the rest stays where it is."""
    body = Watched()
    async with flight(Plan(heard=100_000)) as both:
        content = Content(b"Subject: m1\r\n", body, 98, eight_bit=False)
        await both.session.transact(ENVELOPE, ONE[0].recipients, content, Effort(10), patience=10)
        await both.peer.gone.wait()
        await asyncio.sleep(0)

    assert body.read < 8_000_000


@pytest.mark.parametrize("size", [0, 200_000])
async def test_a_claim_that_runs_out_before_the_dot(size):
    """The dot stays here; the message before is delivered, the one behind may go elsewhere."""
    mails = (Mail("m1"), Mail("m2", size=size), Mail("m3"))
    permit = Permit()
    permit.under(lambda: False)
    async with flight(Plan()) as both:
        tasks = [sending(both.session, mail, permit=permit if mail.name == "m2" else None) for mail in mails]
        outcomes = meanings(await asyncio.gather(*tasks))
    check(mails, outcomes, [both])

    assert isinstance(outcomes[0][0], Delivered)
    assert outcomes[1][0].fact.kind is FailureKind.LEASE
    assert lost(outcomes[2][0])
    assert not permit.used


# -- the whole channel ------------------------------------------------------------------------------------------------


HEALTHY = Plan()


class Way:
    """A channel over a pool whose first connections behave as planned, and all others well."""

    def __init__(
        self, *plans: Plan, connections: int = 1, otherwise: Plan = HEALTHY, per_transaction: int = 100
    ) -> None:
        self.flights: list[Flight] = []
        self._plans = list(plans)
        self._otherwise = otherwise
        self.pool = Pool(self._open, PoolLimits(connections, 100, 50))
        self.channel = SmtpChannel(self.pool, per_transaction)

    async def _open(self, login, deadline, slots) -> Session:
        plan = self._plans.pop(0) if self._plans else self._otherwise
        one = await connect(plan)
        self.flights.append(one)
        return one.session

    async def send(self, mail: Mail, permit: Permit | None = None, *, whole: bool = False) -> list[Outcome]:
        message = Message(mail.name, ENVELOPE, mail.content)
        effort = Effort(10, whole, permit=permit or Permit())
        report = await self.channel.send(message, mail.recipients, LOGIN, effort)
        assert [recipient for recipient, _ in report.outcomes] == list(mail.recipients)
        return [outcome for _, outcome in report.outcomes]

    async def close(self) -> None:
        await self.pool.close()
        for one in self.flights:
            await hang_up(one)


async def through(way: Way, mails: Sequence[Mail]) -> list[list[Outcome]]:
    """All messages at once, and the truth about each."""
    try:
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*(way.send(mail) for mail in mails))
    finally:
        await way.close()
    check(mails, outcomes, way.flights)
    return outcomes


WARM = Mail("m0")


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("end", ["heard", "said"])
async def test_a_connection_that_ends_anywhere_costs_nobody_his_turn(end, connections):
    """Who was certainly not accepted goes elsewhere at once: nobody but who is in doubt has to come back."""
    mails = (Mail("m1"), Mail("m2"), Mail("m3"))
    clean, _ = await fly(Plan(), (WARM, *mails))
    length = len(clean.peer.heard) if end == "heard" else clean.peer.said
    first = await fly(Plan(), (WARM,))
    warm = len(first[0].peer.heard) if end == "heard" else first[0].peer.said

    async def dropped(at: int) -> None:
        way = Way(Plan(**{end: at, "reset": bool(at % 2)}), connections=connections)
        assert isinstance((await way.send(WARM))[0], Delivered)
        outcomes = await after(way, mails)
        assert all(isinstance(one, Delivered | Ambiguous) for one in flat(outcomes)), outcomes

    await each(dropped, range(warm + (end == "heard"), length + 1))


async def after(way: Way, mails: Sequence[Mail]) -> list[list[Outcome]]:
    """The same on a connection that has carried a message already."""
    try:
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*(way.send(mail) for mail in mails))
    finally:
        await way.close()
    for one in way.flights:
        one.peer.forget(WARM.name)
    check(mails, outcomes, way.flights)
    return outcomes


@pytest.mark.parametrize("end", ["heard", "said"])
async def test_who_was_not_refused_goes_elsewhere_and_who_was_does_not(end):
    """Some recipients have been refused when the connection ends: that stands, and the others lose nothing."""
    mails = (Mail("m1", ("bad", "b")), Mail("m2", ("b", "bad", "c")))
    refuse = frozenset({"bad"})
    clean, _ = await fly(Plan(refuse=refuse), (WARM, *mails))
    length = len(clean.peer.heard) if end == "heard" else clean.peer.said
    first, _ = await fly(Plan(refuse=refuse), (WARM,))
    warm = len(first.peer.heard) if end == "heard" else first.peer.said

    async def dropped(at: int) -> None:
        way = Way(Plan(refuse=refuse, **{end: at}), otherwise=Plan(refuse=refuse))
        assert isinstance((await way.send(WARM))[0], Delivered)
        outcomes = await after(way, mails)
        for mail, told in zip(mails, outcomes, strict=True):
            for to, outcome in zip(mail.to, told, strict=True):
                assert isinstance(outcome, Bounced if to == "bad" else Delivered | Ambiguous), (mail, outcome)

    await each(dropped, range(warm + (end == "heard"), length + 1))


@pytest.mark.parametrize("word", [b"421 4.3.2 closing\r\n", b"\x00\xff\r\n", b"299 what\r\n"])
@pytest.mark.parametrize("connections", [1, 3])
async def test_one_bad_word_is_one_messages_misfortune(word, connections):
    """The message that it answers hears it; all others are delivered at once, by another connection if need be."""
    mails = (Mail("m1"), Mail("m2"), Mail("m3"))

    async def said(number: int) -> None:
        way = Way(Plan({4 + number: Twist(word, then="close")}), connections=connections)
        assert isinstance((await way.send(WARM))[0], Delivered)
        outcomes = await after(way, mails)
        unlucky = [told for told in outcomes if not isinstance(told[0], Delivered)]
        assert len(unlucky) <= 1, outcomes

    async with asyncio.timeout(8):
        await each(said, range(12))


@pytest.mark.parametrize("wakes", [True, False])
@pytest.mark.parametrize("messages", [1, 3, 12])
async def test_connections_that_have_all_died_at_rest_cost_each_message_one_wait(monkeypatch, messages, wakes):
    """NAT has forgotten them, or SparkPost is slow to wake: who has met one is not given another. Nothing is in doubt,
    even if all that was said is heard afterwards.
    """
    monkeypatch.setattr("relay.upstream.session.REST_SECONDS", 0.0)
    monkeypatch.setattr("relay.upstream.session.SUSPECT_SECONDS", 0.5)
    way = Way(connections=5)
    places = await asyncio.gather(*(way.pool.acquire(LOGIN, 5) for _ in range(5 * DEPTH)))
    for session, _ in places:
        way.pool.release(session)
    dead = list(way.flights)
    for one in dead:
        one.peer.transport.pause_reading()
    mails = [Mail(f"m{number}") for number in range(messages)]
    outcomes = await asyncio.gather(*(way.send(mail) for mail in mails))
    if wakes:
        for one in dead:
            one.peer.transport.resume_reading()
    await way.close()
    check(mails, outcomes, way.flights)

    assert all(isinstance(outcome, Delivered) for outcome in flat(outcomes))
    assert len(way.flights) <= 10


async def test_too_many_recipients_while_another_message_waits_behind():
    """452 4.5.3 at the third: the rest goes in further transactions, and the message behind goes its way."""
    mails = (Mail("m1", ("a", "b", "c", "d", "e")), Mail("m2"), Mail("m3", ("a", "b", "c")))
    way = Way(otherwise=Plan(limit=2))
    outcomes = await through(way, mails)

    assert all(isinstance(outcome, Delivered) for outcome in flat(outcomes))
    groups = [group for one in way.flights for name, group in one.peer.accepted if name == "m1"]
    assert groups == [("a", "b"), ("c", "d"), ("e",)]


FIVE = Mail("m1", ("b", "c", "d", "e", "f"))


@pytest.mark.parametrize("said", [b"535 5.7.8 Sorry.", b"454 4.7.0 later"])
async def test_a_login_that_fails_is_not_tried_for_each_recipient(said):
    """Nobody logs in again with a key that has been refused: the other recipients share the news."""
    tried = []

    async def refuse(login, deadline, slots):
        tried.append(login)
        raise UpstreamFailure(Answer(Phase.AUTH, Reply.parse(int(said[:3]), [said[4:].decode()])))

    way = Way(per_transaction=1)
    way.pool = Pool(refuse, PoolLimits(10, 100, 50))
    way.channel = SmtpChannel(way.pool, 1)
    (outcomes,) = await through(way, [FIVE])

    assert len(tried) == 1
    assert [str(outcome.fact) for outcome in outcomes] == [said.decode()] * 5


@pytest.mark.parametrize("at", range(4))
async def test_who_wants_to_be_spared_is_not_asked_for_each_recipient(at):
    """A 421 may be about one recipient, a second one is not: no connection is made for each of the others."""
    way = Way(otherwise=Plan(twists={at: Twist(b"421 4.3.2 busy\r\n", then="close")}), per_transaction=1)
    (outcomes,) = await through(way, [FIVE])

    assert len(way.flights) == 2
    assert [answered(outcome) for outcome in outcomes] == [True, True, False, False, False]
    assert all(withheld(outcome) for outcome in outcomes[2:])


@pytest.mark.parametrize("said", [b"421 4.3.3 [internal]\r\n", b"nonsense\r\n", b""])
async def test_one_recipient_at_whom_the_connection_ends_does_not_keep_the_others_waiting(said):
    """The next transaction, on another connection, goes well: so do those behind it. Else they would wait for ever."""
    way = Way(Plan(twists={1: Twist(said, then="close")}), per_transaction=1)
    (outcomes,) = await through(way, [FIVE])

    assert [isinstance(outcome, Delivered) for outcome in outcomes] == [False, True, True, True, True]


async def test_connections_that_end_one_after_the_other_are_a_fault_of_the_way():
    """Whoever has not had his turn by the second one has it in the next attempt."""
    way = Way(otherwise=Plan(twists={1: Twist(b"", then="close")}), per_transaction=1)
    (outcomes,) = await through(way, [FIVE])

    assert len(way.flights) == 2
    assert [lost(outcome) for outcome in outcomes] == [True, True, False, False, False]
    assert all(withheld(outcome) for outcome in outcomes[2:])


async def test_a_message_that_is_put_off_again_and_again_is_not_sent_for_each_recipient():
    """A 4yz to the dot may be about one of them; ten in a row are not, and the content may be large."""
    later = Twist(b"451 4.3.0 later\r\n")
    way = Way(Plan(twists={3 + 4 * number: later for number in range(40)}), per_transaction=1)
    (outcomes,) = await through(way, [Mail("m1", tuple(f"r{number}" for number in range(30)))])

    assert way.flights[0].peer.heard.count(b"MAIL FROM") == 10
    assert [str(outcome.fact) for outcome in outcomes] == ["451 4.3.0 later"] * 30


async def test_one_that_is_taken_in_between_shows_that_the_others_may_be_too():
    """Nine are put off, one is not: the next ones have their turn."""
    later = Twist(b"451 4.3.0 later\r\n")
    way = Way(Plan(twists={3 + 4 * number: later for number in range(30) if number % 10 != 9}), per_transaction=1)
    (outcomes,) = await through(way, [Mail("m1", tuple(f"r{number}" for number in range(30)))])

    assert [isinstance(outcome, Delivered) for outcome in outcomes] == ([False] * 9 + [True]) * 3


async def test_a_defect_between_two_transactions_takes_no_answer_back(monkeypatch):
    """Who was delivered to stays so; of the next nobody knows, and the others are not tried."""
    transact, begun = Session.transact, []

    async def breaks(session, envelope, recipients, *rest, **options):
        begun.append(recipients)
        if len(begun) == 2:
            raise RuntimeError("a defect")
        return await transact(session, envelope, recipients, *rest, **options)

    monkeypatch.setattr(Session, "transact", breaks)
    way = Way(per_transaction=1)
    outcomes = await way.send(FIVE)
    await way.close()

    assert [type(outcome) for outcome in outcomes[:2]] == [Delivered, Ambiguous]
    assert all(withheld(outcome) for outcome in outcomes[2:])
    assert [to for _, to in way.flights[0].peer.accepted] == [("b",)]


async def test_a_quota_that_is_used_up_is_so_for_all_recipients():
    """Nothing more is sent than what has been answered with it."""
    said = b"550 5.7.1 Exceed Sending Limit (daily)"
    way = Way(Plan(twists={3: Twist(said + b"\r\n")}), per_transaction=1)
    (outcomes,) = await through(way, [FIVE])

    assert way.flights[0].peer.heard.count(b"MAIL FROM") == 1
    assert [outcome.cause for outcome in outcomes] == [Cause.QUOTA] * 5


async def test_a_claim_that_runs_out_costs_only_its_own_message():
    """Who waits behind it is delivered by another connection."""
    mails = (Mail("m1"), Mail("m2"), Mail("m3"))
    permit = Permit()
    permit.under(lambda: False)
    way = Way()
    await way.send(WARM)
    tasks = [asyncio.create_task(way.send(mail, permit if mail.name == "m2" else None)) for mail in mails]
    outcomes = await asyncio.gather(*tasks)
    await way.close()

    assert [type(told[0]) for told in outcomes] == [Delivered, Deferred, Delivered]
    assert [name for one in way.flights for name, _ in one.peer.accepted] == ["m0", "m1", "m3"]


@pytest.mark.parametrize("whom", [0, 1, 2])
async def test_cancelled_at_each_step_no_slot_is_lost(whom):
    """What was not permitted was not accepted; the next message finds its way."""

    async def cancelled(steps: int) -> None:
        mails = (Mail("m1"), Mail("m2"), Mail("m3"))
        way, permit = Way(), Permit()
        tasks = [asyncio.create_task(way.send(mail, permit if n == whom else None)) for n, mail in enumerate(mails)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[whom].cancel()
        await asyncio.wait([tasks[whom]])
        used = permit.used
        told = await asyncio.gather(*tasks, return_exceptions=True)
        last = await way.send(Mail("m4"))
        await way.close()
        accepted = [name for one in way.flights for name, _ in one.peer.accepted]
        assert isinstance(last[0], Delivered)
        assert len(set(accepted)) == len(accepted)
        assert used or mails[whom].name not in accepted
        for mail, outcomes in zip(mails, told, strict=True):
            if not isinstance(outcomes, asyncio.CancelledError):
                assert isinstance(outcomes[0], Ambiguous) or (mail.name in accepted) is isinstance(
                    outcomes[0], Delivered
                )

    await each(cancelled, range(40))


# -- all of it together -----------------------------------------------------------------------------------------------

BAD_WORDS = st.one_of(
    st.builds(Twist, st.sampled_from(REFUSALS)),
    st.builds(Twist, st.just(b"421 4.3.2 closing\r\n"), then=st.sampled_from(["go", "close"])),
    st.builds(Twist, st.sampled_from(WRONG + GIBBERISH), takes=st.booleans(), unfit=st.just(True)),
    st.builds(Twist, st.just(b"250-2.0"), takes=st.booleans(), then=st.just("close")),
)
PLANS = st.builds(
    Plan,
    st.dictionaries(st.integers(0, 30), BAD_WORDS, max_size=3),
    refuse=st.sampled_from([frozenset(), frozenset({"bad"}), frozenset({"b", "bad"})]),
    limit=st.sampled_from([None, None, 1, 2]),
    lax=st.booleans(),
    lax_mail=st.booleans(),
    heard=st.one_of(st.none(), st.integers(1, 900)),
    said=st.one_of(st.none(), st.integers(1, 900)),
    reset=st.booleans(),
)
RECIPIENTS = st.lists(st.sampled_from(["b", "bad", "c", "d"]), min_size=1, max_size=4, unique=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    plans=st.lists(PLANS, min_size=1, max_size=4),
    to=st.lists(st.tuples(RECIPIENTS, st.booleans(), st.sampled_from([0, 0, 0, 100_000])), min_size=1, max_size=6),
    connections=st.integers(1, 3),
    per_transaction=st.sampled_from([1, 2, 100]),
)
def test_whatever_happens_the_ledger_is_exact(plans, to, connections, per_transaction):
    """Several bad connections one after the other, several messages at once, some for all or none."""
    mails = [Mail(f"m{number}", tuple(names), size) for number, (names, _, size) in enumerate(to)]

    async def run() -> list[list[Outcome]]:
        way = Way(*plans, connections=connections, per_transaction=per_transaction)
        try:
            async with asyncio.timeout(9):
                outcomes = await asyncio.gather(
                    *(way.send(mail, whole=whole) for mail, (_, whole, _) in zip(mails, to, strict=True))
                )
        finally:
            await way.close()
        check(mails, outcomes, way.flights)
        return outcomes

    outcomes = asyncio.run(run())
    for told, (_, whole, _) in zip(outcomes, to, strict=True):
        kinds = {type(outcome) for outcome in told}
        assert not (whole and kinds & {Delivered, Ambiguous} and kinds & {Deferred, Bounced}), told
