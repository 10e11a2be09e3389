"""The attempts of this process under their claims: begun, kept alive, written down.

While an attempt lives its claim is renewed; one whose claim could not be renewed sends no final dot any more. What an
attempt came to stays in memory until it is written, however long the spool is out of order: SparkPost's 250 must not
be forgotten.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from relay.core.lifecycle import LEASE, LEASE_MARGIN
from relay.core.ports import AttemptReport, Clock, Courier, Effort, Permit, Resolver, RunningAttempt, Spool
from relay.core.spooled import Claim, SpoolUnavailable
from relay.delivery.bookkeeping import Bookkeeper
from relay.observe import log as events

log = structlog.get_logger()

PATIENCE: Final = 60.0  # seconds for the content to begin to leave: nobody waits at the other end
RECORD_RETRY_FIRST, RECORD_RETRY_LONGEST = 0.5, 10.0  # seconds


@dataclass(slots=True)
class _Flight:
    """One attempt under way. `until`: the end of its lease, by the monotonic clock."""

    claim: Claim
    task: asyncio.Task[None]
    permit: Permit
    until: float


class Attempts:
    """Attempts at the messages of one spool; `on_end` is called whenever one is over."""

    def __init__(
        self,
        spool: Spool,
        courier: Courier,
        resolver: Resolver,
        bookkeeper: Bookkeeper,
        clock: Clock,
        on_end: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._courier = courier
        self._resolver = resolver
        self._bookkeeper = bookkeeper
        self._clock = clock
        self._on_end = on_end
        self._flights: dict[str, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def alive(self) -> Collection[str]:
        """The queue ids whose claims are ours."""
        return self._flights.keys()

    def start(self, claim: Claim) -> None:
        """Make an attempt at a claimed message."""
        permit = Permit()
        self._fly(claim, permit, self._attempt(claim, permit))

    def adopt(self, claim: Claim, running: RunningAttempt) -> None:
        """Take over an attempt that was begun before the message was stored."""
        self._fly(claim, running.permit, self._see_through(claim, running))

    def _fly(self, claim: Claim, permit: Permit, work: Coroutine[Any, Any, None]) -> None:
        queue_id = claim.message.queue_id
        permit.under(lambda: self._may_send(queue_id))
        task = asyncio.get_running_loop().create_task(work)
        self._flights[queue_id] = _Flight(claim, task, permit, self._clock.monotonic() + LEASE)
        task.add_done_callback(lambda _: self._landed(queue_id))

    def _landed(self, queue_id: str) -> None:
        flight = self._flights.pop(queue_id)
        flight.claim.message.content.close()
        task = flight.task
        if not task.cancelled() and (error := task.exception()) is not None:
            # The claim runs out, and the message comes round again, marked.
            log.error(events.INTERNAL_ERROR, queue_id=queue_id, exc_info=error)
        self._on_end()

    def _may_send(self, queue_id: str) -> bool:
        flight = self._flights.get(queue_id)
        return flight is not None and flight.until - self._clock.monotonic() >= LEASE_MARGIN

    async def _attempt(self, claim: Claim, permit: Permit) -> None:
        bearer = self._resolver.resolve(claim.assignment)
        if isinstance(bearer, str):
            log.error(events.QUEUE_HELD, queue_id=claim.message.queue_id, reason=bearer)
            await self._insist(lambda: self._spool.hold(claim.message.queue_id, bearer))
            return
        report = await self._courier.deliver(claim.message, claim.recipients, bearer, Effort(PATIENCE, permit=permit))
        await self._write(claim, report)

    async def _see_through(self, claim: Claim, running: RunningAttempt) -> None:
        await self._write(claim, await running.report)

    async def _write(self, claim: Claim, report: AttemptReport) -> None:
        record = self._bookkeeper.record(claim, report)
        await self._insist(lambda: self._spool.record(claim.message.queue_id, record))
        self._bookkeeper.tell(claim, record.settlement)

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, and try again until it is written."""
        wait = RECORD_RETRY_FIRST
        while True:
            try:
                await write()
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

    async def drain(self, seconds: float) -> None:
        """Let attempts come to their end; after `seconds` break them off, and put back what cannot have been sent."""
        if self._flights:
            await asyncio.wait([flight.task for flight in self._flights.values()], timeout=seconds)
        broken = dict(self._flights)
        for flight in broken.values():
            flight.task.cancel()
        if not broken:
            return
        await asyncio.wait([flight.task for flight in broken.values()])
        unsent = [queue_id for queue_id, flight in broken.items() if not flight.permit.used]
        with contextlib.suppress(SpoolUnavailable):  # they come round all the same, marked as possibly sent twice
            await self._spool.give_back(unsent)
