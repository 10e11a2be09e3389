"""Where to listen: IP addresses and a port, a Unix socket, or sockets that systemd holds. Text in, values out.

Every parser raises ValueError with the remedy in its text. Nothing here asks the network: `localhost` and `*` are the
names that may be listened on, and they stay names, because each stands for two addresses.
"""

import ipaddress
import os.path
import re
from dataclasses import dataclass
from typing import Final

from relay.config.addresses import LOCALHOST, IPAddress

EVERYWHERE: Final = "*"
_NAMES: Final[dict[str, tuple[IPAddress, ...]]] = {
    LOCALHOST: (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")),
    EVERYWHERE: (ipaddress.IPv4Address("0.0.0.0"), ipaddress.IPv6Address("::")),  # noqa: S104  what `*` means
}
LONGEST_FILE_NAME: Final = 80  # octets; a socket's name has 108 (unix(7)), and one far down is reached by its directory

_TCP = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_TCP_REMEDY: Final = "write host:port, such as localhost:2525, 0.0.0.0:2525 or [::1]:2525"
_UNIX, _SYSTEMD = "unix:", "fd:"
_UNIX_REMEDY: Final = "write an absolute path, such as unix:/run/sparkpost-relay/smtp.sock"
_DESCRIPTOR_NAME = re.compile(r"[!-9;-~]{1,255}")  # systemd.socket(5), FileDescriptorName=
_MODE = re.compile(r"0?[0-7]{3}")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """An address to listen on: `host` is a bare IP address, `localhost` or `*`; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The IP addresses it stands for: two for `localhost` and `*`, else one."""
        return _NAMES.get(self.host) or (ipaddress.ip_address(self.host),)

    @property
    def loopback(self) -> bool:
        """True if nobody off this host can reach it."""
        return all(address.is_loopback for address in self.addresses)

    def clashes(self, other: "TcpAddress") -> bool:
        """True if the two cannot be bound at once. An IPv6 wildcard takes IPv6 only."""
        if self.port != other.port or self.port == 0:
            return False
        return any(_overlap(mine, theirs) for mine in self.addresses for theirs in other.addresses)

    @classmethod
    def parse(cls, text: object) -> "TcpAddress":
        """Read `host:port`; raises ValueError."""
        match = _TCP.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r} is not an address to listen on: {_TCP_REMEDY}")
        host, port = match["v6"] or match["host"], int(match["port"])
        if not host:
            raise ValueError(
                f"{text!r} has no host: write localhost:{port} for this host, 0.0.0.0:{port} for all of IPv4"
            )
        if port > 65535:
            raise ValueError(f"{text!r} has no valid port: the highest is 65535")
        if host.lower() in _NAMES:
            return cls(host.lower(), port)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(
                f"{text!r} has neither an IP address nor localhost before its port: {_TCP_REMEDY}"
            ) from None
        if (address.version == 6) != (match["v6"] is not None):
            raise ValueError(f"{text!r}: brackets are for IPv6: {_TCP_REMEDY}")
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            raise ValueError(f"{text!r} is an IPv4 address: write {address.ipv4_mapped}:{port}")
        return cls(str(address), port)


def _overlap(one: IPAddress, other: IPAddress) -> bool:
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket that the relay makes at a path."""

    path: str

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"

    @classmethod
    def parse(cls, text: str) -> "UnixAddress":
        """Read `unix:/path`; raises ValueError."""
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or path.endswith("/") or not path.isprintable():
            raise ValueError(f"{text!r} is not the path of a socket: {_UNIX_REMEDY}")
        if len(os.path.basename(path).encode()) > LONGEST_FILE_NAME:
            raise ValueError(f"{text!r}: the name of its file is longer than {LONGEST_FILE_NAME} octets: shorten it")
        return cls(path)


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """Sockets that systemd has opened and passes by this name: `FileDescriptorName=` of a socket unit."""

    name: str

    def __str__(self) -> str:
        return f"{_SYSTEMD}{self.name}"

    @classmethod
    def parse(cls, text: str) -> "SystemdAddress":
        """Read `fd:NAME`; raises ValueError."""
        name = text.removeprefix(_SYSTEMD)
        if not _DESCRIPTOR_NAME.fullmatch(name):
            raise ValueError(
                f"{text!r} names no socket of systemd's: write fd: and the FileDescriptorName= of the socket unit, "
                "such as fd:smtp"
            )
        return cls(name)


ListenerAddress = TcpAddress | UnixAddress | SystemdAddress


def parse_listener_address(text: object) -> ListenerAddress:
    """Read where a listener listens; raises ValueError."""
    if isinstance(text, str):
        if text.startswith(_UNIX):
            return UnixAddress.parse(text)
        if text.startswith(_SYSTEMD):
            return SystemdAddress.parse(text)
        if text.startswith("/"):
            raise ValueError(f"{text!r} is a path: write unix:{text} for a Unix socket")
    return TcpAddress.parse(text)


def clash(one: ListenerAddress, other: ListenerAddress) -> bool:
    """True if two listeners cannot have these addresses at once."""
    match one, other:
        case TcpAddress(), TcpAddress():
            return one.clashes(other)
        case UnixAddress(), UnixAddress():
            return os.path.normpath(one.path) == os.path.normpath(other.path)
        case _:
            return one == other


def parse_mode(value: object) -> int:
    """The permissions of a socket, in octal as chmod has them; raises ValueError."""
    written = str(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not _MODE.fullmatch(written):
        raise ValueError(f'{value!r} is not the mode of a socket: write it as chmod does, such as "0660"')
    mode = int(written, 8)
    if not mode & 0o222:
        raise ValueError(f'{value!r} lets nobody connect, as that needs the right to write: write "0660" or "0666"')
    return mode


def format_mode(mode: int) -> str:
    """A mode as it is written."""
    return f"{mode:04o}"
