"""Where the connections of a listener come in: IP addresses, a Unix socket, or sockets that systemd holds.

A door opens into listening sockets. Where it cannot, it says what is wrong and what would help.
"""

import contextlib
import errno
import grp
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog

from relay import sockets
from relay.config import Listener, SystemdAddress, TcpAddress, UnixAddress
from relay.ingress.activation import Activation, NotPassed
from relay.observe import log as events
from relay.sockets import Occupied

log = structlog.get_logger()

_BACKLOG: Final = 512
_SYSTEMD_BACKLOG: Final = 4096  # systemd.socket(5), Backlog=: it is to hold who comes while the relay is replaced

_NO_GROUP: Final = 2**32 - 1  # what chown(2) takes for "leave it as it is"

_TCP_REMEDIES: Final[Mapping[int, str]] = {
    errno.EADDRINUSE: "another program listens there: stop it or choose another port",
    errno.EADDRNOTAVAIL: "this host has no such address: choose one of its own, or 0.0.0.0 for all",
    errno.EINVAL: "a link-local address needs its interface: write it as [fe80::1%eth0]",
    socket.EAI_NONAME: "this host has no such interface: choose one of its own",
    errno.EAFNOSUPPORT: "this host has no IPv6: choose an IPv4 address",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE: choose a port above, or grant the capability",
}
_UNIX_REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOENT: "there is no directory {directory}: make it, writable for the relay's user",
    errno.ENOTDIR: "{directory} is no directory",
    errno.EACCES: "{directory} is not writable for the relay's user (user id {uid}): give it the right to, or choose "
    "another directory",
    errno.EROFS: "{directory} is on a read-only file system: choose another directory",
}


class BindError(Exception):
    """A listener's address cannot be bound; the text names it and the remedy."""


class Door(Protocol):
    """`backlog` is how many connections may wait to be accepted."""

    backlog: int

    def open(self) -> list[socket.socket]:
        """The listening sockets; raises BindError."""
        ...

    def close(self) -> None:
        """Its sockets are closed: take away what is left of them."""
        ...


def door_of(listener: Listener, activation: Activation) -> Door:
    """The door of a configured listener."""
    match listener.address:
        case TcpAddress():
            return TcpDoor(listener.name, listener.address)
        case UnixAddress():
            return UnixDoor(listener.name, Path(listener.address.path), listener.mode, listener.group)
        case SystemdAddress():
            return SystemdDoor(listener.name, listener.address.name, activation)


def place_of(sock: socket.socket) -> str:
    """Where a listening socket is to be found."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name if isinstance(name, str) else '@' + name[1:].decode(errors='replace')}"
    host, port = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)  # with its interface, if any
    return sockets.host_port(host, int(port))


class TcpDoor:
    """One socket an address; `localhost` and `*` are IPv4 alone on a host without IPv6."""

    def __init__(self, name: str, address: TcpAddress) -> None:
        self.backlog = _BACKLOG
        self._name = name
        self._address = address

    def open(self) -> list[socket.socket]:
        hosts = [str(address) for address in self._address.addresses]
        try:
            bound = sockets.bind_tcp(hosts, self._address.port, backlog=_BACKLOG)
        except OSError as error:
            remedy = _TCP_REMEDIES.get(error.errno or 0, error.strerror)
            raise BindError(f"listener {self._name}: cannot bind {error.filename}: {remedy}") from error
        if len(bound) < len(hosts):
            log.warning(events.LISTENER_NO_IPV6, listener=self._name, address=str(self._address))
        return bound

    def close(self) -> None:
        """Nothing is left of a TCP socket."""


class UnixDoor:
    """A socket at a path, which goes with the relay."""

    def __init__(self, name: str, path: Path, mode: int, group: str | None) -> None:
        self.backlog = _BACKLOG
        self._name = name
        self._path = path
        self._mode = mode
        self._group = group
        self._made: tuple[int, int] | None = None

    def open(self) -> list[socket.socket]:
        try:
            sock = sockets.bind_unix(self._path, backlog=_BACKLOG, mode=self._mode, group=self._gid())
            self._made = _file(self._path)
        except Occupied as occupied:
            if occupied.served:
                raise self._problem("another process listens there: stop it or choose another path") from occupied
            raise self._problem("something is there that is no socket: move it or choose another path") from occupied
        except OSError as error:
            raise self._problem(self._remedy(error)) from error
        return [sock]

    def close(self) -> None:
        """Take the socket away, unless another process has put its own there by now."""
        with contextlib.suppress(OSError):
            if self._made is not None and _file(self._path) == self._made:
                self._path.unlink()
        self._made = None

    def _gid(self) -> int | None:
        if self._group is None:
            return None
        try:
            gid = int(self._group) if self._group.isdecimal() else grp.getgrnam(self._group).gr_gid
        except KeyError:
            gid = _NO_GROUP
        if gid >= _NO_GROUP:
            raise self._problem(f"there is no group {self._group} on this host")
        return gid

    def _remedy(self, error: OSError) -> str:
        if self._group is not None and error.errno in (errno.EPERM, errno.EINVAL):
            return (
                f"the relay's user may not give it to group {self._group}: make it a member (systemd: "
                "SupplementaryGroups= and SystemCallFilter=@chown)"
            )
        text = _UNIX_REMEDIES.get(error.errno or 0, error.strerror or str(error))
        return text.format(directory=self._path.parent, uid=os.geteuid())

    def _problem(self, text: str) -> BindError:
        return BindError(f"listener {self._name}: cannot listen on unix:{self._path}: {text}")


def _file(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


class SystemdDoor:
    """Sockets that are there before the relay and after it."""

    def __init__(self, name: str, sockets_name: str, activation: Activation) -> None:
        self.backlog = _SYSTEMD_BACKLOG
        self._name = name
        self._sockets_name = sockets_name
        self._activation = activation

    def open(self) -> list[socket.socket]:
        try:
            return self._activation.take(self._sockets_name)
        except NotPassed as problem:
            raise BindError(f"listener {self._name}: {problem}") from problem

    def close(self) -> None:
        """They are systemd's."""
