"""The admin server: health, metrics and the operator's desk over HTTP, in the relay's own loop (design, 3.4)."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from relay.admin import dashboard
from relay.admin.access import Guard, gate, mark
from relay.admin.messages import Messages
from relay.admin.pages import Pages
from relay.admin.sockets import AdminUnavailable, bind_tcp, bind_unix, socket_path
from relay.config import Config
from relay.observe import log as events
from relay.sockets import host_port

log = structlog.get_logger()

LARGEST_REQUEST: Final = 64 * 1024  # octets
KEEPALIVE_SECONDS: Final = 15.0
STOP_SECONDS: Final = 1.0  # for answers that are under way when the relay stops


class AdminServer:
    """Serves `pages` and `messages` where the configuration says, from `start` to `stop`."""

    def __init__(self, config: Config, environ: Mapping[str, str], pages: Pages, messages: Messages) -> None:
        self._config = config
        self._path = socket_path(config, environ)
        self._guard = Guard(config.hostname, config.admin.token)
        self._pages = pages
        self._messages = messages
        self._runner: web.AppRunner | None = None
        self._made: tuple[Path, tuple[int, int]] | None = None
        self.addresses: list[str] = []  # where it is to be found

    async def start(self) -> None:
        """Open what was asked for; raises AdminUnavailable.

        What was not asked for by name is done without where it cannot be had: mail must not wait for it.
        """
        app = web.Application(middlewares=[gate(self._guard)], client_max_size=LARGEST_REQUEST)
        app.on_response_prepare.append(mark)
        app.add_routes([*dashboard.routes(), *self._pages.routes(), *self._messages.routes()])
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=STOP_SECONDS,
        )
        await self._runner.setup()
        for sock in (*self._bind_tcp(), *self._bind_unix()):
            await web.SockSite(self._runner, sock).start()

    def _bind_tcp(self) -> list[socket.socket]:
        admin = self._config.admin
        if admin.address is None:
            return []
        try:
            sockets = bind_tcp(admin.address)
        except AdminUnavailable as error:
            if "address" in admin.model_fields_set:
                raise
            log.warning(events.ADMIN_UNAVAILABLE, reason=str(error))
            return []
        for sock in sockets:
            self.addresses.append(host_port(*sock.getsockname()[:2]))
        return sockets

    def _bind_unix(self) -> list[socket.socket]:
        if self._path is None:
            return []
        try:
            sock = bind_unix(self._path)
        except AdminUnavailable as error:
            if self._config.admin.socket is not None:
                raise
            log.warning(events.ADMIN_UNAVAILABLE, reason=str(error))
            return []
        self._made = (self._path, _identity(self._path))
        self.addresses.append(f"unix:{self._path}")
        return [sock]

    async def stop(self) -> None:
        """Finish what is being answered, and be gone."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._made is not None:
            await asyncio.to_thread(_remove, *self._made)


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Take the socket away, unless somebody has put another in its place.

    One that stays, as on a disk that has become read-only, is replaced at the next start.
    """
    with contextlib.suppress(OSError):
        if _identity(path) == identity:
            path.unlink()
