"""The queue over a spool in memory: what is attempted straight from memory, and what by way of a claim."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress

import pytest

from relay.core.envelope import Recipient
from relay.core.lifecycle import RetryPolicy, State, Verdict
from relay.core.login import Assignment, Login, Target, Terms
from relay.core.message import MemoryBody, Message
from relay.core.outcome import Outcome
from relay.core.ports import AttemptReport, Bearer, Effort
from relay.core.secret import Secret
from relay.core.spooled import Claim, Claimed, Deposit, Lane, SpoolUnavailable
from relay.delivery import window
from relay.delivery.bookkeeping import Bookkeeper
from relay.delivery.queue import PER_CONNECTION, DeliveryQueue
from relay.observe.metrics import Metrics
from tests.support.clock import HandClock
from tests.support.mail import deposit, message
from tests.support.memory_spool import MemorySpool
from tests.support.outcomes import BOUNCED, DEFERRED, DELIVERED

CONNECTIONS = 1
AT_ONCE = PER_CONNECTION * CONNECTIONS
ROOM = window.MESSAGES // 2  # for one lane
ASSIGNMENT = Assignment("shop", "default", None)
LOGIN = Login(Target("smtp.sparkpostmail.com", (587,)), "SMTP_Injection", Secret("key"), "default")
BEARER = Bearer(ASSIGNMENT, LOGIN, Terms(queue=True, deadline=4.0, max_age=1000.0))


class Spool(MemorySpool):
    """Counts the looks at the queue; the next deposits wait for `gate`."""

    looks = 0
    gate: asyncio.Event | None = None

    async def claim(self, limit: int, *, skip: Collection[Lane] = ()) -> Claimed:
        self.looks += 1
        return await super().claim(limit, skip=skip)

    async def put(self, deposit: Deposit) -> None:
        if self.gate is not None:
            await self.gate.wait()
        await super().put(deposit)


class Courier:
    """Every attempt waits until the test lets it end."""

    all_open = True

    def __init__(self) -> None:
        self.under_way: dict[str, asyncio.Future[Outcome]] = {}
        self.begun: list[str] = []

    async def deliver(
        self, message: Message, recipients: Sequence[Recipient], bearer: Bearer, effort: Effort
    ) -> AttemptReport:
        self.begun.append(message.queue_id)
        future = self.under_way[message.queue_id] = asyncio.get_running_loop().create_future()
        try:
            outcome = await future
        finally:
            del self.under_way[message.queue_id]
        return AttemptReport(tuple((one, outcome) for one in recipients), "smtp.sparkpostmail.com:587")

    def finish(self, *queue_ids: str, outcome: Outcome = DELIVERED) -> None:
        for queue_id in queue_ids or list(self.under_way):
            self.under_way[queue_id].set_result(outcome)

    def blocked(self, login: Login) -> Outcome | None:
        return None

    def next_change(self) -> float | None:
        return None


class Resolver:
    """The one identity there is."""

    def resolve(self, assignment: Assignment) -> Bearer | str:
        return BEARER

    def renew(self, assignment: Assignment) -> Assignment | str:
        return assignment

    def login_of(self, lane: Lane) -> Login | None:
        return LOGIN


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def spool(clock: HandClock) -> Spool:
    return Spool(clock)


@pytest.fixture
def courier() -> Courier:
    return Courier()


@pytest.fixture
async def queue(spool: Spool, courier: Courier, clock: HandClock) -> AsyncIterator[DeliveryQueue]:
    bookkeeper = Bookkeeper(RetryPolicy(5.0, 2.0, 60.0, 0.0), notice, Metrics(), random.Random(7))
    queue = DeliveryQueue(spool, courier, Resolver(), bookkeeper, clock, CONNECTIONS, 2 * window.OCTETS)
    running = asyncio.ensure_future(queue.run())
    await clock.settle()
    yield queue
    await queue.drain(0.0)
    await running


def notice(claim: Claim, failed: Sequence[Verdict]) -> Deposit:
    """The DSN of a message, named after it."""
    return deposit(f"{claim.message.queue_id}-DSN")


def numbered(count: int, first: int = 0) -> list[str]:
    return [f"Q{number:03}" for number in range(first, first + count)]


async def states(spool: Spool) -> dict[str, State]:
    return {entry.queue_id: entry.state for entry in (await spool.page(limit=1000)).entries}


async def test_new_mail_is_attempted_in_the_order_of_arrival_without_a_look_at_the_queue(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    """However much comes at once: what must wait for a connection waits in memory."""
    before = spool.looks
    for queue_id in numbered(20):
        await queue.keep(message(queue_id), BEARER)
    while courier.under_way or len(courier.begun) < 20:
        assert len(courier.under_way) <= AT_ONCE
        courier.finish()
        await clock.settle()
    assert courier.begun == numbered(20)
    assert set((await states(spool)).values()) == {State.DELIVERED}
    assert spool.looks == before
    assert queue.alive == frozenset()


async def test_beyond_the_window_mail_waits_in_the_spool_and_comes_by_a_claim(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    count = ROOM + 50
    for queue_id in numbered(count):
        await queue.keep(message(queue_id), BEARER)
    await clock.settle()
    assert len(courier.under_way) == 2 * AT_ONCE  # old and new by halves
    assert list((await states(spool)).values()).count(State.QUEUED) == 50 - AT_ONCE
    while courier.under_way:
        courier.finish()
        await clock.settle()
    assert sorted(courier.begun) == numbered(count)
    assert set((await states(spool)).values()) == {State.DELIVERED}


async def test_large_mail_is_not_heaped_up_in_memory(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    large = message("QLARGE").content
    large = large._replace(body=MemoryBody(bytes(window.OCTETS // 8)))
    for queue_id in numbered(12):
        await queue.keep(message(queue_id)._replace(content=large), BEARER)
    await clock.settle()
    held = [queue_id for queue_id, state in (await states(spool)).items() if state is State.ACTIVE]
    assert held[:3] == numbered(3)
    assert len(held) == 3 + AT_ONCE  # the rest of it was claimed, and those are few


async def test_deposits_that_are_not_stored_yet_count(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    """Many clients at once do not get past the window together."""
    spool.gate = asyncio.Event()
    keeping = [asyncio.ensure_future(queue.keep(message(one), BEARER)) for one in numbered(ROOM + 7)]
    await clock.settle()
    spool.gate.set()
    await asyncio.gather(*keeping)
    await clock.settle()
    assert len(queue.alive) == ROOM + AT_ONCE


async def test_what_cannot_be_stored_takes_no_room(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    spool.problem = "disk I/O error"
    for queue_id in numbered(2 * window.MESSAGES):
        with suppress(SpoolUnavailable):
            await queue.keep(message(queue_id), BEARER)
    spool.problem = None
    before = spool.looks
    for queue_id in numbered(10):
        await queue.keep(message(queue_id), BEARER)
    await clock.settle()
    assert (len(queue.alive), spool.looks) == (10, before)


async def test_a_first_attempt_that_is_put_off_comes_round_when_it_is_due(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    await queue.keep(message("Q1"), BEARER)
    await clock.settle()
    courier.finish(outcome=DEFERRED)
    await clock.settle()
    assert await states(spool) == {"Q1": State.QUEUED}
    clock.skip(6.0)
    queue.wake()
    await clock.settle()
    assert courier.begun == ["Q1", "Q1"]


async def test_a_bounce_message_leaves_at_once(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    await queue.keep(message("Q1"), BEARER)
    await clock.settle()
    courier.finish(outcome=BOUNCED)
    await clock.settle()
    assert courier.begun == ["Q1", "Q1-DSN"]


async def test_new_mail_of_one_login_does_not_wait_for_all_of_another(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    other = BEARER._replace(assignment=ASSIGNMENT._replace(subaccount=7))
    for queue_id in numbered(100):
        await queue.keep(message(queue_id), BEARER)
    for queue_id in ("R1", "R2"):
        await queue.keep(message(queue_id), other)
    await clock.settle()
    courier.finish()
    await clock.settle()
    assert {"R1", "R2"} <= set(courier.begun[: 2 * AT_ONCE])


async def test_a_drain_begins_nothing_and_puts_back_what_waits_without_a_mark(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    for queue_id in numbered(10):
        await queue.keep(message(queue_id), BEARER)
    await clock.settle()
    draining = asyncio.ensure_future(queue.drain(5.0))
    await clock.settle()
    courier.finish()
    await draining
    assert courier.begun == numbered(AT_ONCE)
    entries = (await spool.page()).entries
    assert [entry.state for entry in entries] == [State.DELIVERED] * AT_ONCE + [State.QUEUED] * (10 - AT_ONCE)
    assert not any(entry.maybe_twice for entry in entries)
    assert queue.alive == frozenset()


async def test_mail_that_waits_keeps_its_claim(
    queue: DeliveryQueue, spool: Spool, courier: Courier, clock: HandClock
) -> None:
    """The heartbeat counts for it as for what is under way."""
    for queue_id in numbered(10):
        await queue.keep(message(queue_id), BEARER)
    for _ in range(10):
        clock.skip(60.0)
        await queue.renew()
        assert await spool.reclaim(queue.alive) == []
    assert queue.alive == set(numbered(10))
