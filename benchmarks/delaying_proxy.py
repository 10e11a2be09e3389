"""Holds data back on its way to a port of this host and back: distance for those who may not make network devices.

Prints {"port": N}. Each line on standard input is the one-way delay in milliseconds from now on, and is answered by
{"delay": N}; the end of the input is the end. Connections are made at once, so a dial costs less than it should.
"""

import argparse
import asyncio
import json
import sys
from contextlib import suppress

CHUNK = 65536


class Proxy:
    """All connections, and the delay that they share."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self.delay = 0.0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its start to its end."""
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, far_writer))
            group.create_task(self._carry(far_reader, writer))
        for each in (writer, far_writer):
            each.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction. Every piece leaves a delay after it came, and so does the end, which is only its own."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            while True:
                try:
                    piece = await reader.read(CHUNK)
                except OSError:
                    piece = b""
                pieces.put_nowait((loop.time(), piece))
                if not piece:
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(take())
            while True:
                came, piece = await pieces.get()
                await asyncio.sleep(max(0.0, came + self.delay - loop.time()))
                with suppress(OSError):  # who has gone is found out in the other direction too
                    if piece:
                        writer.write(piece)
                        await writer.drain()
                    else:
                        writer.write_eof()
                if not piece:
                    return


async def serve(upstream_port: int) -> None:
    """Proxies until standard input ends."""
    proxy = Proxy(upstream_port)
    server = await asyncio.start_server(proxy.connect, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := await orders.readline():
        proxy.delay = float(order) / 1000
        print(json.dumps({"delay": proxy.delay * 1000}), flush=True)


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--upstream-port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().upstream_port))


if __name__ == "__main__":
    main()
