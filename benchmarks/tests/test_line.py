"""A line of a chosen length between two programs."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.line import Line, PacketLine, distance

ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    while octets := connection.recv(65536):
        connection.sendall(octets)
    connection.close()
"""

pytestmark = pytest.mark.usefixtures("issued")  # the rig is built


@pytest.fixture(params=["packets", "proxy"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """40 ms of each kind; packets only where this machine can."""
    with distance(40, packets=request.param == "packets") as made:
        if request.param == "packets" and not isinstance(made, PacketLine):
            pytest.skip(made.note or "no packet delay")
        yield made


@contextmanager
def echo(line: Line) -> Iterator[tuple[str, int]]:
    """A program behind the line that sends everything back; yields where it is found."""
    command = line.beyond([sys.executable, "-c", ECHO, line.address])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield line.reach(int(process.stdout.readline()))
        finally:
            process.kill()


def test_a_round_trip_takes_as_long_as_it_should(line: Line) -> None:
    """Data needs a round trip; with packet delay, so does the connection."""
    with echo(line) as address:
        begun = time.monotonic()
        with socket.create_connection(address, timeout=10) as client:
            connected = time.monotonic()
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            answered = time.monotonic()

    assert 0.04 <= answered - connected < 0.2
    if isinstance(line, PacketLine):
        assert 0.04 <= connected - begun < 0.2
        assert line.note is None
    else:
        assert "packets are not" in (line.note or "")


def test_everything_arrives_in_order(line: Line) -> None:
    """Three megabytes there and back."""
    octets = b"".join(number.to_bytes(4, "big") for number in range(750_000))
    with echo(line) as address, socket.create_connection(address, timeout=20) as client:
        sender = threading.Thread(target=send_all, args=(client, octets))
        sender.start()
        received = bytearray()
        while piece := client.recv(1 << 20):
            received += piece
        sender.join()

    assert bytes(received) == octets


def send_all(client: socket.socket, octets: bytes) -> None:
    """And no more."""
    client.sendall(octets)
    client.shutdown(socket.SHUT_WR)


def test_the_distance_can_be_changed(line: Line) -> None:
    """From far to near, on an open connection."""
    with echo(line) as address, socket.create_connection(address, timeout=10) as client:
        line.set_rtt(0)
        begun = time.monotonic()
        for _ in range(5):
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"

    assert line.rtt_ms == 0
    assert time.monotonic() - begun < 0.1


def test_nothing_is_left_after_an_error() -> None:
    """The devices go with the program that holds them, and so does the namespace."""
    before = devices()
    with pytest.raises(RuntimeError, match="something went wrong"):
        fail_at_a_distance()

    assert devices() == before


def fail_at_a_distance() -> None:
    """With a device up."""
    before = devices()
    with distance(20) as line:
        if not isinstance(line, PacketLine):
            pytest.skip(line.note or "no packet delay")
        assert len(devices()) == len(before) + 1
        raise RuntimeError("something went wrong")


def devices() -> set[str]:
    """The network devices of this namespace."""
    return {path.name for path in Path("/sys/class/net").iterdir()}


def test_several_lines_can_be_up_at_a_time() -> None:
    """Each has addresses and a length of its own."""
    with distance(10) as one, distance(30) as other:
        if not isinstance(one, PacketLine):
            pytest.skip(one.note or "no packet delay")
        assert one.address != other.address
        assert [round(round_trip(each) * 100) for each in (one, other)] == [1, 3]


def round_trip(line: Line) -> float:
    """Seconds for a few octets there and back."""
    with echo(line) as address, socket.create_connection(address, timeout=10) as client:
        begun = time.monotonic()
        client.sendall(b"hello")
        client.recv(5)
        return time.monotonic() - begun


def test_no_distance_needs_no_line() -> None:
    """Loopback as it is."""
    with distance(0) as line:
        assert (line.address, line.beyond(["true"]), line.reach(25), line.note) == (
            *("127.0.0.1", ["true"], ("localhost", 25)),
            None,
        )
