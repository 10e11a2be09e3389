"""Authenticated sessions, each of one login, under one cap. What to do is decided by `shares`; this does it.

Sessions are keyed by the complete login, so one tenant's mail can never ride another's session. A message gets an idle
session, or a place behind another message on one of its login; connections are dialled beside that, in the background,
as long as messages wait behind others or sessions come to their end, and there may be more.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from relay.core.login import Login, Target
from relay.core.outcome import Cause, Failure, FailureKind, Outcome, Phase, classify
from relay.observe import log as events
from relay.upstream.concurrency import Concurrency
from relay.upstream.failure import UpstreamFailure, not_now
from relay.upstream.lanes import Held, Lane, Waiter
from relay.upstream.race import Slots
from relay.upstream.session import Session
from relay.upstream.shares import TURN, Demand, Step, decide
from relay.upstream.wear import lifetime, near_end

log = structlog.get_logger()

GRACE: Final = 0.2  # seconds
AHEAD_SECONDS: Final = 30.0  # for a connection that nobody waits for yet
_BROKEN_OFF: Final = UpstreamFailure(Failure(Phase.CONNECT, FailureKind.LOST, "the dial was broken off"))


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`connections` in all; `messages` and `idle_seconds` of one."""

    connections: int
    messages: int
    idle_seconds: float


class Pool:
    """The sessions with SparkPost.

    `open_session` makes one by a time (of the loop), or raises UpstreamFailure. A session whose login is not `current`
    any more is not used again: its key has been changed.
    """

    def __init__(
        self,
        open_session: Callable[[Login, float, Slots], Awaitable[Session]],
        limits: PoolLimits,
        current: Callable[[Login], bool] = lambda _: True,
    ) -> None:
        self._open_session = open_session
        self._limits = limits
        self._current = current
        self._lanes: dict[Login, Lane] = {}
        self._holders: dict[Session, Held] = {}
        self._concurrency = Concurrency(limits.connections)
        self._taken = 0
        self._partings: set[asyncio.Task[None]] = set()
        self._near_end = near_end(limits.messages)
        self._sweep: asyncio.TimerHandle | None = None
        self._waiting = 0  # messages
        self._arrivals = itertools.count()
        self._settling = False
        self._closed = False

    # -- for who sends ------------------------------------------------------------------------------------------------

    async def acquire(self, login: Login, patience: float, *, fresh: bool = False) -> tuple[Session, bool]:
        """A session of this login and whether it was there before, used or dialled ahead; `fresh` wants a new one.

        Raises UpstreamFailure when there is none within `patience` seconds.
        """
        lane = self._lanes.get(login)
        if lane is None:
            lane = self._lanes[login] = Lane(login)
        if fresh or lane.waiting or (held := lane.place()) is None:
            held = await self._wait(lane, patience, fresh=fresh)
            return held.session, held.carried > 1
        self._board(held)
        return held.session, True

    async def _wait(self, lane: Lane, patience: float, *, fresh: bool) -> Held:
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), next(self._arrivals), loop.time() + patience)
        first = not (lane.waiting or lane.wanting)
        (lane.wanting if fresh else lane.waiting).append(waiter)
        self._waiting += 1
        if first or fresh or self._taken < self._limits.connections:
            self._settle()  # else nothing can be done for it that is not done for those before it
        try:
            # A little longer than the dial has, so that it can say what it was waiting for.
            async with asyncio.timeout_at(waiter.deadline + GRACE):
                await asyncio.wait([waiter.future])
        except TimeoutError as error:
            if not waiter.future.done():
                lane.forget(waiter)
                why = "SparkPost is too slow to log in" if lane.dials else "all connections are busy"
                text = f"no session within {patience:.1f} s: {why}"
                raise UpstreamFailure(Failure(Phase.AUTH, FailureKind.DEADLINE, text)) from error
        except BaseException:
            if not waiter.future.done():
                lane.forget(waiter)
            elif waiter.future.exception() is None:
                self.release(waiter.future.result().session)
            self._settle()
            raise
        finally:
            self._waiting -= 1
        return waiter.future.result()

    def release(self, session: Session, *, put_off: bool = False) -> None:
        """One message is done with it, which may have been `put_off`: answered 4yz.

        The session is kept for the next of its login if it is good for one.
        """
        held = self._holders[session]
        lane = held.lane
        held.load -= 1
        now = lane.used = asyncio.get_running_loop().time()
        target = lane.login.target
        if session.suspect and not session.usable:
            for other in lane.died_with(held):
                other.session.abort()
        if session.pushed_back and not held.retiring:
            held.retiring = True
            self._spare(target)
        elif put_off:
            if self._concurrency.put_off(target, self._connections(target)):
                self._tell_spared(target)
        else:
            self._concurrency.accepted(target)
        if not held.load:
            self._rest(held, now)
        self._serve(lane)
        if self._waiting and not held.load:
            self._settle()  # a login without a connection may have it

    def _board(self, held: Held) -> None:
        """The next message goes on this session.

        Whether there are to be more connections, or others, is thought about where that may matter; not each time.
        """
        lane = held.lane
        if not held.load:
            del lane.resting[held]
        held.load += 1
        held.carried += 1
        ahead = held.load > 1 or held.left < self._near_end
        had_turn = self._waiting and not held.carried % TURN
        if had_turn or (ahead and self._taken < self._limits.connections):
            self._settle()

    def _serve(self, lane: Lane) -> None:
        """Put waiting messages where there is a place."""
        while lane.waiting and (held := lane.place()) is not None:
            lane.waiting.popleft().future.set_result(held)
            self._board(held)

    def _rest(self, held: Held, now: float) -> None:
        """Nothing is on it: let it wait for the next message, or let it go."""
        held.idle_since = now
        if self._closed or held.retiring or held.left <= 0 or not held.session.usable:
            self._let_go(held)
            return
        held.lane.resting[held] = None
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_at(now + self._limits.idle_seconds, self._expire)

    def _expire(self) -> None:
        """Let go of the sessions that have rested for too long, and look again when the next one will have."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        for held in sorted(self._resting(), key=lambda held: held.idle_since):
            due = held.idle_since + self._limits.idle_seconds
            if due > loop.time():
                self._sweep = loop.call_at(due, self._expire)
                break
            self._let_go(held)
        self._settle()

    # -- deciding, and doing what was decided -------------------------------------------------------------------------

    def _settle(self) -> None:
        """Take one step after the other until all is well."""
        if self._settling:
            return
        self._settling = True
        try:
            self._bury()
            while (step := decide(self._demands(), self._taken, self._limits.connections)) is not None:
                self._take_step(*step)
        finally:
            self._settling = False
        for login in [login for login, lane in self._lanes.items() if lane.deserted]:
            del self._lanes[login]

    def _bury(self) -> None:
        """Let go of sessions that have died while nothing was on them."""
        for held in [held for held in self._resting() if not held.session.usable]:
            self._let_go(held)

    def _resting(self) -> list[Held]:
        return [held for lane in self._lanes.values() for held in lane.resting]

    def _demands(self) -> list[Demand]:
        connections: Counter[Target] = Counter()
        for lane in self._lanes.values():
            connections[lane.login.target] += lane.connections
        now = asyncio.get_running_loop().time()
        demands = []
        for lane in self._lanes.values():
            target = lane.login.target
            ceiling = self._concurrency.ceiling(target)
            demands.append(
                lane.demand(
                    now,
                    self._near_end,
                    may_dial=not self._closed and connections[target] < self._concurrency.allowed(target),
                    full=connections[target] >= ceiling,
                    allowed=ceiling,
                )
            )
        return demands

    def _take_step(self, step: Step, login: Login) -> None:
        lane = self._lanes[login]
        match step:
            case Step.DIAL:
                self._dial(lane)
            case Step.CLOSE_IDLE:
                self._let_go(next(iter(lane.resting)))
            case Step.RETIRE:
                self._retire(min(lane.busy(), key=lambda held: held.left))

    def _retire(self, held: Held) -> None:
        """It carries what is on it and no more."""
        if not held.load:
            self._let_go(held)
            return
        held.retiring = True
        held.session.end_after(held.carried)

    # -- opening and closing ------------------------------------------------------------------------------------------

    def _dial(self, lane: Lane) -> None:
        """Open one more session, in a slot that is taken from now on."""
        loop = asyncio.get_running_loop()
        deadline = max((waiter.deadline for waiter in lane.waiters()), default=loop.time() + AHEAD_SECONDS)
        self._taken += 1
        dial = loop.create_task(self._open(lane.login, deadline))
        lane.dials[dial] = frozenset(lane.waiters())
        dial.add_done_callback(partial(self._dialled, lane))

    async def _open(self, login: Login, deadline: float) -> Session:
        async with asyncio.timeout_at(deadline + GRACE):
            return await self._open_session(login, deadline, self)

    def _dialled(self, lane: Lane, dial: "asyncio.Task[Session]") -> None:
        """A dial is over."""
        hopeful = lane.dials.pop(dial)
        error = _BROKEN_OFF if dial.cancelled() else dial.exception()
        if error is None:
            self._admit(lane, dial.result())
        else:
            self._taken -= 1
            lane.proven = False
            if isinstance(error, UpstreamFailure):
                self._blame(lane.login.target, error)
                self._disappoint(lane, error, hopeful)
        self._settle()
        if not isinstance(error, UpstreamFailure | TimeoutError | None):
            raise error

    def _admit(self, lane: Lane, session: Session) -> None:
        lasts = lifetime(self._limits.messages, self._limits.connections, [held.left for held in lane.held])
        session.end_after(lasts)
        held = self._holders[session] = Held(session, lane, lasts)
        lane.held.append(held)
        lane.proven = True
        target = lane.login.target
        self._concurrency.connected(target, self._connections(target))
        self._rest(held, asyncio.get_running_loop().time())
        lane.let_in()
        self._serve(lane)
        if not (held.retiring or self._current(lane.login)):
            self._retire(held)  # its key was changed while it was dialled

    def _disappoint(self, lane: Lane, failure: UpstreamFailure, hopeful: Collection[Waiter]) -> None:
        """There is no session. Who was `hopeful` when the dial began, and has no other hope now, hears why.

        Who came later has a dial of his own: what ended this one may be what took his session, and over. With a refused
        login nobody has any hope.
        """
        if self._closed or classify(failure.fact).cause is Cause.LOGIN_REFUSED:
            for dial in lane.dials:
                dial.cancel()
            hopeless = list(lane.waiters())
        elif lane.dials:
            hopeless = []
        else:
            others = any(held.session.usable for held in lane.held)
            hopeless = [waiter for waiter in (lane.wanting if others else lane.waiters()) if waiter in hopeful]
        for waiter in hopeless:
            lane.forget(waiter)
            waiter.future.set_exception(UpstreamFailure(failure.fact))

    def _blame(self, target: Target, failure: UpstreamFailure) -> None:
        if not_now(failure.fact):
            self._spare(target)
        elif classify(failure.fact).cause is not Cause.LOGIN_REFUSED:
            self._concurrency.failed(target, self._connections(target))

    def _spare(self, target: Target) -> None:
        self._concurrency.pushed_back(target, self._connections(target))
        self._tell_spared(target)

    def _tell_spared(self, target: Target) -> None:
        log.warning(events.UPSTREAM_SPARED, host=target.host, connections=self._concurrency.ceiling(target))

    def _connections(self, target: Target) -> int:
        return sum(len(lane.held) for login, lane in self._lanes.items() if login.target == target)

    def take(self) -> bool:
        """A slot for an attempt beside another, if there is one to spare (see Slots)."""
        if self._taken >= self._limits.connections:
            return False
        self._taken += 1
        return True

    def give(self) -> None:
        """A slot is free again."""
        self._taken -= 1
        self._settle()

    def retire(self) -> None:
        """Give up the sessions whose login is not current any more."""
        for lane in [lane for login, lane in self._lanes.items() if not self._current(login)]:
            for held in list(lane.held):
                self._retire(held)
        self._settle()

    def _let_go(self, held: Held) -> None:
        """Say QUIT in the background; the slot is free when the connection is closed."""
        held.retiring = True
        lane = held.lane
        lane.resting.pop(held, None)
        lane.held.remove(held)
        lane.parting += 1
        del self._holders[held.session]
        parting = asyncio.get_running_loop().create_task(self._part(lane, held.session))
        self._partings.add(parting)
        parting.add_done_callback(self._partings.discard)

    async def _part(self, lane: Lane, session: Session) -> None:
        try:
            await session.quit()
        finally:
            lane.parting -= 1
            self.give()

    # -- for others ---------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Counter[tuple[str, str, str]]:
        """How many there are of each credential, by endpoint, "idle" or "busy"."""
        return Counter(
            (login.credential, str(held.session.endpoint), "busy" if held.load else "idle")
            for login, lane in self._lanes.items()
            for held in lane.held
        )

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        """Ask SparkPost whether a login is good, by logging in; the session is kept for the mail that follows."""
        try:
            session, _ = await self.acquire(login, patience, fresh=fresh)
        except UpstreamFailure as failure:
            return classify(failure.fact)
        self.release(session)
        return None

    async def close(self) -> None:
        """Close what is idle; what is in use closes when it is released."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for held in self._resting():
            self._let_go(held)
        dials = {dial for lane in self._lanes.values() for dial in lane.dials}
        for dial in dials:
            dial.cancel()
        if dials:
            await asyncio.wait(dials)
        if self._partings:
            await asyncio.wait(self._partings)
