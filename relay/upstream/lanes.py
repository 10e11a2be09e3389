"""What the pool knows of one login: the messages that want a connection, and the connections it has."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from relay.core.login import Login
from relay.upstream.session import Session
from relay.upstream.shares import TURN, Demand

DEPTH: Final = 3  # messages on a session: one waits for its final reply, one speaks, and one is ready to speak


@dataclass(eq=False, slots=True)
class Waiter:
    """A message without a connection, since when, and until when; `fresh` wants a new one."""

    future: "asyncio.Future[Session]"
    since: float
    deadline: float
    fresh: bool


@dataclass(eq=False, slots=True)
class Held:
    """A session and what the pool knows of it: messages on it now and altogether, and since when it has rested."""

    session: Session
    load: int = 0
    carried: int = 0
    retiring: bool = False
    idle_since: float = 0.0
    timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """It waits for a message."""
        return self.timer is not None and self.session.usable

    def disturb(self) -> None:
        """It rests no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(slots=True)
class Lane:
    """One login's messages and sessions. A session carries `messages`.

    `parting`: sessions that are being closed. `proven`: the login has been let in. `used`: when a message was last put
    on a session, or done with.
    """

    login: Login
    messages: int
    waiting: deque[Waiter] = field(default_factory=deque)
    held: list[Held] = field(default_factory=list)
    dials: "set[asyncio.Task[Session]]" = field(default_factory=set)
    parting: int = 0
    proven: bool = False
    used: float = 0.0

    @property
    def connections(self) -> int:
        return len(self.held) + len(self.dials)

    @property
    def deserted(self) -> bool:
        return not (self.waiting or self.held or self.dials)

    def idle(self) -> list[Held]:
        return [held for held in self.held if held.idle]

    def busy(self) -> list[Held]:
        """Sessions with messages on them that are to go on."""
        return [held for held in self.held if held.load and not held.retiring and held.session.usable]

    def seats(self) -> list[Held]:
        """Sessions that can take a message behind another."""
        return [held for held in self.busy() if self._has_seat(held)]

    def _has_seat(self, held: Held) -> bool:
        return held.load < DEPTH and held.carried < self.messages and held.session.takes_more

    def next_waiter(self, *, fresh: bool) -> Waiter | None:
        """The next message to be served takes leave of the queue: with `fresh`, one that wants a new session first."""
        chosen = next((waiter for waiter in self.waiting if waiter.fresh is fresh), None)
        if chosen is None and fresh:
            chosen = next(iter(self.waiting), None)
        if chosen is not None:
            self.waiting.remove(chosen)
        return chosen

    def demand(self, now: float, *, may_dial: bool, full: bool, allowed: int) -> Demand:
        """For `shares.decide`."""
        idle, busy = self.idle(), self.busy()
        return Demand(
            self.login,
            waiting=len(self.waiting),
            fresh=sum(waiter.fresh for waiter in self.waiting),
            queued=sum(held.load - 1 for held in busy),
            idle=len(idle),
            busy=len(busy),
            seats=len(self.seats()),
            ripe=sum(held.carried >= TURN for held in busy),
            leaving=len(self.held) - len(idle) - len(busy) + self.parting,
            dialling=len(self.dials),
            proven=self.proven,
            may_dial=may_dial,
            full=full,
            allowed=allowed,
            waiting_since=self.waiting[0].since if self.waiting else math.inf,
            idle_since=min((held.idle_since for held in idle), default=math.inf),
            quiet=0.0 if self.waiting or busy or self.dials else now - self.used,
        )
