"""What is said between a dialogue and its outside: what is offered, what must be done there, what is told."""

from dataclasses import dataclass, field
from typing import Protocol

from relay.core.envelope import Envelope
from relay.core.message import Content
from relay.core.ports import Drafts
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.core.tolerance import Tolerance
from relay.ingress.data import DataLimits
from relay.ingress.memory import DataMemory
from relay.ingress.transaction import EnvelopeLimits
from relay.policy.identity import Decision


@dataclass(frozen=True, slots=True)
class DialogueSettings:
    """What a listener offers; the same object for all its sessions.

    `auth` is "none", "optional", "required" or "passthrough"; `starttls` whether STARTTLS is offered. `memory` is that
    of all listeners together; `drafts` are where large bodies go, if anywhere but to temporary files. `origin` is the
    domain of addresses that have none; None refuses them.
    """

    hostname: str
    auth: str
    starttls: bool
    envelope: EnvelopeLimits
    data: DataLimits
    memory: DataMemory = field(default_factory=DataMemory)
    drafts: Drafts | None = None
    origin: str | None = None


class Observer(Protocol):
    """Who is told of what happens in the dialogue."""

    def replied(self, verb: str, answer: Reply) -> None:
        """`verb` is what was answered; "DOT" for the end of data, "" where there was no command."""
        ...

    def tolerated(self, kind: Tolerance) -> None: ...


@dataclass(slots=True)
class BeginTls:
    """TLS comes after what is in `out`: the 220 to STARTTLS, or nothing where TLS comes first."""


@dataclass(slots=True)
class Authenticate:
    """Somebody presents a user name and a password."""

    user: str
    password: Secret


@dataclass(slots=True)
class TakeMessage:
    """The final dot has come. `content.body` must be closed by whoever takes this step."""

    envelope: Envelope
    decision: Decision
    content: Content


Step = BeginTls | Authenticate | TakeMessage
