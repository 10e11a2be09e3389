"""What the relay knows about itself: is it alive, does it take mail, would SparkPost take it, and if not, why.

Everything is asked for at the moment it is shown, from the rooms that know it, by what `app` hands in. Nothing here
waits, and nothing here can show a secret: a login is named by its credential and user name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from relay.core.login import PASSTHROUGH, Login, Target
from relay.core.outcome import Cause, Outcome

IDLE: Final = "idle"
BUSY: Final = "busy"

Sessions = Mapping[tuple[str, str, str], int]  # how many, by credential, endpoint, and IDLE or BUSY


class Phase(StrEnum):
    """Where the relay is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


class ClosedWays(Protocol):
    """The circuits: what holds mail back."""

    def blocked(self, login: Login) -> Outcome | None: ...

    def by_https(self, login: Login) -> bool: ...

    @property
    def targets_down(self) -> Mapping[Target, Outcome]: ...

    @property
    def logins_refused(self) -> Mapping[Login, Outcome]: ...


class RoundWays(Protocol):
    """HTTPS, where it may be used while no port works."""

    def endpoint(self, login: Login) -> str | None: ...

    def closed(self, login: Login) -> Outcome | None: ...

    @property
    def hosts_down(self) -> Mapping[str, Outcome]: ...


@dataclass(frozen=True, slots=True)
class Listening:
    """One listener: its name, its addresses, and whether it takes connections."""

    name: str
    addresses: Sequence[str]
    open: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not well: of what kind, which one, why. `shuts` tells whether it keeps mail out."""

    what: str
    name: str
    reason: str
    shuts: bool

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "name": self.name, "reason": self.reason}


@dataclass(frozen=True)
class Overview:
    """The relay as seen from the admin server.

    `spool_problem` is None where there is no spool. `targets` are all that mail can go to; `logins` the bare login of
    each credential; `mail_of` those of them that a target is for; `port_in_use` the port by which a target was last
    reached.
    """

    phase: Callable[[], Phase]
    listeners: Callable[[], Sequence[Listening]]
    spool_problem: Callable[[], str | None] | None
    ways: ClosedWays
    targets: Sequence[Target]
    logins: Callable[[], Mapping[str, Login]]
    sessions: Callable[[], Sessions]
    port_in_use: Callable[[Target], int | None]
    last_resort: RoundWays
    mail_of: Callable[[Target], Sequence[Login]]

    # -- problems -----------------------------------------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """Everything that is not well, what keeps mail out first."""
        return [*self._shutting(), *self._upstream()]

    def _shutting(self) -> Iterator[Problem]:
        phase = self.phase()
        if phase is not Phase.RUNNING:
            yield Problem("relay", "", _PHASES[phase], shuts=True)
        else:
            for listener in self.listeners():
                if not listener.open:
                    reason = "it does not take connections any more: restart the relay"
                    yield Problem("listener", listener.name, reason, shuts=True)
        if self.spool_problem is not None and (problem := self.spool_problem()) is not None:
            yield Problem("spool", "", problem, shuts=True)

    def _upstream(self) -> Iterator[Problem]:
        """Without a spool, mail is kept out when no way is left; blocked ports keep out nothing that HTTPS carries."""
        down = {target: outcome for target, outcome in self.ways.targets_down.items() if not self._carried(target)}
        shut = self.spool_problem is None and all(target in down for target in self.targets)
        for target, outcome in down.items():
            yield Problem("endpoint", target.host, f"{outcome.fact}{self._why_not_https(target)}", shuts=shut)
        refused = self.ways.logins_refused
        for login, outcome in refused.items():
            yield Problem("credential", login.credential, f"{login.username}: {outcome.fact}", shuts=False)
        for name, login in self.logins().items():
            blocked = self.ways.blocked(login)
            if blocked is not None and login not in refused and login.target not in down:
                yield Problem("credential", name, str(blocked.fact), shuts=False)

    def _carried(self, target: Target) -> bool:
        """Does all mail to it go by HTTPS now?"""
        return all(map(self.ways.by_https, self.mail_of(target)))

    def _why_not_https(self, target: Target) -> str:
        """What keeps the last resort from being one; nothing where there is none."""
        reasons = [
            f"; credential {login.credential} over HTTPS: {closed.fact}"
            for login in self.mail_of(target)
            if self.last_resort.endpoint(login) is not None and (closed := self.last_resort.closed(login)) is not None
        ]
        return "".join(dict.fromkeys(reasons))

    # -- endpoints and credentials ------------------------------------------------------------------------------------

    def endpoints(self) -> list[dict[str, Any]]:
        """Each port of each target, then each API. A port that was passed over for one behind it is not up."""
        down = self.ways.targets_down
        found: dict[str, dict[str, Any]] = {}
        for target in self.targets:
            outcome = down.get(target)
            used = self.port_in_use(target)
            first = target.ports.index(used) if used in target.ports else 0
            for place, port in enumerate(target.ports):
                name = f"{target.host}:{port}"
                reason = (
                    str(outcome.fact) if outcome else f"mail goes by port {used} instead" if place < first else None
                )
                found[name] = self._endpoint(name, reason)
        unreachable = self.last_resort.hosts_down
        for login in (login for target in self.targets for login in self.mail_of(target)):
            if (api := self.last_resort.endpoint(login)) is not None:
                found[api] = self._endpoint(api, str(unreachable[api].fact) if api in unreachable else None)
        return list(found.values())

    def _endpoint(self, name: str, reason: str | None) -> dict[str, Any]:
        sessions = self.sessions()
        counts = {
            state: sum(count for (_, at, how), count in sessions.items() if (at, how) == (name, state))
            for state in (IDLE, BUSY)
        }
        return {"endpoint": name, "up": reason is None, "reason": reason, "connections": counts}

    def credentials(self) -> list[dict[str, Any]]:
        """Each credential of the configuration; keys that applications present themselves are not ours to judge."""
        refused = self.ways.logins_refused
        return [
            {
                "credential": name,
                "host": login.target.host,
                "username": login.username,
                "ok": self.credential_ok(login),
                "refused": [
                    {"username": one.username, "reason": str(outcome.fact)}
                    for one, outcome in refused.items()
                    if one.credential == name
                ],
            }
            for name, login in self.logins().items()
            if name != PASSTHROUGH
        ]

    def credential_ok(self, bare: Login) -> bool:
        """Does SparkPost accept the key, as far as is known? One refused subaccount says nothing about it."""
        blocked = self.ways.blocked(bare)
        whole = blocked is not None and blocked.cause is Cause.LOGIN_REFUSED
        return not whole and bare not in self.ways.logins_refused


_PHASES: Final = {
    Phase.STARTING: "it is starting: not every listener is open yet",
    Phase.DRAINING: "it is stopping: messages in hand are finished, no new ones are taken",
}


class PortsInUse:
    """By which port each target was last reached."""

    def __init__(self) -> None:
        self._ports: dict[Target, int] = {}

    def reached(self, target: Target, port: int) -> None:
        self._ports[target] = port

    def __call__(self, target: Target) -> int | None:
        return self._ports.get(target)
