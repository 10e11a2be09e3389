"""Sockets that systemd has opened before the relay was started, and keeps open when it stops (sd_listen_fds(3)).

A client that connects while the relay is being replaced waits in the socket's backlog: nobody is refused. The protocol
is three environment variables and descriptors from 3 on, so any parent that speaks it will do.
"""

import os
import socket
import stat
from collections.abc import Mapping
from typing import Final

FIRST: Final = 3
PID, COUNT, NAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"
_NAMELESS: Final = "unknown"  # what sd_listen_fds_with_names(3) calls a socket when no names are passed
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


class NotPassed(Exception):
    """There is no usable socket of that name; the text says why, and what would help."""


class Activation:
    """What was passed, by name; several sockets may have one name. Each can be taken once."""

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        self._descriptors: dict[str, list[int]] = {}
        self._why_none = "none is passed: start it by a socket unit with this FileDescriptorName="
        count, meant_for = environ.get(COUNT, ""), environ.get(PID, "")
        if not count:
            return
        if meant_for != str(pid or os.getpid()):
            self._why_none = f"they were passed to process {meant_for}: have the script that starts the relay `exec` it"
            return
        if not count.isdecimal():
            self._why_none = f"{COUNT} is no number"
            return
        names = environ[NAMES].split(":") if environ.get(NAMES) else []
        for number in range(int(count)):
            descriptor = FIRST + number
            name = names[number] if number < len(names) else ""
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue  # the parent has promised more than it passed
            self._descriptors.setdefault(name or _NAMELESS, []).append(descriptor)

    @property
    def untaken(self) -> list[str]:
        """The names of sockets that nobody has taken: who connects to them waits for ever."""
        return sorted(self._descriptors)

    def take(self, name: str) -> list[socket.socket]:
        """The listening sockets of a name; raises NotPassed."""
        if name not in self._descriptors:
            others = f"passed are: {', '.join(self.untaken)}" if self._descriptors else self._why_none
            raise NotPassed(f"systemd passes no socket named {name}; {others}")
        return [_listening(descriptor, name) for descriptor in self._descriptors.pop(name)]


def _listening(descriptor: int, name: str) -> socket.socket:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise NotPassed(f"what systemd passes as {name} is no socket: write ListenStream= in the socket unit")
    sock = socket.socket(fileno=descriptor)
    if (
        sock.family not in _FAMILIES
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise NotPassed(
            f"what systemd passes as {name} takes no connections: write ListenStream= and Accept=no in the socket unit"
        )
    sock.setblocking(False)
    return sock
