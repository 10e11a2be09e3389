"""The seams between the rooms: small contracts, each with its promises in prose. `app` alone says who keeps them."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from io import FileIO
from typing import NamedTuple, Protocol, runtime_checkable

from relay.core.envelope import Recipient
from relay.core.lifecycle import Event, State
from relay.core.login import Assignment, Login, Target, Terms
from relay.core.message import Content, Message
from relay.core.outcome import Outcome
from relay.core.reply import Reply
from relay.core.spooled import Claimed, Deposit, Entry, Lane, Page, Record, Stats


class AttemptReport(NamedTuple):
    """What one attempt came to: one outcome for each recipient, in the order they were given.

    `endpoint` is where the transaction took place ("host:port", or "https://host"), None when no session came about;
    `connect_seconds` and `transaction_seconds` are how long getting a session and the transaction itself took.
    """

    outcomes: tuple[tuple[Recipient, Outcome], ...]
    endpoint: str | None = None
    connect_seconds: float = 0.0
    transaction_seconds: float = 0.0


class Bearer(NamedTuple):
    """On whose behalf a message is to be sent: the promise by name, the login it resolves to now, and its terms."""

    assignment: Assignment
    login: Login
    terms: Terms


class Permit:
    """Asked before each final dot of an attempt: may it leave? No longer, if the claim on the message runs out.

    `used` tells whether a dot may have left; until then SparkPost cannot have taken the message. `ending`: the attempt
    begins no further transaction, and reports what it has come to.
    """

    def __init__(self) -> None:
        self.used = False
        self.ending = False
        self._holds: Callable[[], bool] = lambda: True

    def under(self, holds: Callable[[], bool]) -> None:
        """From now on it depends on a claim."""
        self._holds = holds

    def ask(self) -> bool:
        granted = self._holds()
        self.used |= granted
        return granted


@dataclass(frozen=True, slots=True)
class Effort:
    """How an attempt is to be made.

    `patience` (seconds) is the time within which the content must begin to leave, and the longest it may stand still
    before the final dot; after the dot the upstream's own limit applies. `whole`: all recipients or none, in one
    transaction; else each gets its own outcome, and they travel in groups that are halved `halvings` times.
    """

    patience: float
    whole: bool = False
    halvings: int = 0
    permit: Permit = field(default_factory=Permit)


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt that has been begun and goes on: what it will come to, and its permit."""

    report: Awaitable[AttemptReport]
    permit: Permit


class Intake(Protocol):
    """Takes responsibility for a message, or refuses it. The only source of a 250 after the final dot."""

    def accept(self, message: Message, bearer: Bearer) -> Reply | Awaitable[Reply]:
        """The reply to the final dot, or where it will come from. 2yz means that SparkPost has taken the message for
        every recipient, or that it is committed to the spool.

        Never raises for an expected failure. Runs to its end whatever the client does: a caller that is cancelled must
        shield this call. Owns the message's content from here on, and closes it when nobody needs it.
        """
        ...


class Courier(Protocol):
    """Makes one attempt at delivering a message."""

    async def deliver(
        self, message: Message, recipients: Sequence[Recipient], bearer: Bearer, effort: Effort
    ) -> AttemptReport:
        """Try now, over whatever works. Always reports an outcome for each recipient and never raises for what
        SparkPost or the network do.
        """
        ...

    def blocked(self, login: Login) -> Outcome | None:
        """What an attempt under this login would come to without being tried, as its way is known to be closed."""
        ...

    @property
    def all_open(self) -> bool:
        """True if no way is known to be closed: nobody need be asked about."""
        ...

    def next_change(self) -> float | None:
        """In how many seconds a way that is closed for a time will be open again; None if there is no such way."""
        ...


class Resolver(Protocol):
    """What the names that a stored message was promised under stand for now."""

    def resolve(self, assignment: Assignment) -> Bearer | str:
        """On whose behalf the message goes, or in words why it has to wait for the operator: its identity has gone, or
        yields another credential or subaccount now.
        """
        ...

    def renew(self, assignment: Assignment) -> Assignment | str:
        """What the identity yields now, for a message that the operator lets go; or in words why it yields nothing."""
        ...

    def login_of(self, lane: Lane) -> Login | None:
        """The login of a lane; None if its credential has gone."""
        ...


class Channel(Protocol):
    """One way to SparkPost: SMTP, or HTTPS."""

    async def send(
        self, message: Message, recipients: Sequence[Recipient], login: Login, effort: Effort
    ) -> AttemptReport:
        """As many transactions as it takes. Nothing is sent again to whom a final dot has left."""
        ...


class MailQueue(Protocol):
    """Takes messages over: once one is kept, it is safe, and will be delivered or told about."""

    @property
    def problem(self) -> str | None:
        """Why nothing can be kept now; None if it can."""
        ...

    async def keep(
        self,
        message: Message,
        bearer: Bearer,
        *,
        report: AttemptReport | None = None,
        attempt: RunningAttempt | None = None,
    ) -> None:
        """Commit a message, with what an attempt has come to (`report`), or with the attempt that goes on (`attempt`).

        Raises SpoolUnavailable, and then nothing is kept. Closes the content when nobody needs it any more.
        """
        ...

    def enter(self, message: Message, bearer: Bearer, report: AttemptReport) -> None:
        """Note in the ledger a message that SparkPost has taken for everybody. Nobody waits for it."""
        ...


class Spool(Protocol):
    """Durable storage of accepted messages. Everything that changes it raises SpoolUnavailable when it cannot."""

    @property
    def problem(self) -> str | None:
        """Why no mail can be taken in now; None if it can."""
        ...

    async def put(self, deposit: Deposit) -> None:
        """Store a message. It is on the disk when this returns; where it is cancelled, all of it is or nothing.

        The content may be closed as soon as this has ended, however it has.
        """
        ...

    async def claim(self, limit: int, *, skip: Collection[Lane] = ()) -> Claimed:
        """Take due messages, for as long as their leases are renewed: fairly between lanes, the oldest first in each.

        The lanes of `skip` are left alone. What cannot be read is held, and named in the result. Where it is cancelled,
        what was taken is given back.
        """
        ...

    async def record(self, queue_id: str, record: Record) -> None:
        """Write down what an attempt came to, in one transaction, and let the claim go.

        If the claim was lost meanwhile, what SparkPost said for good is written all the same. Where it is cancelled, it
        may be written nevertheless; to record the same once more does no harm.
        """
        ...

    async def hold(self, queue_id: str, reason: str) -> None:
        """Let a claim go by keeping the message for the operator."""
        ...

    async def give_back(self, queue_ids: Collection[str]) -> None:
        """Let claims go that were not used."""
        ...

    async def renew(self, queue_ids: Collection[str]) -> None:
        """The attempts under these claims are alive."""
        ...

    async def reclaim(self, alive: Collection[str]) -> Sequence[str]:
        """Make due what was claimed by somebody whose lease is over and who is not `alive`; the queue ids."""
        ...

    async def hold_over_age(self, blocked: Collection[Lane]) -> Sequence[str]:
        """Hold what is over age in lanes that are held back; the queue ids."""
        ...

    async def purge(self, *, failed_for: float, ended_for: float) -> int:
        """Remove dead letters and ledger lines that have been kept for so many seconds; how many."""
        ...


class Archive(Protocol):
    """The spool as the operator sees it.

    Raises UnknownMessage for a queue id that it does not have, and SpoolUnavailable when it cannot be read now.
    """

    async def stats(self) -> Stats: ...

    async def page(
        self, *, state: State | None = None, search: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page: ...

    async def entry(self, queue_id: str) -> Entry: ...

    async def header(self, queue_id: str) -> bytes | None: ...

    async def content(self, queue_id: str) -> Content:
        """Raises Unreadable where it is damaged, or there is none any more."""
        ...

    async def act(self, queue_id: str, event: Event, assignment: Assignment | None = None) -> State:
        """Move a message as the operator wants; raises IllegalTransition where that is not possible.

        `assignment` is what a released message travels under from now on.
        """
        ...


class Drafts(Protocol):
    """Files for large bodies while they are received: one that is to be stored need not be written again."""

    def draft(self) -> FileIO | None:
        """A new file that is gone when it is closed, unless `Spool.put` has been given its body; None if no mail can be
        taken in now.
        """
        ...


@runtime_checkable
class InFile(Protocol):
    """A body that says which file it is in, if it is in one."""

    @property
    def file(self) -> FileIO | None: ...


class LoginProof(Protocol):
    """Asks SparkPost itself whether a login is good."""

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        """None if SparkPost accepted the login; else the outcome that says why not, or why nobody knows.

        A login that was accepted a moment ago will do, unless a `fresh` one is asked for.
        """
        ...


class Reach(Protocol):
    """Finds out whether a target can be reached, without logging in."""

    async def reach(self, target: Target, *, patience: float) -> None:
        """Dial it and hang up. What came of it is told to who watches the dials."""
        ...


class Clock(Protocol):
    """Time, handed in."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
