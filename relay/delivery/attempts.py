"""The attempts of this process under their claims: begun, kept alive, written down.

While an attempt lives its claim is renewed; one whose claim could not be renewed sends no final dot any more. What an
attempt came to stays in memory until it is written, however long the spool is out of order: SparkPost's 250 must not
be forgotten.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from relay.core.lifecycle import LEASE, LEASE_MARGIN, Event
from relay.core.message import Message
from relay.core.ports import AttemptReport, Clock, Courier, Effort, Permit, Resolver, RunningAttempt, Spool
from relay.core.spooled import Claim, Lane, SpoolUnavailable
from relay.delivery.bookkeeping import Bookkeeper
from relay.delivery.turns import Turns
from relay.observe import log as events

log = structlog.get_logger()

What = TypeVar("What")

# What has failed together so often may fail for one of them: fewer share a transaction then, each time.
TOGETHER: Final = 2  # attempts
PATIENCE: Final = 60.0  # seconds for the content to begin to leave: nobody waits at the other end
RECORD_RETRY_FIRST, RECORD_RETRY_LONGEST = 0.5, 10.0  # seconds


@dataclass(eq=False, slots=True)
class _Flight:
    """One attempt that waits for its turn (`task` is None) or is under way.

    `until`: the end of its lease, by the monotonic clock.
    """

    claim: Claim
    permit: Permit
    until: float
    task: asyncio.Task[bool] | None = None


class Attempts:
    """Attempts at the messages of one spool. Of those it starts itself `at_once` at most; the others wait their turn.

    `on_end` is called whenever one is over, with its claim and whether it leaves something to be sent.
    """

    def __init__(
        self,
        spool: Spool,
        courier: Courier,
        resolver: Resolver,
        bookkeeper: Bookkeeper,
        clock: Clock,
        at_once: int,
        on_end: Callable[[Claim, bool], None],
    ) -> None:
        self._spool = spool
        self._courier = courier
        self._resolver = resolver
        self._bookkeeper = bookkeeper
        self._clock = clock
        self._at_once = at_once
        self._on_end = on_end
        self._flights: dict[str, _Flight] = {}
        self._waiting: Turns[_Flight] = Turns()
        self._started = 0
        self._draining = False

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def alive(self) -> Collection[str]:
        """The queue ids whose claims are ours."""
        return self._flights.keys()

    def start(self, claim: Claim) -> None:
        """Make an attempt at a claimed message when its turn comes."""
        flight = self._add(claim, Permit())
        if self._waiting or self._started >= self._at_once or self._draining:
            self._waiting.add(Lane.of(claim.assignment), flight)
        else:
            self._begin(flight)

    def adopt(self, claim: Claim, running: RunningAttempt) -> None:
        """Take over an attempt that was begun before the message was stored."""
        self._fly(self._add(claim, running.permit), self._see_through(claim, running))

    def _add(self, claim: Claim, permit: Permit) -> _Flight:
        queue_id = claim.message.queue_id
        permit.under(partial(self._may_send, queue_id))
        permit.ending = self._draining
        flight = self._flights[queue_id] = _Flight(claim, permit, self._clock.monotonic() + LEASE)
        return flight

    def _begin_next(self) -> None:
        while self._waiting and self._started < self._at_once and not self._draining:
            self._begin(self._waiting.take())

    def _begin(self, flight: _Flight) -> None:
        self._started += 1
        self._fly(flight, self._attempt(flight.claim, flight.permit))

    def _fly(self, flight: _Flight, work: Coroutine[Any, Any, bool]) -> None:
        flight.task = asyncio.get_running_loop().create_task(work)
        flight.task.add_done_callback(partial(self._landed, flight))

    def _landed(self, flight: _Flight, task: asyncio.Task[bool]) -> None:
        message = flight.claim.message
        self._forget(message)
        more = True
        if not task.cancelled():
            if (error := task.exception()) is None:
                more = task.result()
            else:
                # The claim runs out, and the message comes round again, marked.
                log.error(events.INTERNAL_ERROR, queue_id=message.queue_id, exc_info=error)
        self._on_end(flight.claim, more)

    def _forget(self, message: Message) -> None:
        del self._flights[message.queue_id]
        message.content.close()

    def _may_send(self, queue_id: str) -> bool:
        flight = self._flights.get(queue_id)
        return flight is not None and flight.until - self._clock.monotonic() >= LEASE_MARGIN

    async def _attempt(self, claim: Claim, permit: Permit) -> bool:
        message = claim.message
        try:
            bearer = self._resolver.resolve(claim.assignment)
            if isinstance(bearer, str):
                log.error(events.QUEUE_HELD, queue_id=message.queue_id, reason=bearer)
                await self._insist(self._spool.hold, message.queue_id, bearer)
                return False
            effort = Effort(PATIENCE, halvings=max(0, claim.attempts - TOGETHER), permit=permit)
            report = await self._courier.deliver(message, claim.recipients, bearer, effort)
            return await self._write(claim, report)
        finally:
            self._started -= 1
            self._begin_next()

    async def _see_through(self, claim: Claim, running: RunningAttempt) -> bool:
        return await self._write(claim, await running.report)

    async def _write(self, claim: Claim, report: AttemptReport) -> bool:
        """Record an attempt; whether there is to be another, or a notice of it to be sent."""
        record = self._bookkeeper.record(claim, report)
        await self._insist(self._spool.record, claim.message.queue_id, record)
        self._bookkeeper.tell(claim, record.settlement)
        return record.settlement.event is Event.DEFER or record.notice is not None

    async def _insist(self, write: Callable[[str, What], Awaitable[None]], queue_id: str, what: What) -> None:
        """Write something about a message, and try again until it is written."""
        wait = RECORD_RETRY_FIRST
        while True:
            try:
                await write(queue_id, what)
            except SpoolUnavailable:
                await self._clock.sleep(wait)
                wait = min(wait * 2, RECORD_RETRY_LONGEST)
            else:
                return

    async def renew(self) -> None:
        """The heartbeat: renew all claims; raises SpoolUnavailable, and then their leases run on."""
        queue_ids = tuple(self._flights)
        until = self._clock.monotonic() + LEASE
        await self._spool.renew(queue_ids)
        for queue_id in queue_ids:
            if queue_id in self._flights:
                self._flights[queue_id].until = until

    def begin_no_more(self) -> None:
        """No attempt, and none of the transactions that those under way have still before them.

        One that is broken off forgets whom SparkPost has taken the message for: with many recipients it ends sooner.
        """
        self._draining = True
        for flight in self._flights.values():
            flight.permit.ending = True

    async def drain(self, seconds: float) -> None:
        """Let attempts come to their end; after `seconds` break them off, and put back what cannot have been sent.

        None is begun any more.
        """
        self.begin_no_more()
        unsent = [self._waiting.take().claim.message for _ in range(len(self._waiting))]
        for message in unsent:
            self._forget(message)
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=seconds)
        broken = list(self._flights.values())
        if tasks := self._tasks():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        unsent += [flight.claim.message for flight in broken if not flight.permit.used]
        if unsent:
            with contextlib.suppress(SpoolUnavailable):  # they come round all the same, marked as possibly sent twice
                await self._spool.give_back([message.queue_id for message in unsent])

    def _tasks(self) -> list[asyncio.Task[bool]]:
        return [flight.task for flight in self._flights.values() if flight.task is not None]
