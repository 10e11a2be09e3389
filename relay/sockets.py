"""Listening sockets on IP addresses and on paths, and what the kernel knows of the other end of a connection.

What cannot be had is an OSError, with `filename` for the address or path in question; whoever asked for it knows the
remedy. A path that is too long for the kernel (108 octets, unix(7)) is reached through its directory.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

SHORT: Final = 100  # octets of a socket's name that always fit
PRIVATE: Final = 0o600
_BYTES_ACKED: Final = 120  # where it stands in the kernel's struct tcp_info, which only ever grows at its end
_ATTEMPTS: Final = 20  # at a port of the system's choice that is free by every address


class Occupied(Exception):
    """What stands at a socket's path must stay: `served` if somebody listens there, else it is no socket at all."""

    def __init__(self, path: Path, *, served: bool) -> None:
        super().__init__(f"{path} is {'served by another process' if served else 'no socket'}")
        self.served = served


class _Connected(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


# -- IP addresses -----------------------------------------------------------------------------------------------------


def host_port(host: str, port: int) -> str:
    """Both as people write them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_tcp(hosts: Sequence[str], port: int, *, backlog: int) -> list[socket.socket]:
    """A listening socket for each IP address, all on one port; port 0 is one that is free by all of them.

    With more than one address, those of IPv6 are left out on a host that has none. Raises OSError.
    """
    attempts = _ATTEMPTS if port == 0 and len(hosts) > 1 else 1
    while True:
        attempts -= 1
        try:
            return _bind_all(hosts, port, backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not attempts:
                raise


def _bind_all(hosts: Sequence[str], port: int, backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for host in hosts:
        try:
            sockets.append(_bind(host, port, backlog))
        except OSError as error:
            if ":" in host and len(hosts) > 1 and not ipv6_exists():
                continue
            for sock in sockets:
                sock.close()
            raise OSError(error.errno, error.strerror or str(error), f"{host} port {port}") from error
        port = sockets[0].getsockname()[1]
    return sockets


def _bind(host: str, port: int, backlog: int) -> socket.socket:
    """An IPv6 address takes IPv6 only, so that IPv4 may stand beside it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        # A link-local address is bound with the number of its interface, which `fe80::1%eth0` alone does not give.
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        sock.bind(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=numeric)[0][4])
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def ipv6_exists() -> bool:
    """Has this host IPv6, if only its loopback?"""
    try:
        _bind("::1", 0, 1).close()
    except OSError:
        return False
    return True


# -- paths ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for a socket's path that the kernel takes, for as long as the context lasts; raises OSError."""
    if len(os.fsencode(path)) <= SHORT:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def bind_unix(path: Path, *, backlog: int, mode: int = PRIVATE, group: int | None = None) -> socket.socket:
    """A listening socket at a path; one that nobody listens on any more is replaced. Raises Occupied or OSError.

    Nobody whom `mode` and `group` do not let in can connect, not even for a moment: both are set before it listens.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        os.fchmod(sock.fileno(), PRIVATE)  # the mode of the file to come, less the umask
        with short_name(path) as name:
            sock.bind(name)
        try:
            if group is not None:
                os.chown(path, -1, group, follow_symlinks=False)
            if mode != PRIVATE:
                path.chmod(mode)
            sock.listen(backlog)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Take away what a dead process has left; raises Occupied for what is not that, or OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Occupied(path, served=False)
    try:
        connect_unix(path, timeout=1.0).close()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except FileNotFoundError:
        return
    except (TimeoutError, BlockingIOError):
        pass  # so many are waiting for it that there is no room for us
    raise Occupied(path, served=True)


def connect_unix(path: Path, *, timeout: float) -> socket.socket:
    """A connection to a Unix socket; raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        with short_name(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def peer_uid(sock: _Connected) -> int:
    """The user at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def acknowledged(sock: _Connected | None) -> int:
    """How many octets the other end of a TCP connection has acknowledged so far (TCP_INFO, tcp(7)).

    0 of a connection that is closed, and where the system does not count them: Linux does, since 4.2.
    """
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
    except (OSError, ValueError):  # the latter is what uvloop's sockets raise when they are closed
        return 0
    return int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0]) if len(info) == _BYTES_ACKED + 8 else 0
