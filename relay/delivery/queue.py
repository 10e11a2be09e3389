"""The queue: takes messages over from the intake, and sends what is due for as long as the relay runs.

Old mail and new share the connections, by halves where there is enough of both. The worker claims what is due, the
oldest first, up to its capacity. A message that has just been stored has its first attempt beside that, in the order of
arrival and straight from memory, as long as the window has room for its lane; beyond, it takes its turn with the old.
The lanes take turns in both.
"""

import asyncio
import contextlib
from typing import Final

import structlog

from relay.core.message import Message
from relay.core.ports import AttemptReport, Bearer, Clock, Courier, Resolver, RunningAttempt, Spool
from relay.core.spooled import Claim, Deposit, Lane, Record, SpoolUnavailable
from relay.delivery.attempts import Attempts
from relay.delivery.bookkeeping import Bookkeeper
from relay.delivery.window import OCTETS, Window
from relay.observe import log as events

log = structlog.get_logger()

PER_CONNECTION: Final = 4  # attempts: up to three are on it (upstream/lanes), others are being written down
LONGEST_SLEEP: Final = 30.0  # seconds between looks at the queue, whatever was said about the next message
SPOOL_PAUSE: Final = 1.0  # seconds before a spool that cannot be written is asked again


class DeliveryQueue:
    """A MailQueue over one spool. `connections` is how many there may be to SparkPost; of the `memory` (octets) for
    content it holds half at most: mail that is stored already leaves the other to what comes in.
    """

    def __init__(
        self,
        spool: Spool,
        courier: Courier,
        resolver: Resolver,
        bookkeeper: Bookkeeper,
        clock: Clock,
        connections: int,
        memory: int,
    ) -> None:
        self._spool = spool
        self._courier = courier
        self._resolver = resolver
        self._bookkeeper = bookkeeper
        self._clock = clock
        self._wake = asyncio.Event()
        self._capacity = PER_CONNECTION * connections
        self._backlog = Attempts(spool, courier, resolver, bookkeeper, clock, self._capacity, self._backlog_ended)
        self._fresh = Attempts(spool, courier, resolver, bookkeeper, clock, self._capacity, self._fresh_ended)
        self._window = Window(connections, octets=min(OCTETS, memory // 2))
        self._full = False  # the worker would claim more, and had no room
        self._lanes: set[Lane] = set()
        self._notes: set[asyncio.Task[None]] = set()
        self._draining = False
        self._claims_no_more = asyncio.Event()

    @property
    def problem(self) -> str | None:
        return self._spool.problem

    def wake(self) -> None:
        """Something has changed: a message, or what holds mail back."""
        self._wake.set()

    # -- taking over --------------------------------------------------------------------------------------------------

    async def keep(
        self,
        message: Message,
        bearer: Bearer,
        *,
        report: AttemptReport | None = None,
        attempt: RunningAttempt | None = None,
    ) -> None:
        claim = self._claim(message, bearer)
        queue_id, size, lane = message.queue_id, message.content.size, Lane.of(bearer.assignment)
        self._lanes.add(lane)
        if attempt is not None:
            await self._spool.put(self._deposit(claim, bearer, claimed=True))
            self._window.enter(queue_id, lane, size)
            self._fresh.adopt(claim, attempt)
        elif report is not None:
            await self._keep_report(claim, bearer, report)
        elif self._window.has_room(lane, size) and not self._draining and not self._courier.blocked(bearer.login):
            self._window.enter(queue_id, lane, size)
            try:
                await self._spool.put(self._deposit(claim, bearer, claimed=True))
            except BaseException:
                self._window.leave(queue_id)
                raise
            self._fresh.start(claim)
        else:
            await self._spool.put(self._deposit(claim, bearer))
            message.content.close()
            self._wake.set()

    async def _keep_report(self, claim: Claim, bearer: Bearer, report: AttemptReport) -> None:
        record = self._bookkeeper.record(claim, report)
        await self._spool.put(self._deposit(claim, bearer, record=record))
        claim.message.content.close()
        self._bookkeeper.tell(claim, record.settlement)
        self._wake.set()  # for when it is due

    def enter(self, message: Message, bearer: Bearer, report: AttemptReport) -> None:
        claim = self._claim(message, bearer)
        record = self._bookkeeper.record(claim, report)
        message.content.close()
        note = asyncio.get_running_loop().create_task(self._enter(self._deposit(claim, bearer, record=record)))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _enter(self, deposit: Deposit) -> None:
        # The message is with SparkPost and the log says so: without its line in the ledger nothing is lost.
        with contextlib.suppress(SpoolUnavailable):
            await self._spool.put(deposit)

    def _claim(self, message: Message, bearer: Bearer) -> Claim:
        """A message that has just come in, as if it had been claimed."""
        return Claim(
            message=message,
            assignment=bearer.assignment,
            pending=tuple(range(len(message.envelope.recipients))),
            attempts=0,
            age_left=bearer.terms.max_age,
            received=self._clock.now(),
            failed_before=False,
        )

    def _deposit(self, claim: Claim, bearer: Bearer, *, claimed: bool = False, record: Record | None = None) -> Deposit:
        return Deposit(claim.message, claim.assignment, claim.received, bearer.terms.max_age, claimed, record)

    # -- sending what is due ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is due, until `drain`."""
        try:
            while not self._draining:
                self._wake.clear()
                pause = await self._fill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            self._claims_no_more.set()

    async def _fill(self) -> float:
        """Claim as much as there is room for; how long to sleep then, unless something happens."""
        room = self._capacity - len(self._backlog)
        self._full = room < self._capacity // 2
        if self._full:
            return LONGEST_SLEEP
        try:
            claimed = await self._spool.claim(room, skip=self.blocked_lanes())
        except SpoolUnavailable:
            return SPOOL_PAUSE
        if self._draining:
            with contextlib.suppress(SpoolUnavailable):  # they come round all the same, marked
                await self._spool.give_back([claim.message.queue_id for claim in claimed.claims])
            return 0.0
        self._lanes |= claimed.lanes
        for claim in claimed.claims:
            self._backlog.start(claim)
        for damaged in claimed.damaged:
            log.error(events.SPOOL_QUARANTINED, queue_id=damaged.queue_id, reason=damaged.reason)
        if claimed.damaged:
            return 0.0  # there is room again
        pauses = (claimed.next_due, self._courier.next_change(), LONGEST_SLEEP)
        return min(pause for pause in pauses if pause is not None)

    def _backlog_ended(self, _: Claim, more: bool) -> None:
        if more or self._full:
            self._wake.set()

    def _fresh_ended(self, claim: Claim, more: bool) -> None:
        self._window.leave(claim.message.queue_id)
        if more:
            self._wake.set()  # for when it is due

    def blocked_lanes(self) -> frozenset[Lane]:
        """The lanes whose mail is held back now. Where the credential has gone, the attempt finds it out."""
        if self._courier.all_open:
            return frozenset()
        return frozenset(lane for lane in self._lanes if self._blocked(lane))

    def _blocked(self, lane: Lane) -> bool:
        login = self._resolver.login_of(lane)
        return login is not None and self._courier.blocked(login) is not None

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> frozenset[str]:
        """The queue ids of the claims that this process holds."""
        return frozenset(self._backlog.alive) | frozenset(self._fresh.alive)

    async def renew(self) -> None:
        """The heartbeat of all attempts; raises SpoolUnavailable."""
        await self._backlog.renew()
        await self._fresh.renew()

    def stop_claiming(self) -> None:
        """Begin no attempt any more, and let those under way end with the transaction that they are in."""
        self._draining = True
        self._backlog.begin_no_more()
        self._fresh.begin_no_more()
        self._wake.set()

    async def drain(self, seconds: float) -> None:
        """Let the attempts under way come to their end, for so long in all, then break them off."""
        self.stop_claiming()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._claims_no_more.wait()
        left = max(0.0, deadline - loop.time())
        await asyncio.gather(self._backlog.drain(left), self._fresh.drain(left))
        if self._notes:
            await asyncio.wait(self._notes)
