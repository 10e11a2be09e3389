"""Asks a running relay over its admin server, by the Unix socket or by TCP. Imports little, so as to start quickly."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from relay.sockets import connect_unix, host_port

_PIECE: Final = 64 * 1024


class NoAnswer(Exception):
    """Nobody answers there; the text says where and why. `refused`: there may be somebody soon."""

    def __init__(self, where: str, error: Exception) -> None:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        super().__init__(f"{where} does not answer: {cause}")
        self.refused = isinstance(error, (ConnectionError, FileNotFoundError))
        self.forbidden = isinstance(error, PermissionError)


class Refused(Exception):
    """The relay says no: its status, what is wrong, and what would help."""

    def __init__(self, status: int, error: str, remedy: str) -> None:
        super().__init__(f"{error}: {remedy}" if remedy else error)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._patience = timeout

    def connect(self) -> None:
        self.sock = connect_unix(self._path, timeout=self._patience)


@dataclass(frozen=True, slots=True)
class AdminClient:
    """One relay to ask. `path` is its Unix socket; without one, `host` and `port`. `timeout` in seconds."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    timeout: float = 60.0

    def __str__(self) -> str:
        return host_port(self.host, self.port) if self.path is None else str(self.path)

    def ask(self, *path: str, **query: str | int | None) -> Any:
        """What a GET gives, read from JSON; raises NoAnswer, Refused."""
        with self._exchange("GET", path, query) as response:
            return self._json(response)

    def tell(self, *path: str, wish: Any = None) -> Any:
        """What a POST gives, with `wish` as JSON; raises NoAnswer, Refused."""
        with self._exchange("POST", path, {}, None if wish is None else json.dumps(wish).encode()) as response:
            return self._json(response)

    def read(self, *path: str) -> Iterator[bytes]:
        """The octets that a GET gives; raises NoAnswer, Refused."""
        with self._exchange("GET", path, {}) as response:
            left = response.length or 0
            while left:
                octets = response.read(min(_PIECE, left))
                if not octets:
                    raise NoAnswer(str(self), EOFError("it broke off half-way"))
                left -= len(octets)
                yield octets

    def verdict(self, *path: str) -> tuple[int, Any]:
        """Status and JSON of a GET, whatever the status is; raises NoAnswer."""
        try:
            return 200, self.ask(*path)
        except _Status as answer:
            return answer.status, answer.body

    @contextmanager
    def _exchange(
        self, method: str, path: tuple[str, ...], query: dict[str, str | int | None], body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        url = "/" + "/".join(quote(step, safe="") for step in path) + (f"?{asked}" if asked else "")
        connection = (
            _UnixConnection(self.path, self.timeout)
            if self.path is not None
            else http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        )
        try:
            connection.request(method, url, body, {"Connection": "close"})
            response = connection.getresponse()
            if response.status != 200:
                raise _Status(response.status, _parsed(response.read()))
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(self), error) from error
        finally:
            connection.close()

    def _json(self, response: http.client.HTTPResponse) -> Any:
        return _parsed(response.read())


class _Status(Refused):
    """An answer that is not 200, with all that it said."""

    def __init__(self, status: int, body: Any) -> None:
        told = body if isinstance(body, dict) else {}
        super().__init__(status, str(told.get("error", f"status {status}")), str(told.get("remedy", "")))
        self.body = body


def _parsed(octets: bytes) -> Any:
    try:
        return json.loads(octets)
    except ValueError as error:
        raise http.client.HTTPException("what it says is not JSON: it is no sparkpost-relay") from error
