"""HTTP/1.1 as far as an API needs it: one connection, its requests one after the other.

Plain asyncio, as the rest of the sandbox is. A request has its length, or comes in chunks; what is no HTTP is answered
400, and the connection ends.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Final, cast

from relay.sandbox.answers import Then
from relay.sandbox.api import Request, Response
from relay.sandbox.link import Link
from relay.sandbox.records import Direction, Session
from relay.sandbox.transmissions import ApiError

_MAX_HEADER: Final = 64 * 1024
_MAX_BODY: Final = 300_000_000  # octets of JSON in one call (fact sheet 3.2)
_MAX_DIGITS: Final = 20  # more are no number to Python from 4300 on
_REQUEST_LINE = re.compile(r"([A-Z]+) (/\S*) HTTP/1\.([01])")
_LENGTH = re.compile(r"[0-9]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r\n")
_BAD_REQUEST: Final = ApiError(400, None, "Bad Request")
_TOO_LARGE: Final = ApiError(413, None, "Request Entity Too Large")


class RequestReader:
    """Octets in, requests out. Raises ApiError for what is no request; then nothing more can be read."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._body = bytearray()
        self.keep_alive = True
        self.wants_go_on = False

    def feed(self, octets: bytes) -> None:
        self._input += octets

    def next(self) -> Request | None:
        """The next request that is complete; None until more octets have come."""
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None
        method, target, headers = self._head
        if not (self._chunks() if "transfer-encoding" in headers else self._counted(headers)):
            return None
        request = Request(method, target, headers, bytes(self._body))
        self._head = None
        self._body.clear()
        return request

    def _read_head(self) -> bool:
        end = self._input.find(b"\r\n\r\n")
        if end < 0 and len(self._input) <= _MAX_HEADER:
            return False
        if not 0 <= end <= _MAX_HEADER:
            raise _BAD_REQUEST
        first, *lines = self._input[:end].decode("latin-1").split("\r\n")
        del self._input[: end + 4]
        match = _REQUEST_LINE.fullmatch(first)
        if match is None or not all(":" in line for line in lines):
            raise _BAD_REQUEST
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        self._head = match[1], match[2], headers
        self.keep_alive = match[3] == "1" and headers.get("connection", "").lower() != "close"
        self.wants_go_on = headers.get("expect", "").lower() == "100-continue"
        return True

    def _counted(self, headers: dict[str, str]) -> bool:
        length = headers.get("content-length", "0")
        if _LENGTH.fullmatch(length) is None:
            raise _BAD_REQUEST
        if len(length) > _MAX_DIGITS or int(length) > _MAX_BODY:
            raise _TOO_LARGE
        if len(self._input) < int(length):
            return False
        self._body += self._input[: int(length)]
        del self._input[: int(length)]
        return True

    def _chunks(self) -> bool:
        while match := _CHUNK.match(self._input):
            size = int(match[1], 16)
            if len(self._body) + size > _MAX_BODY:
                raise _TOO_LARGE
            end = match.end() + size
            if len(self._input) < end + 2:
                return False
            self._body += self._input[match.end() : end]
            del self._input[: end + 2]  # the line end of the chunk, or the empty line that follows the last one
            if size == 0:
                return True
        if len(self._input) > _MAX_HEADER:
            raise _BAD_REQUEST
        return False


class HttpConnection(Link):
    """One connection, from its TLS handshake on.

    welcome: called when connected; the record to keep. answer: what is answered to a request. lost: called at the end.
    """

    def __init__(
        self,
        welcome: Callable[[asyncio.Transport], Session],
        answer: Callable[[Request, Session], Response],
        lost: Callable[[Link], None],
        context: ssl.SSLContext | None,
        *,
        record: bool,
    ) -> None:
        super().__init__(lost, record=record)
        self._welcome = welcome
        self._answer = answer
        self._context = context
        self._reader = RequestReader()
        self._busy = False

    # -- called by the transport ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._session = self._welcome(self._transport)
        if self._aborted:
            self._transport.abort()
        elif self._context is not None:
            self._busy = True
            self._begin_tls(self._context)

    def _secured(self, version: str) -> None:
        self._session.tls = version
        self._busy = False
        self._advance()

    def data_received(self, data: bytes) -> None:
        self._note(Direction.CLIENT, data)
        if not self.leaving:
            self._reader.feed(data)
            self._advance()

    # -- answering -----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Answer the requests that have come, one at a time."""
        while not self._busy and not self.leaving:
            try:
                request = self._reader.next()
            except ApiError as error:
                self._say(Response(error.status, error.document(), then=Then.CLOSE))
                return
            if request is None:
                if self._reader.wants_go_on:
                    self._reader.wants_go_on = False
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            response = self._answer(request, self._session)
            to_head = request.method == "HEAD"
            if response.delay:
                self._busy = True
                self._timer = self._loop.call_later(response.delay, self._say_late, response, to_head)
            else:
                self._say(response, to_head)

    def _say_late(self, response: Response, to_head: bool) -> None:
        self._busy = False
        self._say(response, to_head)
        self._advance()

    def _say(self, response: Response, to_head: bool = False) -> None:
        assert self._transport is not None  # timers end with the connection
        close = response.then is Then.CLOSE or not self._reader.keep_alive
        self._write(response.wire(close=close, to_head=to_head))
        if response.then is Then.DROP:
            self._transport.abort()
        elif response.then is Then.HANG:
            self.leaving = True
        elif close:
            self.leaving = True
            self._transport.close()

    def _write(self, octets: bytes) -> None:
        assert self._transport is not None
        if octets:
            self._note(Direction.SERVER, octets)
            self._transport.write(octets)
