"""What goes into the spool, what comes out of it, and what people see of it.

Names only, never a secret: a stored message knows its identity's name, its credential's name and its subaccount. What
these stand for is looked up anew at each attempt (design, section 1, rule 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from relay.core.envelope import Recipient
from relay.core.lifecycle import ENDED, Fate, Settlement, State, after
from relay.core.login import Assignment
from relay.core.message import Message


class SpoolUnavailable(Exception):
    """The spool cannot do this now; nothing of it was done. `full` tells a lack of room from other causes."""

    def __init__(self, cause: str, *, full: bool = False) -> None:
        super().__init__(cause)
        self.full = full


class Unreadable(Exception):
    """A stored message whose row or content is damaged; the text says what is wrong with it."""


class UnknownMessage(LookupError):
    """The spool has no message of this queue id."""

    def __init__(self, queue_id: str) -> None:
        super().__init__(f"there is no message {queue_id} in the spool")


class Lane(NamedTuple):
    """All mail that travels under one login: what is held back and let go together."""

    credential: str
    subaccount: int | None

    @classmethod
    def of(cls, assignment: Assignment) -> "Lane":
        return cls(assignment.credential, assignment.subaccount)


class Record(NamedTuple):
    """What is written after an attempt, in one transaction: the settlement, where it took place, and the DSN it led to.

    `notice` is stored as a message of its own together with the rest, so a failure is told exactly once.
    """

    settlement: Settlement
    endpoint: str | None = None
    notice: "Deposit | None" = None


class Deposit(NamedTuple):
    """A message to be stored.

    `received` is the time by the clock on the wall, `max_age` (seconds) its life from now. `claimed`: the depositor
    makes an attempt itself and holds the claim from the start. `record`: what an attempt already came to.
    """

    message: Message
    assignment: Assignment
    received: float
    max_age: float
    claimed: bool = False
    record: Record | None = None

    @property
    def ended(self) -> bool:
        """Is it stored for the ledger only, its content not needed?"""
        return self.record is not None and after(State.ACTIVE, self.record.settlement.event) in ENDED


class Claim(NamedTuple):
    """A message that is ours to attempt. `pending` are the numbers of the recipients that still wait.

    `age_left` is in seconds at the time of the claim; `failed_before`: another recipient has already failed for good.
    """

    message: Message
    assignment: Assignment
    pending: tuple[int, ...]
    attempts: int
    age_left: float
    received: float
    failed_before: bool

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        recipients = self.message.envelope.recipients
        if len(self.pending) == len(recipients):
            return recipients
        return tuple([recipients[number] for number in self.pending])


@dataclass(frozen=True, slots=True)
class Damaged:
    """A message that cannot be read any more; it is held, and what is left of it is where `reason` says."""

    queue_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """The yield of one look at the queue.

    `lanes` are those where mail waits, those that were skipped included; `next_due` is how many seconds from now the
    next message falls due in the others.
    """

    claims: tuple[Claim, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    lanes: frozenset[Lane] = frozenset()
    next_due: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Messages by state, and how long (seconds) the oldest that is still to be delivered has waited."""

    messages: Mapping[State, int] = field(default_factory=dict)
    oldest: float = 0.0


@dataclass(frozen=True, slots=True)
class RecipientEntry:
    """One recipient as people see it. `reply` is the last that SparkPost, or the way to it, gave."""

    address: str
    fate: Fate
    reply: str | None
    message_id: str | None
    settled: float | None


@dataclass(frozen=True, slots=True)
class AttemptEntry:
    """One line of a message's history: what some recipients, by number, got to hear in one attempt."""

    number: int
    time: float
    endpoint: str | None
    outcome: str
    phase: str
    reply: str
    recipients: Sequence[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored message as people see it; all times by the clock on the wall. `history` is given for a single one."""

    queue_id: str
    state: State
    assignment: Assignment
    reverse_path: str
    size: int
    received: float
    due: float | None
    attempts: int
    maybe_twice: bool
    reason: str | None
    finished: float | None
    recipients: tuple[RecipientEntry, ...]
    history: tuple[AttemptEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, oldest first, and where the next page begins; None at the end."""

    entries: tuple[Entry, ...]
    cursor: str | None
