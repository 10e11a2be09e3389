"""What the spool needs now and then."""

import asyncio
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import pytest
from structlog.typing import EventDict

from relay.core.lifecycle import LEASE
from relay.core.spooled import Lane, SpoolUnavailable
from relay.delivery.upkeep import INTERVAL, Upkeep
from tests.support.clock import HandClock

BILLING = Lane("billing", 7)


class Spool:
    """The part of a Spool that upkeep uses; what is done is noted in `done`, and fails while it is `down`."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.done: list[tuple[Any, ...]] = []
        self.down = False
        self.lost: list[str] = []
        self.over_age: list[str] = []
        self.old = 0
        self.purge_takes = 0.0

    def _do(self, *what: Any) -> None:
        if self.down:
            raise SpoolUnavailable("disk I/O error")
        self.done.append(what)

    async def reclaim(self, alive: Collection[str]) -> list[str]:
        self._do("reclaim", alive)
        lost, self.lost = self.lost, []
        return lost

    async def hold_over_age(self, blocked: Collection[Lane]) -> list[str]:
        self._do("hold", blocked)
        return self.over_age

    async def purge(self, *, failed_for: float, ended_for: float) -> int:
        self._do("purge", failed_for, ended_for)
        self.clock.skip(self.purge_takes)
        removed = min(self.old, 100)
        self.old -= removed
        return removed


class Queue:
    """The part of a DeliveryQueue that upkeep uses."""

    alive = frozenset({"ALIVE"})

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.woken = 0
        self.renewals: list[float] = []

    async def renew(self) -> None:
        self.renewals.append(self.spool.clock.monotonic())
        self.spool._do("renew")

    def wake(self) -> None:
        self.woken += 1

    def blocked_lanes(self) -> frozenset[Lane]:
        return frozenset({BILLING})


@pytest.fixture
def spool() -> Spool:
    return Spool(HandClock())


@pytest.fixture
def queue(spool: Spool) -> Queue:
    return Queue(spool)


@pytest.fixture
def upkeep(spool: Spool, queue: Queue) -> Upkeep:
    return Upkeep(spool, queue, spool.clock, keep_failed=1_209_600, keep_delivered=604_800)


async def test_a_round_begins_with_the_heartbeat(upkeep: Upkeep, spool: Spool) -> None:
    """What is alive is renewed before anything is taken for lost."""
    await upkeep.once()

    assert spool.done == [
        ("renew",),
        ("reclaim", frozenset({"ALIVE"})),
        ("hold", frozenset({BILLING})),
        ("purge", 1_209_600, 604_800),
    ]


async def test_lost_claims_are_told_and_sent_at_once(
    upkeep: Upkeep, spool: Spool, queue: Queue, logged: list[EventDict]
) -> None:
    """Each may be sent twice, so each has its event."""
    spool.lost = ["A", "B"]
    await upkeep.once()

    assert [(event["event"], event["queue_id"]) for event in logged] == [
        ("queue.reclaimed", "A"),
        ("queue.reclaimed", "B"),
    ]
    assert queue.woken


async def test_what_grew_old_while_it_was_held_back_is_told(
    upkeep: Upkeep, spool: Spool, logged: list[EventDict]
) -> None:
    """The operator has to look after it."""
    spool.over_age = ["A"]
    await upkeep.once()

    assert [(event["event"], event["queue_id"], event["log_level"]) for event in logged] == [
        ("queue.held", "A", "error")
    ]


async def test_all_that_is_old_is_removed_bit_by_bit(upkeep: Upkeep, spool: Spool) -> None:
    """No single transaction is long."""
    spool.old = 250
    await upkeep.once()

    assert [what[0] for what in spool.done].count("purge") == 4
    assert spool.old == 0


async def test_claims_are_renewed_in_time_however_much_there_is_to_remove(
    upkeep: Upkeep, spool: Spool, queue: Queue
) -> None:
    """A million lines of the ledger take minutes; attempts must not lose their claims meanwhile."""
    spool.old, spool.purge_takes = 1_000_000, 1.0
    running = asyncio.create_task(upkeep.run())
    await spool.clock.advance(10 * LEASE)
    running.cancel()

    assert len(queue.renewals) > 20
    assert max(later - earlier for earlier, later in pairwise(queue.renewals)) < LEASE / 2


async def test_a_spool_that_is_down_is_asked_again(upkeep: Upkeep, spool: Spool, queue: Queue) -> None:
    """Upkeep outlives it, and goes on when it is there again, within the life of a lease."""
    spool.down = True
    running = asyncio.create_task(upkeep.run())
    await spool.clock.advance(INTERVAL)
    assert spool.done == []
    spool.down, spool.lost = False, ["A"]
    await spool.clock.advance(INTERVAL)
    running.cancel()

    assert spool.done[0] == ("renew",)
    assert queue.woken
    assert 2 * INTERVAL < LEASE
