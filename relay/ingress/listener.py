"""Sockets: binds one listener's addresses, admits or refuses connections, and owns what its sessions have begun."""

import asyncio
import errno
import ipaddress
import itertools
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.config import ListenerTls
from relay.core import reply
from relay.core.reply import Reply
from relay.ingress.service import Service
from relay.ingress.session import SmtpSession, blank

_BACKLOG: Final = 512

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BindError(Exception):
    """A listener's address cannot be bound; the text names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may connect, and how many at once: in all (over all listeners) and from one address."""

    networks: tuple[Network, ...]
    connections: int
    connections_per_client: int


class Connections:
    """The open sessions of all listeners, counted in all and by client."""

    def __init__(self) -> None:
        self.sessions: set[SmtpSession] = set()
        self.by_client: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1)
        self._changed = asyncio.Event()

    def next_id(self) -> str:
        return f"s{next(self._ids)}"

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that must come to its end whatever becomes of the connection it was begun for."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._changed.set()

    def admit(self, session: SmtpSession, admission: Admission) -> Reply | None:
        """Count a new session in; a refusal says why it may not stay."""
        self.sessions.add(session)
        client = session.client
        self.by_client[client] += 1
        if session.peer is not None and not any(session.peer in network for network in admission.networks):
            return reply.not_in_networks(client)
        if len(self.sessions) > admission.connections:
            return reply.too_many_connections(admission.connections)
        if self.by_client[client] > admission.connections_per_client:
            return reply.too_many_connections_from(client, admission.connections_per_client)
        return None

    def forget(self, session: SmtpSession) -> None:
        self.sessions.discard(session)
        client = session.client
        self.by_client[client] -= 1
        if not self.by_client[client]:
            del self.by_client[client]
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """Let messages in hand be answered, tell everybody else 421, and give up what is left after `seconds`."""
        for session in list(self.sessions):
            session.drain()
        try:
            async with asyncio.timeout(seconds):
                while self.sessions or self.tasks:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            for task in self.tasks:
                task.cancel()
            for session in list(self.sessions):
                session.abort()


class Listener:
    """One configured listener: a name, its sockets, and the service its sessions share."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self._host = host
        self._port = port
        self._servers: list[asyncio.Server] = []
        self.addresses: list[tuple[str, int]] = []

    async def open(self, service: Service, connections: Connections) -> None:
        """Bind and begin to serve; raises BindError."""
        loop = asyncio.get_running_loop()
        for sock in self._bind():
            server = await loop.create_server(_factory(service, connections), sock=sock, backlog=_BACKLOG)
            self._servers.append(server)
            self.addresses.append(sock.getsockname()[:2])

    def _bind(self) -> Sequence[socket.socket]:
        """One socket an address. `localhost` is both loopback addresses, and IPv4 alone where the host has no IPv6."""
        hosts = ["127.0.0.1", "::1"] if self._host == "localhost" else [self._host]
        sockets: list[socket.socket] = []
        port = self._port
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                sock = bound_socket(family, host, port)
            except OSError as error:
                if host == "::1" and sockets and not _ipv6_loopback_exists():
                    continue
                for opened in sockets:
                    opened.close()
                raise BindError(bind_problem(self.name, host, port, error)) from error
            port = sock.getsockname()[1]
            sockets.append(sock)
        return sockets

    @property
    def listening(self) -> bool:
        """Is every socket that was opened there, and does the kernel still take connections for it?"""
        sockets = [sock for server in self._servers for sock in server.sockets]
        return len(sockets) == len(self.addresses) > 0 and all(map(_accepts, sockets))

    def close(self) -> None:
        """Stop accepting; open sessions go on."""
        for server in self._servers:
            server.close()


def _accepts(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def tls_context(section: ListenerTls) -> ssl.SSLContext:
    """The server side of TLS as a listener's section says; the configuration has been checked to load."""
    assert section.certificate is not None
    assert section.key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(section.certificate, section.key)
    return context


def _factory(service: Service, connections: Connections) -> Callable[[], SmtpSession]:
    attributes = blank(service, asyncio.get_running_loop())
    return lambda: SmtpSession(service, connections.next_id(), attributes)


def bound_socket(family: int, host: str, port: int) -> socket.socket:
    """A non-blocking listening address; an IPv6 wildcard takes IPv6 only, so that 0.0.0.0 may stand beside it."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _ipv6_loopback_exists() -> bool:
    try:
        bound_socket(socket.AF_INET6, "::1", 0).close()
    except OSError:
        return False
    return True


def bind_problem(name: str, host: str, port: int, error: OSError) -> str:
    """What is wrong with an address, and what would help."""
    remedies = {
        errno.EADDRINUSE: "another program listens there: stop it or choose another port",
        errno.EADDRNOTAVAIL: "this host has no such address: choose one of its own, or 0.0.0.0 for all",
        errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE: choose a port above, or grant the capability",
    }
    remedy = remedies.get(error.errno or 0, error.strerror or str(error))
    return f"listener {name}: cannot bind {host} port {port}: {remedy}"
