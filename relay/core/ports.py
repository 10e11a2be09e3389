"""The seams between the rooms: small contracts, each with its promises in prose. `app` alone names who keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.core.envelope import Recipient
from relay.core.login import Assignment, Login
from relay.core.message import Message
from relay.core.outcome import Outcome
from relay.core.reply import Reply


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What one attempt came to: one outcome for each recipient, in the order they were given.

    `endpoint` is where the transaction took place ("host:port"), None when no session came about; `connect_seconds` and
    `transaction_seconds` are how long getting a session and the transaction itself took.
    """

    outcomes: tuple[tuple[Recipient, Outcome], ...]
    endpoint: str | None = None
    connect_seconds: float = 0.0
    transaction_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Bearer:
    """On whose behalf a message is to be sent: the promise by name, and the login it resolves to now."""

    assignment: Assignment
    login: Login


class Intake(Protocol):
    """Takes responsibility for a message, or refuses it. The only source of a 250 after the final dot."""

    async def accept(self, message: Message, bearer: Bearer) -> Reply:
        """The reply to the final dot. 2yz means that SparkPost has taken the message for every recipient.

        Never raises for an expected failure. Runs to its end whatever the client does: a caller that is cancelled must
        shield this call. The message's content stays open until it returns.
        """
        ...


class Courier(Protocol):
    """Makes one attempt at delivering a message."""

    async def deliver(
        self, message: Message, recipients: Sequence[Recipient], bearer: Bearer, *, patience: float
    ) -> AttemptReport:
        """Try now, over whatever works. Always reports an outcome for each recipient and never raises for what
        SparkPost or the network do. `patience` (seconds) is the time within which the content must begin to leave, and
        the longest it may stand still before the final dot; after the dot the upstream's own limit applies.
        """
        ...


class Channel(Protocol):
    """One way to SparkPost (SMTP, later HTTPS)."""

    async def send(
        self, message: Message, recipients: Sequence[Recipient], login: Login, *, patience: float
    ) -> AttemptReport:
        """One transaction, all recipients or none. Nothing is sent again once the final dot has left."""
        ...


class LoginProof(Protocol):
    """Asks SparkPost itself whether a login is good."""

    async def prove(self, login: Login, *, patience: float) -> Outcome | None:
        """None if SparkPost accepted the login; else the outcome that says why not, or why nobody knows."""
        ...


class Clock(Protocol):
    """Time, handed in."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
