"""Where the admin server is to be found: a TCP address, and a Unix socket that only root and the relay's user may use.

The commands find a running relay by the note in the lock of its spool, so the socket may be anywhere.
"""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from relay import sockets
from relay.config import Config, TcpAddress
from relay.sockets import Occupied

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


def bind_unix(path: Path) -> socket.socket:
    """A listening socket that only its owner can connect to; a dead relay's is replaced. Raises AdminUnavailable."""
    try:
        return sockets.bind_unix(path, backlog=_BACKLOG)
    except Occupied as occupied:
        if occupied.served:
            text = f"another process serves the admin socket {path}: give this relay an admin.socket of its own"
        else:
            text = f"{path} is in the way of the admin socket, and is no socket: move it, or set admin.socket"
        raise AdminUnavailable(text) from occupied
    except OSError as error:
        cause = error.strerror or str(error)
        raise AdminUnavailable(
            f"the admin socket {path} cannot be made: {cause}. Its directory must be there and writable for the relay's"
            " user; admin.socket names another place"
        ) from error


def bind_tcp(address: TcpAddress) -> list[socket.socket]:
    """Listening sockets, two for localhost where the host has IPv6; raises AdminUnavailable."""
    try:
        return sockets.bind_tcp([str(ip) for ip in address.addresses], address.port, backlog=_BACKLOG)
    except OSError as error:
        raise AdminUnavailable(
            f"admin.address: cannot bind {error.filename}: {error.strerror}. Stop what listens there, choose another"
            " address, or write null for nowhere"
        ) from error
