"""Who is at the other end of a connection, as policy, log and metrics see it."""

import ipaddress
import ssl
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import structlog

from relay.config import IPAddress
from relay.core.envelope import ReversePath
from relay.core.login import Login
from relay.core.ports import Bearer
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.ingress.auth import Authenticated
from relay.ingress.conversation import Conversation
from relay.ingress.reception import Provenance
from relay.ingress.service import Service
from relay.observe import log as events
from relay.policy import content
from relay.policy.identity import Client, Decision

log = structlog.get_logger()

_OLD_TLS: Final = frozenset({"TLSv1", "TLSv1.1"})


class Caller:
    """One client of one listener, from its connection to its end; `reason` is why that came, where it is known.

    `name` is what is logged and counted: the address, or on a Unix socket, where `address` is None, the user id.
    """

    def __init__(self, service: Service, session_id: str, peername: Any, uid: int | None = None) -> None:
        self.id = session_id
        self.address: IPAddress | None = None
        self.name = f"uid {uid}"
        if uid is None:
            self.address, self.name = known_as(peername[0])
        self.uid = uid
        self.reason: str | None = None
        self._service = service
        self._client = Client(service.listener, self.address, uid)
        self._passthrough: Login | None = None
        self._introduction: tuple[str, str] | None = None
        self._origin: Provenance

    @property
    def premises(self) -> str:
        """Where it comes from, as far as failed logins go: of IPv6 the /64, which any host of it can use all of."""
        if self.address is None or self.address.version == 4:
            return self.name
        return str(ipaddress.ip_network((self.address, 64), strict=False))

    @property
    def on_host(self) -> bool:
        """Does it speak from this very host?"""
        return self.address is None or self.address.is_loopback

    # -- what policy asks ---------------------------------------------------------------------------------------------

    def choose(self, reverse_path: ReversePath) -> Decision | Reply:
        """Whose mail it is that begins now, and whether more of it may come."""
        decision = self._service.identities.choose(self._client, reverse_path)
        if isinstance(decision, Reply) or decision.rate is None:
            return decision
        now = self._service.clock.monotonic()
        return self._service.quotas.refusal(decision.assignment, decision.rate, now) or decision

    def bearer(self, decision: Decision) -> Bearer:
        """On whose behalf it goes, under the login of this moment."""
        return self._service.bearer(decision, self._passthrough)

    def origin(self, said: Conversation) -> Provenance:
        """Where a message comes from that has just been completed."""
        introduction = said.helo, said.protocol
        if introduction != self._introduction:
            self._introduction = introduction
            peer = "" if self.address is None else self.name
            way = content.way_of(said.helo, peer, self._service.settings.hostname, said.protocol)
            self._origin = Provenance(self.id, self._service.listener, way, self._service.settings.origin)
        return self._origin

    def logged_in(self, proof: Authenticated) -> None:
        self._client = replace(
            self._client, login=proof.login, proved=proof.proved, passthrough=proof.passthrough is not None
        )
        self._passthrough = proof.passthrough

    def upgraded(self, version: str | None) -> None:
        """TLS is on: nothing that was proved before counts any more (RFC 3207 §4.2)."""
        if version in _OLD_TLS:
            self.tolerated(Tolerance.OLD_TLS)
        self._client = Client(self._service.listener, self.address, self.uid)
        self._passthrough = None

    # -- what is told -------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        log.info(events.LINK_OPEN, session=self.id, listener=self._service.listener, peer=self.name)

    def closed(self, messages: int, farewell: Reply | None, *, lost: bool) -> None:
        """It is over, after so many messages; `farewell` is what it was told last, if that was the end."""
        reason = self.reason or (str(farewell) if farewell is not None and not farewell.positive else None)
        log.info(
            events.LINK_CLOSE,
            session=self.id,
            listener=self._service.listener,
            reason=reason or ("connection lost" if lost else "closed by the client"),
            messages=messages,
        )

    def replied(self, verb: str, answer: Reply) -> None:
        metrics = self._service.metrics
        metrics.replies.count(answer.code)
        if answer.limit is not None:
            metrics.limits.count(answer.limit.value)
        if answer.code >= 400 and verb != "DOT":  # the reception tells of messages
            log.info(
                events.TX_REJECTED,
                session=self.id,
                listener=self._service.listener,
                command=verb,
                reply=str(answer),
            )

    def tolerated(self, kind: Tolerance) -> None:
        service = self._service
        service.metrics.tolerances.count(kind.value)
        if service.oddities.worth_naming(self.name, kind, service.clock.monotonic()):
            log.info(events.TOLERANCE, session=self.id, listener=service.listener, peer=self.name, kind=kind.value)


@lru_cache(maxsize=1024)
def known_as(host: str) -> tuple[IPAddress, str]:
    """An IP address and how it is written; an IPv4 client of a dual-stack socket is the IPv4 address."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, str(mapped or address)


def handshake_problem(error: Exception) -> str:
    """Why TLS did not come about, in one line."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__
