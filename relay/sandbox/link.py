"""What a connection is, whatever is spoken on it: a transport, perhaps under TLS, a record, and an end.

A Protocol rather than a task with streams: answers are found and written in the very call that brought the octets.
Only the TLS handshake needs a task; every other wait is a timer, so that `abort` ends everything at once.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

from relay.sandbox.records import Direction, Exchange, Session
from relay.tls import serve_tls

_HANDSHAKE_TIMEOUT: Final = 30.0
_TLS_CLOSE_TIMEOUT: Final = 1.0  # a client that never answers close_notify is not waited for


class Link(asyncio.Protocol, ABC):
    """One connection with a client; calls `lost` at its end. `record`: whether the session keeps a transcript.

    Whoever speaks on it sets the transport and the session when it is made.
    """

    _session: Session

    def __init__(self, lost: Callable[["Link"], None], *, record: bool) -> None:
        self._lost = lost
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._aborted = False
        self.leaving = False  # the goodbye is said; what is left is TLS taking its leave
        self._timer: asyncio.TimerHandle | None = None  # of the answer in hand
        self._handshake: asyncio.Task[None] | None = None

    @property
    def takes_room(self) -> bool:
        """Connected, and not told goodbye: of a burst many are accepted before the first is connected."""
        return self._transport is not None and not self.leaving

    def abort(self) -> None:
        """Drop the connection at once, or as soon as it is made."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Nobody listens to a client that does not read its replies: they would wait in memory, as many as it likes."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._session.open = False
        if self._timer is not None:
            self._timer.cancel()
        self._lost(self)

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        """Octets after the handshake may come before its end is heard of: until `_secured` nothing may be answered."""
        assert self._transport is not None
        handshake = serve_tls(
            self._transport,
            self,
            context,
            handshake_seconds=_HANDSHAKE_TIMEOUT,
            close_seconds=_TLS_CLOSE_TIMEOUT,
        )
        self._handshake = self._loop.create_task(self._end_handshake(handshake))

    async def _end_handshake(self, handshake: Awaitable[asyncio.Transport | None]) -> None:
        try:
            secured = await handshake
        except OSError as error:  # asyncio does not report a connection lost in the handshake to the protocol
            self._session.tls_failure = str(error) or type(error).__name__
            self.connection_lost(error)
            return
        if secured is None or self._transport is None:  # aborted meanwhile
            self.connection_lost(None)
            return
        self._transport = secured
        self._secured(secured.get_extra_info("ssl_object").version())

    @abstractmethod
    def _secured(self, version: str) -> None:
        """TLS of this version has begun: go on."""

    def _note(self, direction: Direction, octets: bytes) -> None:
        if self._record:
            self._session.transcript.append(Exchange(direction, octets, self._loop.time()))
