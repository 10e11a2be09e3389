"""Where the admin server is to be found: a TCP address, and a Unix socket that only root and the relay's user may use.

The commands find a running relay by the note in the lock of its spool, so the socket may be anywhere. A name that is
too long for the kernel (108 octets, unix(7)) is reached through its directory.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from relay.config import Config, TcpAddress

SHORT: Final = 100  # octets of a socket's name that always fit
RUNTIME_DIRECTORY: Final = "RUNTIME_DIRECTORY"  # systemd.exec(5)
SQLITE: Final = "sqlite:"
_BACKLOG: Final = 64


class AdminUnavailable(Exception):
    """The admin server cannot be where it should be; the text names the place and the remedy."""


def database_of(config: Config) -> Path | None:
    """The spool's file; None without a spool."""
    return Path(config.spool.url.removeprefix(SQLITE)).absolute() if config.spool.url.startswith(SQLITE) else None


def socket_path(config: Config, environ: Mapping[str, str]) -> Path | None:
    """Where the Unix socket belongs: as configured, else in systemd's runtime directory, else beside the spool."""
    if config.admin.socket is not None:
        return Path(config.admin.socket).absolute()
    directory = environ.get(RUNTIME_DIRECTORY, "").partition(":")[0]
    if directory:
        return Path(directory, "admin.sock")
    database = database_of(config)
    return None if database is None else database.with_name(database.name + ".sock")


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


def bind_unix(path: Path) -> socket.socket:
    """A listening socket that only its owner can connect to; a dead relay's is replaced. Raises AdminUnavailable."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        # Before bind, the mode of the socket is that of the file to come: it is never open to others, not even shortly.
        os.fchmod(sock.fileno(), 0o600)
        with short_name(path) as name:
            sock.bind(name)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        cause = error.strerror or str(error)
        raise AdminUnavailable(
            f"the admin socket {path} cannot be made: {cause}. Its directory must be there and writable for the relay's"
            " user; admin.socket names another place"
        ) from error
    except AdminUnavailable:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Take away what a dead relay has left; raises AdminUnavailable for what is not that, or OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminUnavailable(
            f"{path} is in the way of the admin socket, and is no socket: move it, or set admin.socket"
        )
    try:
        connect_unix(path, timeout=1.0).close()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except FileNotFoundError:
        return
    raise AdminUnavailable(
        f"another process serves the admin socket {path}: give this relay an admin.socket of its own"
    )


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


def bind_tcp(address: TcpAddress) -> list[socket.socket]:
    """Listening sockets, two for localhost where the host has IPv6; raises AdminUnavailable."""
    sockets: list[socket.socket] = []
    port = address.port
    for ip in address.addresses:
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(ip), port))
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if sockets and family == socket.AF_INET6:
                continue  # a host without IPv6, whose localhost is 127.0.0.1 alone
            raise AdminUnavailable(
                f"admin.address: cannot bind {ip} port {port}: {error.strerror}. Stop what listens there, choose"
                " another address, or write null for nowhere"
            ) from error
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)
