"""What the sessions of one listener share."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from relay.config import IPAddress
from relay.core.login import Login
from relay.core.ports import Bearer, Clock
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.ingress.auth import Authenticated
from relay.ingress.bans import FailedLogins
from relay.ingress.certificate import ServerTls
from relay.ingress.oddities import Oddities
from relay.ingress.reception import Reception
from relay.ingress.steps import DialogueSettings
from relay.observe.metrics import Metrics
from relay.policy.identity import Decision, Identities
from relay.policy.rates import Quotas


class Authenticator(Protocol):
    """Finds out whether what a client presents is true."""

    async def authenticate(self, user: str, password: Secret) -> Authenticated: ...


class OpenSession(Protocol):
    """A session as those see it who count the open ones and bring them to an end; `peer` is None off TCP."""

    @property
    def peer(self) -> IPAddress | None: ...

    @property
    def client(self) -> str:
        """Whom it is counted for."""
        ...

    def drain(self) -> None: ...

    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Service:
    """Everything the sessions of one listener share; quotas, failed logins and oddities are those of all listeners."""

    listener: str
    settings: DialogueSettings
    tls: ServerTls | None
    implicit_tls: bool
    identities: Identities
    bearer: Callable[[Decision, Login | None], Bearer]
    authenticator: Authenticator | None
    reception: Reception
    clock: Clock
    metrics: Metrics
    quotas: Quotas
    failed_logins: FailedLogins
    oddities: Oddities
    command_timeout: float
    plain_auth_off_host: bool
    admit: Callable[[OpenSession], Reply | None]
    forget: Callable[[OpenSession], None]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
