"""The table of relays that are compared, and how one is started.

A new peer is one more row of `PEERS`: a function that is told its `Place`, writes whatever files it needs into the
place's directory and returns the command to run. The command stays in the foreground, listens on 127.0.0.1 at the
place's port, and sends everything to the upstream host and port, by verified STARTTLS (the certificate is for
`localhost`, wherever it is) and AUTH.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import naive, ours, postfix
from benchmarks.place import ROOT, PeerError, Place, log_tail

READY_WITHIN = 15.0
STOPPED_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of the table.

    `quick`: it takes part in the short comparison. `durable`: its 250 means that the message is on disk. `missing` says
    why it cannot run here, if it cannot.
    """

    name: str
    description: str
    command: Callable[[Place], list[str]]
    quick: bool = True
    durable: bool = False
    missing: Callable[[], str | None] = lambda: None


PEERS = {
    peer.name: peer
    for peer in (
        Peer("naive-new", "aiosmtpd + aiosmtplib, a new upstream connection per message", naive.command()),
        Peer("naive-pool", "aiosmtpd + aiosmtplib, a pool of up to 10 connections", naive.command("--pool", "10")),
        Peer("naive-uvloop", "naive-pool on uvloop", naive.command("--pool", "10", "--uvloop"), quick=False),
        Peer(
            "postfix",
            "Postfix at its defaults: a new TLS connection per message, up to 20",
            postfix.command(reuse=False),
            durable=True,
            missing=postfix.missing,
        ),
        Peer(
            "postfix-reuse",
            "Postfix with smtp_tls_connection_reuse=yes, up to 20 connections",
            postfix.command(reuse=True),
            durable=True,
            missing=postfix.missing,
        ),
        Peer("relay", "sparkpost-relay, cut-through, no spool", ours.command(spool=False)),
        Peer("relay-spool", "sparkpost-relay, cut-through, SQLite spool", ours.command()),
        Peer("relay-queue", "sparkpost-relay, delivery: queue", ours.command(delivery="queue"), durable=True),
    )
}

BASELINES = ("naive-new", "naive-pool", "postfix-reuse")
"""The peers that the others' results are given as ratios to."""


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
