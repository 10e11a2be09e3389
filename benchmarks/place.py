"""Where one run of a peer finds everything, and what is said when it does not run."""

import socket
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOG_TAIL = 15


class PeerError(Exception):
    """A peer that did not start, or did not take mail; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run of a peer finds everything. Its directory exists, and other users may pass through it."""

    directory: Path
    port: int
    upstream_host: str
    upstream_port: int
    ca_file: Path

    @property
    def log(self) -> Path:
        """What the peer printed."""
        return self.directory / "peer.log"


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def log_tail(place: Place) -> str:
    """The last lines of the peer's log, indented, or a word that there are none."""
    lines = place.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"
