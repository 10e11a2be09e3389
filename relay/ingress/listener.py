"""One listener: opens its door, admits or refuses connections, and owns what its sessions have begun."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from relay.config import IPNetwork
from relay.core import reply
from relay.core.reply import Reply
from relay.ingress.doors import Door, place_of
from relay.ingress.proxied import ProxiedLink
from relay.ingress.service import OpenSession, Service
from relay.ingress.session import SmtpSession, sessions_of


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may connect, and how many at once: in all (over all listeners) and from one address."""

    networks: tuple[IPNetwork, ...]
    connections: int
    connections_per_client: int


class Connections:
    """The open sessions of all listeners, counted in all and by client."""

    def __init__(self) -> None:
        self.sessions: set[OpenSession] = set()
        self.by_client: dict[str, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.links: set[ProxiedLink] = set()
        self._ids = itertools.count(1)
        self._changed = asyncio.Event()
        self._draining = False

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

    def admit(self, session: OpenSession, admission: Admission) -> Reply | None:
        """Count a new session in; a refusal says why it may not stay."""
        self.sessions.add(session)
        if self._draining:  # it had been accepted before its listener was closed
            asyncio.get_running_loop().call_soon(session.drain)
        client = session.client
        its_own = self.by_client[client] = self.by_client.get(client, 0) + 1
        if session.peer is not None and not any(session.peer in network for network in admission.networks):
            return reply.not_in_networks(client)
        if len(self.sessions) + len(self.links) > admission.connections:
            return reply.too_many_connections(admission.connections)
        if its_own > admission.connections_per_client:
            return reply.too_many_connections_from(client, admission.connections_per_client)
        return None

    def forget(self, session: OpenSession) -> None:
        self.sessions.discard(session)
        client = session.client
        its_own = self.by_client.pop(client) - 1
        if its_own:
            self.by_client[client] = its_own
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """Let messages in hand be answered, tell everybody else 421, and give up what is left after `seconds`."""
        self._draining = True
        for link in list(self.links):
            link.abort()
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
    """One configured listener: a name, its door, and the service its sessions share.

    `places` is where it is to be found, `addresses` the host and port of those places that have one.
    """

    def __init__(self, name: str, door: Door, proxies: tuple[IPNetwork, ...] = ()) -> None:
        self.name = name
        self._door = door
        self._proxies = proxies
        self._servers: list[asyncio.Server] = []
        self.places: list[str] = []
        self.addresses: list[tuple[str, int]] = []

    async def open(self, service: Service, connections: Connections) -> None:
        """Bind and begin to serve; raises BindError."""
        loop = asyncio.get_running_loop()
        factory = _factory(service, connections, self._proxies)
        for sock in self._door.open():
            self._servers.append(await loop.create_server(factory, sock=sock, backlog=self._door.backlog))
            self.places.append(place_of(sock))
            if sock.family != socket.AF_UNIX:
                self.addresses.append(sock.getsockname()[:2])

    @property
    def listening(self) -> bool:
        """Is every socket that was opened there, and does the kernel still take connections for it?"""
        sockets = [sock for server in self._servers for sock in server.sockets]
        return len(sockets) == len(self.places) > 0 and all(map(_accepts, sockets))

    def close(self) -> None:
        """Stop accepting; open sessions go on."""
        for server in self._servers:
            server.close()
        self._door.close()


def _accepts(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _factory(
    service: Service, connections: Connections, proxies: tuple[IPNetwork, ...]
) -> Callable[[], asyncio.BaseProtocol]:
    create = sessions_of(service, asyncio.get_running_loop())

    def session() -> SmtpSession:
        return create(service, connections.next_id())

    return (lambda: ProxiedLink(service, proxies, session, connections.links)) if proxies else session
