"""What the pool knows of one login: the messages that want a connection, and the connections it has."""

import asyncio
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relay.core.login import Login
from relay.upstream.session import Session
from relay.upstream.shares import TURN, Demand

DEPTH: Final = 3  # messages on a session: one waits for its final reply, one speaks, and one is ready to speak


@dataclass(eq=False, slots=True)
class Waiter:
    """A message without a connection: the how-many-th it is, and until when it waits.

    A number and not a time: who comes in the same turn of the loop may come at the same time by its clock.
    """

    future: "asyncio.Future[Held]"
    arrival: int
    deadline: float


@dataclass(eq=False, slots=True)
class Held:
    """A session and what the pool knows of it: messages on it now and altogether, and since when it has rested.

    `limit`: how many it carries in all.
    """

    session: Session
    lane: "Lane"
    limit: int
    load: int = 0
    carried: int = 0
    retiring: bool = False
    idle_since: float = 0.0

    @property
    def left(self) -> int:
        """Messages that it has to go."""
        return self.limit - self.carried


@dataclass(eq=False, slots=True)
class Lane:
    """One login's messages and sessions.

    `waiting` messages take any session, those that are `wanting` a new one have tried another in vain. `resting`: the
    sessions with nothing on them, the one used last at the end. `dials`: those under way, and who waited when each
    began. `parting`: those that are being closed. `proven`: the last dial has been let in. `used`: when a message was
    last done with.
    """

    login: Login
    waiting: deque[Waiter] = field(default_factory=deque)
    wanting: deque[Waiter] = field(default_factory=deque)
    held: list[Held] = field(default_factory=list)
    resting: dict[Held, None] = field(default_factory=dict)
    dials: "dict[asyncio.Task[Session], frozenset[Waiter]]" = field(default_factory=dict)
    parting: int = 0
    proven: bool = False
    used: float = 0.0

    @property
    def connections(self) -> int:
        return len(self.held) + len(self.dials)

    @property
    def deserted(self) -> bool:
        return not (self.waiting or self.wanting or self.held or self.dials)

    # -- its messages -------------------------------------------------------------------------------------------------

    def waiters(self) -> Iterator[Waiter]:
        yield from self.wanting
        yield from self.waiting

    def forget(self, waiter: Waiter) -> None:
        """It waits no more."""
        (self.waiting if waiter in self.waiting else self.wanting).remove(waiter)

    def let_in(self) -> None:
        """The login has been let in: who wanted a new session for it takes any, before the others."""
        self.waiting.extendleft(reversed(self.wanting))
        self.wanting.clear()

    # -- its sessions -------------------------------------------------------------------------------------------------

    def place(self) -> Held | None:
        """Where the next message goes: the session that has rested least, so that the others grow old and end; else
        behind another message, where there are fewest.
        """
        for held in reversed(self.resting):
            if held.session.usable:
                return held
        seats = [held for held in self.held if self._has_seat(held)]
        return min(seats, key=lambda held: held.load) if seats else None

    def _has_seat(self, held: Held) -> bool:
        return 0 < held.load < DEPTH and held.left > 0 and not held.retiring and held.session.takes_more

    def busy(self) -> list[Held]:
        """Sessions with messages on them that are to go on."""
        return [held for held in self.held if held.load and held.left > 0 and not held.retiring and held.session.usable]

    def died_with(self, dead: Held) -> list[Held]:
        """A session died at rest, unheard: so have those that have rested as long and have not been heard since."""
        asleep = [held for held in self.held if not held.load or held.session.suspect]
        return [held for held in asleep if held is not dead and held.idle_since <= dead.idle_since]

    def demand(self, now: float, near_end: int, *, may_dial: bool, full: bool, allowed: int) -> Demand:
        """For `shares.decide`. The end of a session that has fewer than `near_end` messages to go is near."""
        busy, idle = self.busy(), len(self.resting)
        ending = sum(held.load > 0 and held.left < near_end and not held.retiring for held in self.held)
        spare = sum(held.left >= near_end for held in self.resting)
        return Demand(
            self.login,
            waiting=len(self.waiting) + len(self.wanting),
            fresh=len(self.wanting),
            queued=sum(held.load - 1 for held in busy),
            worn=max(0, ending - spare),
            idle=idle,
            busy=len(busy),
            ripe=sum(held.carried >= TURN for held in busy),
            leaving=len(self.held) - idle - len(busy) + self.parting,
            parting=self.parting,
            dialling=len(self.dials),
            proven=self.proven,
            may_dial=may_dial,
            full=full,
            allowed=allowed,
            arrival=min((line[0].arrival for line in (self.waiting, self.wanting) if line), default=math.inf),
            idle_since=next((held.idle_since for held in self.resting), math.inf),
            quiet=0.0 if self.waiting or self.wanting or busy or self.dials else now - self.used,
        )
