"""Authenticated sessions, each of one login, under one cap: reuse, open, give one up for another, or wait.

Deciding is `decide`, pure; doing is the rest. Sessions are keyed by the complete login, so one tenant's mail can never
ride another's session. Who waits is served in the order of arrival.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from relay.core.login import Login
from relay.core.outcome import Cause, Failure, FailureKind, Outcome, Phase, classify
from relay.upstream.dial import Slots, UpstreamFailure
from relay.upstream.session import Session

GRACE: Final = 0.1  # seconds


class Choice(Enum):
    """What to do for somebody who wants a session."""

    REUSE = auto()
    OPEN = auto()
    EVICT = auto()
    WAIT = auto()


def decide(
    login: Login, idle: Mapping[Login, Sequence[object]], taken: int, limit: int, *, fresh: bool = False
) -> Choice:
    """`idle` sessions by login and `taken` slots (open, being opened, or in use) of `limit`, idle ones included.

    `fresh`: an idle session of this login will not do.
    """
    if idle.get(login) and not fresh:
        return Choice.REUSE
    if taken < limit:
        return Choice.OPEN
    return Choice.EVICT if any(idle.values()) else Choice.WAIT


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
        self._current = current
        self._limits = limits
        self._idle: dict[Login, list[tuple[Session, asyncio.TimerHandle]]] = {}
        self._busy: set[Session] = set()
        self._taken = 0
        self._waiting: deque[tuple[Login, asyncio.Future[None]]] = deque()
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._closed = False

    async def acquire(self, login: Login, patience: float, *, fresh: bool = False) -> tuple[Session, bool]:
        """A session of this login and whether it has been used before; `fresh` wants a new one.

        Raises UpstreamFailure when there is none within `patience` seconds.
        """
        deadline = asyncio.get_running_loop().time() + patience
        try:
            # Who opens a session has a little longer, so as to say what it was waiting for.
            async with asyncio.timeout_at(deadline + 2 * GRACE):
                session, used = await self._acquire(login, deadline, fresh=fresh)
        except TimeoutError as error:
            text = f"all connections are busy, and none became free within {patience:.1f} s"
            raise UpstreamFailure(Failure(Phase.CONNECT, FailureKind.DEADLINE, text)) from error
        self._busy.add(session)
        return session, used

    async def _acquire(self, login: Login, deadline: float, *, fresh: bool) -> tuple[Session, bool]:
        waited = False
        if self._waiting:
            await self._wait(login, first=False)
            waited = True
        while True:
            match decide(login, self._idle, self._taken, self._limits.connections, fresh=fresh):
                case Choice.REUSE:
                    session = self._take_idle(login)
                    if session.usable:
                        return session, True
                    self._let_go(session)
                case Choice.OPEN:
                    self._taken += 1
                    return await self._open(login, deadline), False
                case Choice.EVICT:
                    return await self._replace(self._oldest_idle(), login, deadline), False
                case Choice.WAIT:
                    await self._wait(login, first=waited)
                    waited = True

    async def _open(self, login: Login, deadline: float) -> Session:
        """A new session in a slot that is already taken for it."""
        try:
            async with asyncio.timeout_at(deadline + GRACE):  # the dial names its silent ports before that
                return await self._open_session(login, deadline, self)
        except TimeoutError as error:
            self.give()
            text = "connected, but SparkPost was too slow to log in for the application to wait"
            raise UpstreamFailure(Failure(Phase.AUTH, FailureKind.DEADLINE, text)) from error
        except UpstreamFailure as failure:
            if classify(failure.fact).cause is Cause.LOGIN_REFUSED:
                self._spare(login, failure)
            self.give()
            raise
        except BaseException:
            self.give()
            raise

    def _spare(self, login: Login, refused: UpstreamFailure) -> None:
        """Who waits for this login hears that it is refused, and does not try it himself (design 3.3)."""
        for waiter in [waiter for waiter in self._waiting if waiter[0] == login]:
            self._waiting.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_exception(UpstreamFailure(refused.fact))

    async def _replace(self, old: Session, login: Login, deadline: float) -> Session:
        """A new session in the slot of an idle one, whoever's that was; nobody else can get in between."""
        try:
            await old.quit()
        except BaseException:
            old.abort()
            self.give()
            raise
        return await self._open(login, deadline)

    async def _wait(self, login: Login, *, first: bool) -> None:
        """Until a slot or a session has become free; `first` for who has had its turn and found nothing.

        A waiter that gives up passes its turn on.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft((login, turn))
        else:
            self._waiting.append((login, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                if turn.exception() is None:
                    self._wake()
            else:
                self._waiting.remove((login, turn))
            raise

    def _wake(self) -> None:
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def take(self) -> bool:
        """A slot for an attempt beside another, if there is one to spare (see Slots)."""
        if self._taken >= self._limits.connections:
            return False
        self._taken += 1
        return True

    def give(self) -> None:
        """A slot is free again."""
        self._taken -= 1
        self._wake()

    def release(self, session: Session) -> None:
        """Give a session back: kept for the next message of its login if it is good for one, else closed."""
        self._busy.discard(session)
        worn_out = not session.usable or session.messages >= self._limits.messages
        if self._closed or worn_out or not self._current(session.login):
            self._let_go(session)
            return
        timer = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._expire, session)
        self._idle.setdefault(session.login, []).append((session, timer))
        self._wake()

    def _take_idle(self, login: Login) -> Session:
        """The one used last: the others grow old and retire."""
        session, timer = self._idle[login].pop()
        if not self._idle[login]:
            del self._idle[login]
        timer.cancel()
        return session

    def _oldest_idle(self) -> Session:
        """The session that has been idle longest, whoever's it is."""
        login = min(self._idle, key=lambda one: self._idle[one][0][1].when())
        session, timer = self._idle[login].pop(0)
        if not self._idle[login]:
            del self._idle[login]
        timer.cancel()
        return session

    def retire(self) -> None:
        """Close the idle sessions whose login is not current any more."""
        for login in [one for one in self._idle if not self._current(one)]:
            for session, timer in self._idle.pop(login):
                timer.cancel()
                self._let_go(session)

    def _expire(self, session: Session) -> None:
        kept = [(one, timer) for one, timer in self._idle.get(session.login, ()) if one is not session]
        if kept:
            self._idle[session.login] = kept
        else:
            self._idle.pop(session.login, None)
        self._let_go(session)

    def _let_go(self, session: Session) -> None:
        """Say QUIT in the background; the slot is free when the connection is closed."""
        task = asyncio.get_running_loop().create_task(session.quit())
        self._goodbyes.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._goodbyes.discard(task)
        self.give()

    @property
    def sessions(self) -> Counter[tuple[str, str, str]]:
        """How many there are of each credential, by endpoint, "idle" or "busy"."""
        idle = [session for sessions in self._idle.values() for session, _ in sessions]
        return Counter(
            (session.login.credential, str(session.endpoint), state)
            for state, sessions in (("idle", idle), ("busy", self._busy))
            for session in sessions
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
        for sessions in list(self._idle.values()):
            for session, timer in sessions:
                timer.cancel()
                self._let_go(session)
        self._idle.clear()
        if self._goodbyes:
            await asyncio.wait(self._goodbyes)
