"""Who gets a connection: every choice of the pool as a pure function of what there is. Doing is the pool's.

Connections are scarce (SparkPost wants ten at most) and each belongs to one login. Shares are equal between the
credentials that want to send, and within a credential between its logins. Who has more than his share gives up what he
has, first what is idle, then what is busy, as soon as that has carried its message, for who has less and waits.

More connections are dialled while messages wait behind others, and in place of those that will soon have carried all
they may; for a login that has not been let in yet, or not the last time, one at a time and only for a message that
waits: a key that is refused is tried once, however many wait.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from relay.core.login import Login

TURN: Final = 10  # messages that a busy connection carries before it is given up for a login that has none
QUIET: Final = 1.0  # seconds without a message, after which a login does not claim its share any more


@dataclass(frozen=True, slots=True)
class Demand:
    """One login's messages and connections.

    `waiting` messages have no connection, and no place on one, `fresh` of them want a new one; `queued` are on a
    connection behind another message. Of its connections `idle` carry nothing and `busy` go on being used, and `ripe`
    ones of these have had their turn; `worn` is how many in use are near their end and have no idle one to take their
    place; `leaving` ones take no more, and `parting` ones of these have carried all and are being closed. `proven`: the
    last one dialled has been let in. `may_dial`: its target takes one more connection now; `full`: it has the `allowed`
    ones that it takes at all. `arrival`: the how-many-th message of all that have waited is the first of those that do;
    `idle_since`: when the session that has rested longest began to; `quiet`: seconds since it had anything to send.
    """

    login: Login
    waiting: int = 0
    fresh: int = 0
    queued: int = 0
    worn: int = 0
    idle: int = 0
    busy: int = 0
    ripe: int = 0
    leaving: int = 0
    parting: int = 0
    dialling: int = 0
    proven: bool = False
    may_dial: bool = True
    full: bool = False
    allowed: float = math.inf
    arrival: float = math.inf
    idle_since: float = math.inf
    quiet: float = 0.0

    @property
    def holds(self) -> int:
        """Connections that will go on being its own."""
        return self.idle + self.busy + self.dialling

    @property
    def active(self) -> bool:
        return self.quiet < QUIET


class Step(Enum):
    """What to do next for, or with, a login."""

    DIAL = auto()  # open one more session
    CLOSE_IDLE = auto()  # give up an idle session
    RETIRE = auto()  # give up a busy session when it has carried what is on it


def decide(demands: Sequence[Demand], taken: int, limit: int) -> tuple[Step, Login] | None:
    """The next step; None when all is well. `taken` of `limit` connections exist or are being dialled."""
    shares = entitlements(demands, limit)
    wanting = [demand for demand in demands if _wants_more(demand)]
    wanting.sort(key=lambda demand: (demand.holds / shares[demand.login], demand.arrival))
    if taken < limit:
        for demand in wanting:
            if demand.may_dial:
                return Step.DIAL, demand.login
    for poor in wanting:
        if poor.waiting and (taken >= limit or poor.full):
            if poor.fresh and not poor.dialling:  # one of its own for a new one
                if poor.idle and not poor.parting:
                    return Step.CLOSE_IDLE, poor.login
                if poor.busy and not (poor.idle or poor.leaving):
                    return Step.RETIRE, poor.login
            rivals = demands if taken >= limit else [one for one in demands if one.login.target == poor.login.target]
            given = _give_up(poor, rivals, shares)
            if given is not None:
                return given
    return None


def _wants_more(demand: Demand) -> bool:
    """Is there work for another connection, and is it not being dialled already?"""
    if demand.proven:
        return demand.waiting + max(demand.queued, demand.worn) > demand.dialling
    return demand.waiting > 0 and not demand.dialling


def entitlements(demands: Collection[Demand], limit: int) -> Mapping[Login, float]:
    """How many connections each login may claim: credentials share equally, then the logins of each."""
    active = [demand.login for demand in demands if demand.active]
    logins = Counter(login.credential for login in active)
    return {
        demand.login: min(limit, demand.allowed) / max(1, len(logins)) / max(1, logins[demand.login.credential])
        for demand in demands
    }


def _give_up(poor: Demand, demands: Sequence[Demand], shares: Mapping[Login, float]) -> tuple[Step, Login] | None:
    """Whose connection is closed for `poor`, if anybody's."""
    others = [demand for demand in demands if demand.login != poor.login]
    unused = [demand for demand in others if demand.idle and not demand.active]
    if unused:
        return Step.CLOSE_IDLE, min(unused, key=lambda demand: demand.idle_since).login
    if poor.holds >= _due(shares[poor.login]):
        return None
    lacking = sum(demand.waiting > 0 and demand.holds < _due(shares[demand.login]) for demand in demands)
    if sum(demand.leaving for demand in demands) >= lacking:
        return None  # they are on their way
    rich = [demand for demand in others if demand.holds > _due(shares[demand.login])]
    if not rich and not poor.holds:  # more logins than connections: one after the other
        rich = [demand for demand in others if demand.idle or demand.ripe]
    rich.sort(key=lambda demand: demand.holds / shares[demand.login], reverse=True)
    for demand in rich:
        if demand.idle:
            return Step.CLOSE_IDLE, demand.login
    for demand in rich:
        if demand.busy:
            return Step.RETIRE, demand.login
    return None


def _due(share: float) -> int:
    return max(1, math.floor(share))
