"""A listener behind proxies: whose connection it is comes first, and the session begins after it.

A connection from a listed network must begin with a PROXY header, within a few seconds; any other is the client's own,
and begins at once. The header is read without touching what follows it, so that TLS can come next.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import structlog

from relay.config import IPAddress, IPNetwork
from relay.core import reply
from relay.ingress.caller import known_as
from relay.ingress.proxy import HeaderReader, Proxied, ProxyError
from relay.ingress.service import Service
from relay.ingress.session import SmtpSession
from relay.observe import log as events

log = structlog.get_logger()

HEADER_SECONDS: Final = 5.0  # a proxy has sent the header before it has heard anything from the client


class ProxiedLink(asyncio.BufferedProtocol):
    """One connection until it is known whose it is; then the session takes the transport over."""

    def __init__(
        self,
        service: Service,
        proxies: tuple[IPNetwork, ...],
        session: Callable[[], SmtpSession],
        waiting: "set[ProxiedLink]",
    ) -> None:
        self._service = service
        self._proxies = proxies
        self._session = session
        self._waiting = waiting
        self._reader = HeaderReader()
        self._buffer = bytearray()
        self._wire: asyncio.Transport
        self._proxy: IPAddress | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        peername = transport.get_extra_info("peername")
        if isinstance(peername, tuple):
            self._proxy, _ = known_as(peername[0])
        if self._proxy is None or not any(self._proxy in network for network in self._proxies):
            self._hand_over(None)
            return
        self._waiting.add(self)
        self._timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._refuse, "none came in time")

    def get_buffer(self, sizehint: int) -> bytearray:
        self._buffer = bytearray(self._reader.wants)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            proxied = self._reader.feed(bytes(self._buffer[:nbytes]))
        except ProxyError as error:
            self._refuse(str(error))
            return
        if proxied is not None:
            self._leave()
            self._hand_over(self._client(proxied))

    def eof_received(self) -> bool:
        self._refuse("the connection ended before it")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        """The relay is shutting down."""
        self._leave()
        self._wire.abort()

    def _client(self, proxied: Proxied) -> tuple[Any, ...]:
        """Whose connection it is: the proxy's own, if the header names nobody or somebody on the proxy's own host."""
        peername: tuple[Any, ...] = self._wire.get_extra_info("peername")
        assert self._proxy is not None
        if proxied.client is None:
            return peername
        address, port = proxied.client
        client, name = known_as(str(address))
        if client.is_loopback and not self._proxy.is_loopback:
            return peername  # loopback there is not loopback here, and here it may do more than others
        return (name, port)

    def _hand_over(self, client: Any) -> None:
        session = self._session()
        session.peername = client
        self._wire.set_protocol(session)
        session.connection_made(self._wire)

    def _refuse(self, problem: str) -> None:
        """Nobody is served who may be anybody."""
        if self._wire.is_closing():
            return
        answer = reply.PROXY_HEADER
        self._service.metrics.replies.count(answer.code)
        self._service.metrics.limits.count(reply.PROXY_HEADER.limit)
        log.warning(
            events.LINK_NO_HEADER,
            listener=self._service.listener,
            peer=str(self._proxy),
            problem=f"a PROXY header is expected, and {problem}",
        )
        self._leave()
        if not self._service.implicit_tls:  # in clear, nobody would understand it
            self._wire.write(answer.wire())
        self._wire.close()

    def _leave(self) -> None:
        self._waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
