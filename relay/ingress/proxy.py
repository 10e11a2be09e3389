"""The PROXY header that a load balancer sends before the client's own octets, versions 1 and 2 (HAProxy's
proxy-protocol.txt, 2020/03/05). Sans-IO: octets in, the client's address out.

The reader says how many octets it `wants`, and never wants one that is not the header's: what follows may be a
ClientHello, which is for TLS to read.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

from relay.config import IPAddress

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = 16  # octets of a version 2 header before the addresses
_LONGEST_V1: Final = 107  # octets, CRLF included
_FAMILIES: Final = {"TCP4": 4, "TCP6": 6}
_LENGTHS: Final = {0x11: 4, 0x21: 16}  # TCP over IPv4 and IPv6: octets of an address


class ProxyError(ValueError):
    """This is no PROXY header; the text says why."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a header says: whose connection it is; None if it is the proxy's own, or of a kind that has no IP address.

    A connection of the proxy's own is a health check (LOCAL), or comes from somewhere that it does not name (UNKNOWN).
    """

    client: tuple[IPAddress, int] | None


class HeaderReader:
    """Reads one header; `wants` octets next, at least one and never more."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self.wants = len(SIGNATURE)

    def feed(self, octets: bytes) -> Proxied | None:
        """Take at most `wants` octets. None until the header is complete; raises ProxyError."""
        assert len(octets) <= self.wants
        self._octets += octets
        self.wants -= len(octets)
        if SIGNATURE.startswith(bytes(self._octets[: len(SIGNATURE)])):
            return self._version_2()
        if not b"PROXY ".startswith(bytes(self._octets[:6])):
            raise ProxyError("it begins with something else")
        return self._version_1()

    def _version_1(self) -> Proxied | None:
        if self.wants:
            return None
        if self._octets.endswith(b"\r\n"):
            return _line(bytes(self._octets[:-2]))
        if len(self._octets) >= _LONGEST_V1 or b"\n" in self._octets:
            raise ProxyError("its line does not end as it should")
        self.wants = 1
        return None

    def _version_2(self) -> Proxied | None:
        if self.wants:
            return None
        known = len(self._octets)
        if known < _FIXED:
            self.wants = _FIXED - known
            return None
        self.wants = _FIXED + int.from_bytes(self._octets[14:16], "big") - known
        return None if self.wants else _binary(bytes(self._octets))


def _line(line: bytes) -> Proxied:
    """Version 1: `PROXY TCP4 source destination port port`, or `PROXY UNKNOWN` and anything."""
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Proxied(None)
    version = _FAMILIES.get(words[1])
    if version is None or len(words) != 6:
        raise ProxyError("its line cannot be understood")
    try:
        source, destination = map(ipaddress.ip_address, words[2:4])
    except ValueError:
        raise ProxyError("its addresses cannot be understood") from None
    if not source.version == destination.version == version:
        raise ProxyError("its addresses are of another family")
    port, _ = map(_port, words[4:])
    return Proxied((source, port))


def _port(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= 65_535):
        raise ProxyError("its ports cannot be understood")
    return int(word)


def _binary(header: bytes) -> Proxied:
    """Version 2: addresses and ports in network order; what stands behind them (TLVs) is not read."""
    version, command = header[12] >> 4, header[12] & 15
    if version != 2 or command > 1:
        raise ProxyError("its version or command is unknown")
    length = _LENGTHS.get(header[13])
    if command == 0 or length is None:  # LOCAL; UNSPEC, UDP, UNIX
        return Proxied(None)
    addresses = header[_FIXED:]
    if len(addresses) < 2 * length + 4:
        raise ProxyError("its addresses are cut short")
    return Proxied((ipaddress.ip_address(addresses[:length]), int.from_bytes(addresses[2 * length :][:2], "big")))
