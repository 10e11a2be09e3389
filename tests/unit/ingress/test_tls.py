"""TLS on a connection that is already there, with clients that speak at once."""

import asyncio
import contextlib
import socket
import ssl

import pytest
import trustme

from relay.tls import serve_tls

SECONDS = {"handshake_seconds": 5.0, "close_seconds": 5.0}


class Echo(asyncio.Protocol):
    """Begins TLS as soon as it is connected, and says back what it hears."""

    def __init__(self, context, begun):
        self.context = context
        self.begun = begun
        self.secured = None

    def connection_made(self, transport):
        if self.secured is None:
            handshake = serve_tls(transport, self, self.context, **SECONDS)
            self.secured = asyncio.ensure_future(handshake)
            self.begun.put_nowait(self.secured)

    def data_received(self, data):
        self.secured.add_done_callback(lambda secured: secured.result().write(data))


@pytest.fixture
def contexts():
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@contextlib.asynccontextmanager
async def listening(context):
    """The port of a server, and the handshakes that it has begun."""
    begun = asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(lambda: Echo(context, begun), "127.0.0.1", 0)
    try:
        async with asyncio.timeout(10):
            yield server.sockets[0].getsockname()[1], begun
    finally:
        server.close()


async def test_a_client_hello_that_comes_at_once_is_heard(contexts):
    """It is there before the server's loop has come round again; many times, as it was a race that it lost."""
    async with listening(contexts[0]) as (port, _):
        for _ in range(40):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=contexts[1], server_hostname="localhost"
            )
            writer.write(b"x\n")
            assert await reader.readline() == b"x\n"
            writer.close()


async def test_a_handshake_that_fails_is_an_error(contexts):
    """Octets that are no ClientHello."""
    async with listening(contexts[0]) as (port, begun):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"EHLO x\r\n" * 10)
        handshake = await begun.get()
        with pytest.raises(ssl.SSLError):
            await handshake
        writer.close()


async def test_a_client_that_goes_at_once_leaves_no_transport(contexts):
    """Its end is there before TLS has begun; many times, as it may come a little later too, and is an error then."""
    async with listening(contexts[0]) as (port, begun):
        for _ in range(40):
            socket.create_connection(("127.0.0.1", port)).close()
            handshake = await begun.get()
            with contextlib.suppress(ConnectionError):
                assert await handshake is None


async def test_who_waits_for_it_may_be_stopped(contexts):
    """A cancelled wait ends the handshake, and leaves nothing behind."""
    async with listening(contexts[0]) as (port, begun):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        handshake = await begun.get()
        handshake.cancel()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert handshake.cancelled()
        writer.close()
