"""What the spool needs now and then: claims renewed, lost ones taken up again, the old held or removed."""

from typing import Final

import structlog

from relay.core.lifecycle import LEASE
from relay.core.ports import Clock, Spool
from relay.core.spooled import SpoolUnavailable
from relay.delivery.queue import DeliveryQueue
from relay.observe import log as events

log = structlog.get_logger()

INTERVAL: Final = LEASE / 5  # seconds
LONGEST_PURGE: Final = INTERVAL / 2  # seconds: however much there is to remove, claims are renewed in time


class Upkeep:
    """`keep_failed` and `keep_delivered` in seconds: how long dead letters and lines of the ledger stay."""

    def __init__(
        self, spool: Spool, mail_queue: DeliveryQueue, clock: Clock, *, keep_failed: float, keep_delivered: float
    ) -> None:
        self._spool = spool
        self._queue = mail_queue
        self._clock = clock
        self._keep_failed = keep_failed
        self._keep_delivered = keep_delivered

    async def run(self) -> None:
        while True:
            try:
                await self.once()
            except SpoolUnavailable as error:
                # The spool itself tells the operator; leases run on meanwhile.
                log.debug(events.SPOOL_DOWN, reason=str(error))
            await self._clock.sleep(INTERVAL)

    async def once(self) -> None:
        """One round; raises SpoolUnavailable."""
        await self._queue.renew()
        for queue_id in await self._spool.reclaim(self._queue.alive):
            log.warning(events.QUEUE_RECLAIMED, queue_id=queue_id)
            self._queue.wake()
        for queue_id in await self._spool.hold_over_age(self._queue.blocked_lanes()):
            log.error(events.QUEUE_HELD, queue_id=queue_id, reason="over age while it could not be sent")
        # A bounded number at a time, so that nobody waits long for the writer; the rest can wait for the next round.
        until = self._clock.monotonic() + LONGEST_PURGE
        while await self._spool.purge(failed_for=self._keep_failed, ended_for=self._keep_delivered):
            if self._clock.monotonic() >= until:
                break
