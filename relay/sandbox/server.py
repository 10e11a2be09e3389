"""The sandbox as a whole: its ports, its certificates, and the memory of what happened."""

import asyncio
import itertools
import os
import secrets
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from relay.sandbox.answers import TOO_MANY_CONNECTIONS, Answer
from relay.sandbox.api import HTTP_MODES, Api, Request, Response
from relay.sandbox.certificates import Certificates, Kind
from relay.sandbox.connection import Connection
from relay.sandbox.dialogue import Dialogue
from relay.sandbox.http import HttpConnection
from relay.sandbox.link import Link
from relay.sandbox.modes import MODES, Mode
from relay.sandbox.ports import HttpPort, Port
from relay.sandbox.records import Accepted, LoginAttempt, Session, Store
from relay.sandbox.rules import Rules

_BACKLOG: Final = 512
_T = TypeVar("_T")


@dataclass(kw_only=True, eq=False)
class Sandbox(Rules):
    """A SparkPost on localhost. Start it with `async with`, or with `start` and `stop`; once.

    ports: where to listen. http: where to listen for the HTTP API, if at all.
    tls_dir: where ca.pem and the certificates are kept; a temporary folder if not given.
    store: a folder for accepted messages. hosts: names and addresses of the certificates besides those of localhost.
    transcripts: whether sessions remember their octets. keep: how many messages, and how many sessions, are remembered:
    the latest ones, or None for all. The remaining options are those of `Rules`.

    addresses: the first that each port is bound to, in the order of `ports`; http_address: that of `http`. accepted,
    sessions: what is remembered, HTTP included.
    accepted_total, opened, max_open: messages, connections, and most connections at a time, since the start.
    """

    ports: Sequence[Port] = (Port(),)
    http: HttpPort | None = None
    tls_dir: Path | None = None
    store: Path | None = None
    hosts: Sequence[str] = ()
    transcripts: bool = True
    keep: int | None = None

    addresses: list[tuple[str, int]] = field(init=False, default_factory=list)
    http_address: tuple[str, int] | None = field(init=False, default=None)
    accepted: list[Accepted] = field(init=False, default_factory=list, repr=False)
    sessions: list[Session] = field(init=False, default_factory=list, repr=False)
    accepted_total: int = field(init=False, default=0)
    opened: int = field(init=False, default=0)
    max_open: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ports = list(self.ports)
        self._contexts: dict[Kind, ssl.SSLContext] = {}
        self._resources = AsyncExitStack()
        self._servers: list[asyncio.Server] = []
        self._connections: set[Link] = set()
        self._http_mode = self.http.mode if self.http is not None else "normal"
        self._api = Api(self, self._new_id, self._deposit)
        self._all_lost = asyncio.Event()
        self._all_lost.set()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._ca_file: Path | None = None
        self._disk: Store | None = None
        self._serial = itertools.count(secrets.randbits(32))

    # -- starting and stopping -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on every port, or raise OSError for one that cannot be bound, and then listen on none."""
        try:
            self._disk = Store(self.store) if self.store is not None else None
            self._certificates = Certificates(self.tls_dir or self._temporary_folder(), self.hosts)
            self._ca_file = self._certificates.ca_file
            self._resources.push_async_callback(self._shut)
            for index, port in enumerate(self.ports):
                self._context(MODES[port.mode].certificate)
                self.addresses.append(await self._listen(partial(self._connect, index), port))
            if self.http is not None:
                self._context(HTTP_MODES[self.http.mode].certificate)
                self.http_address = await self._listen(self._connect_http, self.http)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close every port and every connection; `accepted` and `sessions` stay to be read."""
        await self._resources.aclose()

    def _temporary_folder(self) -> Path:
        return Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="sparkpost-sandbox-")))

    def _context(self, kind: Kind) -> ssl.SSLContext:
        """TLS with a certificate of this kind."""
        if kind not in self._contexts:
            self._contexts[kind] = self._certificates.context(kind)
        return self._contexts[kind]

    async def _listen(self, connect: Callable[[], asyncio.Protocol], port: Port | HttpPort) -> tuple[str, int]:
        """Listen on a port; the first address that it is bound to."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(connect, port.host, port.port, backlog=_BACKLOG)
        except (socket.gaierror, UnicodeError) as error:  # the latter for an empty label, or one that is too long
            raise OSError(f"{port.host} is no address of this host ({error})") from error
        self._servers.append(server)
        host, number = server.sockets[0].getsockname()[:2]
        return host, number

    async def _shut(self) -> None:
        """Take no more connections, and drop those there are.

        asyncio trips over a server that is closed between its accept and the connection's first step; so the listening
        sockets fall silent one turn of the loop before they are closed.
        """
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listener in server.sockets:
                loop.remove_reader(listener)
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.abort()
        await self._all_lost.wait()

    # -- connections ---------------------------------------------------------------------------------------------------

    def _connect(self, index: int) -> Connection:
        """A protocol for a client that is about to be connected."""
        port = self._ports[index]
        mode = MODES[port.mode]
        connection = Connection(
            partial(self._welcome, mode),
            self._lose,
            self._context(mode.certificate),
            delay=mode.delay if port.delay is None else port.delay,
            idle_timeout=self.idle_timeout,
            record=self.transcripts,
        )
        self._connections.add(connection)
        self._all_lost.clear()
        return connection

    def _welcome(self, mode: Mode, transport: asyncio.Transport) -> tuple[Session, Dialogue, Answer]:
        """What a connected client gets: a place in the record, someone to talk to, and the first word."""
        host, port = (transport.get_extra_info("peername") or ("unknown", 0))[:2]  # unknown: it has already gone
        session = self._begin(transport)
        now_open = sum(isinstance(one, Connection) and one.takes_room for one in self._connections)
        dialogue = Dialogue(self, mode, session, f"{host}:{port}", self._new_token, self._deposit)
        return session, dialogue, dialogue.greet() if now_open <= self.max_connections else TOO_MANY_CONNECTIONS

    def _connect_http(self) -> HttpConnection:
        """A protocol for an HTTP client that is about to be connected."""
        assert self.http is not None
        context = self._context(HTTP_MODES[self._http_mode].certificate) if self.http.tls else None
        connection = HttpConnection(self._begin, self._answer_http, self._lose, context, record=self.transcripts)
        self._connections.add(connection)
        self._all_lost.clear()
        return connection

    def _begin(self, transport: asyncio.Transport) -> Session:
        """A place in the record for a client that is connected."""
        self.opened += 1
        session = Session(self.opened, transport.get_extra_info("sockname")[1])
        self._remember(self.sessions, session)
        self.max_open = max(self.max_open, sum(connection.takes_room for connection in self._connections))
        return session

    def _answer_http(self, request: Request, session: Session) -> Response:
        return self._api.answer(request, HTTP_MODES[self._http_mode], session)

    def _lose(self, connection: Link) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_lost.set()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _new_token(self) -> str:
        """A spool id in SparkPost's form; the last part alone is unique for 2³² messages."""
        n = next(self._serial) & 0xFFFFFFFF
        return f"{n >> 8 & 0xFF:02X}/{n & 0xFF:02X}-{os.getpid() % 100_000:05d}-{n:08X}"

    def _new_id(self) -> str:
        """A transmission id in SparkPost's form."""
        return str(11_000_000_000_000_000 + next(self._serial))

    def _deposit(self, message: Accepted) -> None:
        if self._disk is not None:
            self._disk.add(message)
        self._remember(self.accepted, message)
        self.accepted_total += 1
        for count, waiter in self._waiters:
            if count <= self.accepted_total and not waiter.done():
                waiter.set_result(None)

    def _remember(self, past: list[_T], event: _T) -> None:
        past.append(event)
        if self.keep is not None:
            del past[: max(len(past) - self.keep, 0)]

    async def wait_for(self, count: int, timeout: float = 5.0) -> list[Accepted]:
        """`accepted`, once there were `count` messages in all; TimeoutError after `timeout` seconds without."""
        if self.accepted_total < count:
            waiter = count, asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout(timeout):
                    await waiter[1]
            except TimeoutError as error:
                raise TimeoutError(f"{self.accepted_total} of {count} messages arrived within {timeout} s") from error
            finally:
                self._waiters.remove(waiter)
        return self.accepted

    async def wait_closed(self, timeout: float = 5.0) -> None:
        """Until no connection is open; TimeoutError if one stays open for `timeout` seconds."""
        async with asyncio.timeout(timeout):
            await self._all_lost.wait()

    # -- what a test asks for ------------------------------------------------------------------------------------------

    def set_mode(self, mode: str, index: int = 0) -> None:
        """From the next connection on, the port of this index in `ports` behaves so; those that are open go on."""
        self._ports[index] = replace(self._ports[index], mode=mode)

    def set_http_mode(self, mode: str) -> None:
        """From the next request on, the HTTP port behaves so; a certificate shows from the next connection on."""
        self._http_mode = HttpPort(mode=mode).mode

    @property
    def ca_file(self) -> Path:
        """The certificate that clients must trust; there once the sandbox has started."""
        if self._ca_file is None:
            raise RuntimeError("the sandbox has no CA before it is started")
        return self._ca_file

    @property
    def open_now(self) -> int:
        return len(self._connections)

    @property
    def handshakes(self) -> int:
        return sum(session.tls is not None for session in self.sessions)

    @property
    def auth_attempts(self) -> list[LoginAttempt]:
        """All of them, connection by connection."""
        return [attempt for session in self.sessions for attempt in session.logins]
