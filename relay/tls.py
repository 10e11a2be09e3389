"""TLS that begins on a connection that is already there."""

import asyncio
import ssl
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


def serve_tls(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    handshake_seconds: float,
    close_seconds: float,
) -> Awaitable[asyncio.Transport | None]:
    """Be the server of TLS on a connection; awaited, the transport that is secured, or None if it was aborted.

    Raises OSError (ssl.SSLError is one) where the handshake fails. The connection is taken over when this returns, and
    not when the result is awaited for the first time: uvloop begins to read right behind `connection_made`, and a
    ClientHello that comes before `loop.start_tls` has been entered would be nobody's.
    """
    taking_over = asyncio.get_running_loop().start_tls(
        transport,
        protocol,
        context,
        server_side=True,
        ssl_handshake_timeout=handshake_seconds,
        ssl_shutdown_timeout=close_seconds,
    )
    return _secured(_rest(taking_over, taking_over.send(None)))


async def _secured(taken_over: Awaitable[asyncio.Transport | None]) -> asyncio.Transport | None:
    """The transport, if there is TLS on it: of a connection that ended before TLS had begun, uvloop gives one too."""
    transport = await taken_over
    return None if transport is None or transport.get_extra_info("ssl_object") is None else transport


@types.coroutine
def _rest(begun: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """What is left of a coroutine that was begun by hand, and waits for something."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = begun.throw(error)
            else:
                waits_for = begun.send(sent)
    except StopIteration as end:
        return end.value
