"""Where the sandbox listens, and as what: any number of ports for SMTP, and one for the HTTP API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from relay.sandbox.api import HTTP_MODES
from relay.sandbox.modes import MODES


@dataclass(frozen=True, slots=True)
class Port:
    """Where to listen, and as what: `mode` is a key of `MODES`; `delay`, if given, replaces the delay of the mode."""

    host: str = "127.0.0.1"
    port: int = 0
    mode: str = "normal"
    delay: float | None = None

    def __post_init__(self) -> None:
        _check(self.port, self.mode, MODES, "port mode")

    @classmethod
    def parse(cls, text: str) -> Self:
        """A port from `HOST:PORT` or `HOST:PORT=MODE`; an IPv6 address stands in brackets. Raises ValueError."""
        return cls(*_read(text, example="127.0.0.1:2587=silent"))


@dataclass(frozen=True, slots=True)
class HttpPort:
    """Where to listen for HTTP, and as what: `mode` is a key of `HTTP_MODES`."""

    host: str = "127.0.0.1"
    port: int = 0
    mode: str = "normal"
    tls: bool = True

    def __post_init__(self) -> None:
        _check(self.port, self.mode, HTTP_MODES, "HTTP mode")

    @classmethod
    def parse(cls, text: str) -> Self:
        """As `Port.parse`."""
        return cls(*_read(text, example="127.0.0.1:8443=503"))


def _check(port: int, mode: str, modes: Mapping[str, object], kind: str) -> None:
    if mode not in modes:
        raise ValueError(f"there is no {kind} {mode!r}; there are: {', '.join(sorted(modes))}")
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port: 1 to 65535, or 0 for any that is free")


def _read(text: str, *, example: str) -> tuple[str, int, str]:
    """Host, port and mode."""
    address, _, mode = text.partition("=")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not HOST:PORT or HOST:PORT=MODE, for example {example}")
    return host.strip("[]"), int(port), mode or "normal"
