"""For whom HTTPS is a way now, where no port of SMTP works. Pure but for its clock.

    what          closed by                                       open again
    API host      no connection, no verified TLS, no address,     time: 5 s, doubled up to 1 min; or an answer
                  or an answer that is not the API's (404, 3xx)
    login         403: the key has no permission over HTTPS       time: 15 min, doubled up to 1 h; or a delivery
    credential    429: too many requests                          time: 5 s, doubled up to 1 min; or a delivery

Nothing here is the fault of a message, and nothing here says anything about SMTP: mail that HTTPS is no way for waits
for a port. What HTTPS says of a key or a plan as such (401, 420) is in the circuits, like a reply of SMTP that says so.
"""

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from relay.core.login import PASSTHROUGH, Login, bare, origin
from relay.core.outcome import Answer, Cause, Delivered, FailureKind, HttpAnswer, Outcome, Phase
from relay.delivery.pauses import Pauses
from relay.observe import log as events

log = structlog.get_logger()

API_FIRST, API_LONGEST = 5.0, 60.0  # seconds
GRANT_FIRST, GRANT_LONGEST = 900.0, 3600.0  # seconds: somebody may give the key its permission
RATE_FIRST, RATE_LONGEST = 5.0, 60.0  # seconds; fact sheet 3.3 has 1 to 5

_UNREACHED: Final = frozenset({Phase.RESOLVE, Phase.CONNECT, Phase.TLS})


class LastResort:
    """What is known of HTTPS. `api_url` gives the API of a login's account; None if there is none, or it is not wanted.

    `now` is a monotonic clock; `on_change` is called when something opens or closes.
    """

    def __init__(
        self,
        api_url: Callable[[Login], str | None],
        now: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._api_url = api_url
        self._on_change = on_change
        self._hosts: Pauses[str] = Pauses(now, API_FIRST, API_LONGEST)
        self._no_grant: Pauses[Login] = Pauses(now, GRANT_FIRST, GRANT_LONGEST)
        self._too_fast: Pauses[Login] = Pauses(now, RATE_FIRST, RATE_LONGEST)

    def endpoint(self, login: Login) -> str | None:
        """The API host for mail of this login; None if HTTPS is no way for it at all."""
        url = self._api_url(login)
        return None if url is None else origin(url)

    def serves(self, login: Login) -> bool:
        """Would mail of this login be tried over HTTPS now?"""
        return self.endpoint(login) is not None and self.closed(login) is None

    def closed(self, login: Login) -> Outcome | None:
        """What keeps mail of this login from HTTPS now; None if nothing is known to."""
        host = self.endpoint(login)
        if host is not None and (unreachable := self._hosts.reason(host)) is not None:
            return unreachable
        return self._no_grant.reason(login) or self._too_fast.reason(bare(login))

    @property
    def hosts_down(self) -> dict[str, Outcome]:
        """The API hosts that could not be reached."""
        return self._hosts.reasons

    def next_change(self) -> float | None:
        """In how many seconds something that only time opens will be open."""
        ends = (self._hosts.next_end(), self._no_grant.next_end(), self._too_fast.next_end())
        return min((end for end in ends if end is not None), default=None)

    def learn(self, login: Login, outcomes: Iterable[Outcome]) -> None:
        """What an attempt or a probe over HTTPS has told. An application's own key is its own business."""
        host = self.endpoint(login)
        for outcome in outcomes:
            if host is not None:
                self._learn_host(host, outcome)
            if login.credential == PASSTHROUGH:
                continue
            if isinstance(outcome, Delivered):
                self._no_grant.end(login)
                self._too_fast.end(bare(login))
            elif outcome.cause is Cause.NO_HTTP_GRANT and self._no_grant.begin(login, outcome):
                log.error(events.UPSTREAM_NO_GRANT, credential=login.credential, reply=str(outcome.fact))
                self._on_change()
            elif outcome.cause is Cause.RATE_LIMIT and self._too_fast.begin(bare(login), outcome):
                self._on_change()

    def _learn_host(self, host: str, outcome: Outcome) -> None:
        fact = outcome.fact
        if isinstance(fact, Answer):
            found = not (isinstance(fact, HttpAnswer) and fact.elsewhere)
        elif fact.phase in _UNREACHED and fact.kind is not FailureKind.DEADLINE:
            found = False
        else:
            return
        if found and self._hosts.end(host):
            log.warning(events.UPSTREAM_UP, host=host)
            self._on_change()
        elif not found and self._hosts.begin(host, outcome):
            log.error(events.UPSTREAM_DOWN, host=host, reason=str(fact))
            self._on_change()

    def forget(self, current: Callable[[Login], bool]) -> bool:
        """Drop what is known of logins that nobody uses any more; True if there was anything."""
        dropped = [pauses.forget(current) for pauses in (self._no_grant, self._too_fast)]
        return any(dropped)
