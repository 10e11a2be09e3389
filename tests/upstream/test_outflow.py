"""Content at the pace of a peer: what is slow goes on, what stands still does not."""

import asyncio
import contextlib
import socket

import pytest

from relay.sockets import acknowledged
from relay.upstream.outflow import Outflow

PIECES = [b"x" * 65536] * 8
STILL = 0.5  # seconds
MOMENT = 0.02


class Pausing(asyncio.Protocol):
    """The sender's protocol."""

    outflow: Outflow

    def connection_made(self, transport):
        self.transport = transport
        self.lost = asyncio.Event()
        transport.set_write_buffer_limits(high=262_144, low=16_384)
        self.outflow = Outflow(transport)

    def pause_writing(self):
        self.outflow.pause()

    def resume_writing(self):
        self.outflow.resume()

    def connection_lost(self, error):
        self.lost.set()


@contextlib.asynccontextmanager
async def pair():
    """A sender's protocol, and the socket at the other end, which has room for little."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        near.connect(server.getsockname())
        far, _ = server.accept()
        transport, protocol = await loop.create_connection(Pausing, sock=near)
        with far:
            far.setblocking(False)
            yield protocol, far
        transport.abort()


async def test_a_slow_peer_is_waited_for():
    """It takes so little at a time that way is made for more only after several times the limit."""
    taken = 0

    async def read(sock):
        nonlocal taken
        while True:
            with contextlib.suppress(BlockingIOError):
                taken += len(sock.recv(4096))
            await asyncio.sleep(MOMENT)

    async with pair() as (protocol, far):
        reading = asyncio.create_task(read(far))
        last = await protocol.outflow.pour(b"first", iter(PIECES), STILL)
        reading.cancel()

    assert last == PIECES[-1]
    assert taken > 65536


async def test_a_peer_that_takes_nothing_is_given_up():
    """However much it took before."""
    async with pair() as (protocol, _):
        with pytest.raises(TimeoutError):
            await protocol.outflow.pour(b"first", iter(PIECES), 0.05)


async def test_nothing_is_read_any_more_once_it_is_over():
    """The pieces may be in a file that has been closed."""

    def pieces():
        yield b""
        protocol.outflow.stop()
        yield b""
        raise AssertionError("read on")

    async with pair() as (protocol, _):
        assert await protocol.outflow.pour(b"first", pieces(), STILL) is None


async def test_what_was_acknowledged_is_counted():
    """Octets, since the connection began."""
    loop = asyncio.get_running_loop()
    near, far = socket.socket(), socket.create_server(("127.0.0.1", 0))
    with near, far:
        near.connect(far.getsockname())
        before = acknowledged(near)
        near.sendall(b"x" * 1000)
        there, _ = far.accept()
        with there:
            there.setblocking(False)
            received = b""
            while len(received) < 1000:
                received += await loop.sock_recv(there, 1000)
            there.sendall(b"y")  # the acknowledgement comes with it at the latest
            near.recv(1)

        assert acknowledged(near) - before == 1000


async def test_a_connection_that_is_closed_has_acknowledged_nothing():
    """Whatever stands for its socket then: with TLS there is none, and uvloop's has no number any more."""
    async with pair() as (protocol, _):
        sock = protocol.transport.get_extra_info("socket")
        protocol.transport.abort()
        await protocol.lost.wait()
        plain = socket.socket()
        plain.close()

        assert [acknowledged(one) for one in (sock, plain, None)] == [0, 0, 0]


async def test_a_connection_that_ends_as_the_time_is_over_did_not_stand_still():
    """Both in one turn of the loop."""
    async with pair() as (protocol, _):
        protocol.outflow.pause()
        pouring = asyncio.create_task(protocol.outflow.pour(b"first", iter(PIECES), 0))
        await asyncio.sleep(0)
        protocol.outflow.stop()

        assert await pouring is None
