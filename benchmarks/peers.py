"""The table of relays that are compared: how each is configured and started.

A new peer is one more row of `PEERS`: a function that is told its `Place`, writes whatever files it needs into the
place's directory and returns the command to run. The command stays in the foreground, listens on 127.0.0.1 at the
place's port, and sends everything to `localhost` at the upstream port, by verified STARTTLS and AUTH.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
READY_WITHIN = 15.0
STOPPED_WITHIN = 10.0
LOG_TAIL = 15


class PeerError(Exception):
    """A peer that did not start, or did not take mail; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run of a peer finds everything."""

    directory: Path
    port: int
    upstream_port: int
    ca_file: Path

    @property
    def log(self) -> Path:
        """What the peer printed."""
        return self.directory / "peer.log"


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of the table. `quick`: it takes part in the short comparison."""

    name: str
    description: str
    command: Callable[[Place], list[str]]
    quick: bool = True


def _naive(*options: str) -> Callable[[Place], list[str]]:
    """The command of the naive relay with these options."""

    def command(place: Place) -> list[str]:
        return [
            *(sys.executable, "-m", "benchmarks.naive_relay"),
            *("--port", str(place.port), "--upstream-port", str(place.upstream_port)),
            *("--ca-file", str(place.ca_file), *options),
        ]

    return command


def _relay(place: Place) -> list[str]:
    """Ours: one open listener on loopback, cut-through without a spool, logging on as in production."""
    configuration = {
        "hostname": "relay.example",
        "listeners": [
            {
                "name": "bench",
                "address": f"127.0.0.1:{place.port}",
                "tls": {"mode": "none"},
                "auth": "none",
                "networks": ["127.0.0.0/8"],
            }
        ],
        "upstream": {
            "host": "localhost",
            "ports": [place.upstream_port],
            "tls": {"ca_file": str(place.ca_file)},
        },
        "credentials": {"default": {"api_key": "secret"}},
        "spool": {"url": "none"},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "log": {"format": "json", "level": "info"},
    }
    file = place.directory / "relay.yaml"
    file.touch(mode=0o600)  # it holds a key, and the relay warns where others may read one
    file.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return [sys.executable, "-m", "relay", "serve", "--config", str(file)]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("naive-new", "aiosmtpd + aiosmtplib, a new upstream connection per message", _naive()),
        Peer("naive-pool", "aiosmtpd + aiosmtplib, a pool of up to 10 connections", _naive("--pool", "10")),
        Peer("naive-uvloop", "naive-pool on uvloop", _naive("--pool", "10", "--uvloop"), quick=False),
        Peer("relay", "sparkpost-relay, cut-through, no spool", _relay),
    )
}

BASELINES = ("naive-new", "naive-pool")
"""The peers that the others' results are given as ratios to."""


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(peer: Peer, place: Place) -> Iterator[int]:
    """Runs a peer in a session of its own and yields its process id once it greets; ends the whole session after."""
    # What configures a relay of the person who runs this must not configure the one that is measured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "SPARKPOST_"))}
    with place.log.open("wb") as log:
        process = subprocess.Popen(
            peer.command(place),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_greeting(process, peer, place)
        yield process.pid
    finally:
        _stop(process)


def log_tail(place: Place) -> str:
    """The last lines of the peer's log, indented, or a word that there are none."""
    lines = place.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"


def _await_greeting(process: subprocess.Popen[bytes], peer: Peer, place: Place) -> None:
    """Returns when the peer answers 220 on its port."""
    deadline = time.monotonic() + READY_WITHIN
    while True:
        if process.poll() is not None:
            raise PeerError(f"{peer.name} ended with {process.returncode} before it listened:\n{log_tail(place)}")
        try:
            with socket.create_connection(("127.0.0.1", place.port), timeout=1) as probe:
                if probe.recv(4).startswith(b"220"):
                    probe.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass  # not yet listening; the deadline below decides
        if time.monotonic() > deadline:
            raise PeerError(
                f"{peer.name} did not greet on 127.0.0.1:{place.port} within {READY_WITHIN:g} s:\n{log_tail(place)}"
            )
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the peer's session, and SIGKILL if it does not heed that."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, request)
        except ProcessLookupError:
            break  # the session is empty
        try:
            process.wait(STOPPED_WITHIN)
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
