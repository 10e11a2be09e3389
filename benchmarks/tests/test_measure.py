"""A run from start to end: what a peer did is reported, and what it failed to do is not hidden."""

import sys
from pathlib import Path

import pytest

from benchmarks import measure as measuring
from benchmarks.certificates import Certificates, issue
from benchmarks.line import distance
from benchmarks.measure import Run, measure
from benchmarks.peers import PEERS, Peer
from benchmarks.place import PeerError, Place
from benchmarks.workloads import Workload, lone

FORGETFUL = """
import asyncio, sys
from aiosmtpd.smtp import SMTP

class Forgetful:
    async def handle_DATA(self, server, session, envelope):
        return "250 2.0.0 OK"

async def main():
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Forgetful(), hostname="test.example"), "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


def run(peer: Peer, workload: Workload, issued: Certificates, directory: Path, *, seconds: float = 0.3) -> Run:
    """One short run."""
    return measure(
        peer,
        workload,
        round_number=1,
        seconds=seconds,
        certificates=issued,
        directory=directory,
    )


@pytest.mark.parametrize("name", ["naive-new", "naive-pool", "naive-uvloop"])
def test_a_naive_relay_delivers_everything(name: str, issued: Certificates, directory: Path) -> None:
    """Nothing lost, nothing twice, over verified TLS, and the meters all show something."""

    result = run(PEERS[name], Workload(2000, clients=4), issued, directory)

    assert result.faults == []
    assert result.delivered == result.accepted > 0
    assert result.rate > 0
    assert 0 < result.cpu_ms < 100
    assert result.peak_rss > 10_000_000
    assert result.max_open <= 4
    assert (result.connections > result.delivered / 2) == (name == "naive-new")


def test_loss_is_found(issued: Certificates, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that says 250 and delivers nothing has lost every message."""
    monkeypatch.setattr(measuring, "ARRIVAL_PATIENCE", 0.1)
    forgetful = Peer("forgetful", "loses mail", lambda place: [sys.executable, "-c", FORGETFUL, str(place.port)])

    result = run(forgetful, Workload(2000, clients=2), issued, directory)

    assert result.delivered == 0
    assert result.faults == [f"{result.accepted} lost"]


def test_a_peer_that_cannot_start_shows_its_last_words(issued: Certificates, directory: Path) -> None:
    """The error has the exit status and the tail of the log."""

    def command(place: Place) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such key: listeners')"]

    with pytest.raises(PeerError, match=r"broken ended with 1 before it listened:\n +no such key: listeners"):
        run(Peer("broken", "does not start", command), Workload(2000, clients=1), issued, directory)


def test_a_certificate_that_does_not_verify_is_not_accepted(
    issued: Certificates, directory: Path, tmp_path: Path
) -> None:
    """The naive relay verifies: with another CA it delivers nothing, and the run ends while warming up."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    mixed = Certificates(ca=issue(stranger).ca, certificate=issued.certificate, key=issued.key)

    with pytest.raises(PeerError, match=r"451 4\.4\.1"):
        run(PEERS["naive-new"], Workload(2000, clients=1), mixed, directory)


@pytest.mark.parametrize("name", ["postfix", "postfix-reuse", "relay-spool", "relay-queue"])
def test_a_peer_that_queues_is_followed_to_the_last_arrival(name: str, directory: Path, tmp_path: Path) -> None:
    """What Postfix and our queue accept arrives at the sink, and the meters see the whole process tree."""
    peer = PEERS[name]
    if (reason := peer.missing()) is not None:
        pytest.skip(reason)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)  # Postfix has users of its own

    result = run(peer, Workload(2000, clients=4), issue(tmp_path), directory)

    assert result.faults == []
    assert result.delivered == result.accepted > 0
    assert 0 < result.cpu_ms < 100


def test_round_trips_at_a_distance_are_counted(directory: Path, tmp_path: Path, issued: Certificates) -> None:
    """The pooled naive relay waits four times for each message; the dial does not count."""
    workload = lone(10)
    with distance(workload.rtt_ms) as line:
        result = measure(
            PEERS["naive-pool"],
            workload,
            round_number=1,
            seconds=1,
            certificates=issue(tmp_path, line.address),
            directory=directory,
            line=line,
        )

    assert result.faults == []
    assert result.round_trips == 4
    assert result.p50_ms >= 4 * workload.rtt_ms
    assert not result.comparable
