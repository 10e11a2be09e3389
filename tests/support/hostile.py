"""What a bad afternoon brings, as a program of its own: `python -m tests.support.hostile PORT SECONDS`.

All at once, each from addresses of its own, until the time is over: connections that are opened and left, clients that
send an octet now and then, content and commands without a line end, and guesses at a password. Prints what was done.
"""

import argparse
import asyncio
import base64
import contextlib
import json
from collections import Counter

CONNECTIONS = 10_000
AT_ONCE = 300  # opened connections that are left; each address may have a hundred
LORISES = 100
ENDLESS = 150_000_000  # octets without a line end, once as a command and once as content
GUESSERS = 10

ENVELOPE = b"HELO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
done: Counter[str] = Counter()


async def connect(port: int, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


async def open_and_leave(port: int) -> None:
    """The oldest goes when there are too many; nothing is ever said or read."""
    left: list[asyncio.StreamWriter] = []
    for number in range(CONNECTIONS):
        with contextlib.suppress(OSError):
            _, writer = await connect(port, f"127.0.1.{1 + number % 4}")
            left.append(writer)
            done["connections"] += 1
        if len(left) > AT_ONCE:
            left.pop(0).transport.abort()
        await asyncio.sleep(0.001)
    for writer in left:
        writer.transport.abort()


async def trickle(port: int, before: bytes) -> None:
    """An octet now and then, and anew when hung up on."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await connect(port, "127.0.2.1")
            done["loris sessions"] += 1
            writer.write(before)
            while not reader.at_eof() and not writer.transport.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.2)
            writer.transport.abort()
        await asyncio.sleep(0.2)


async def endless(port: int, before: bytes) -> None:
    """Octets without a line end, as fast as they are taken."""
    with contextlib.suppress(OSError):
        _, writer = await connect(port, "127.0.3.1")
        writer.write(before)
        for _ in range(ENDLESS // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
            done["octets without a line end"] += 65536
        writer.transport.abort()


async def guess(port: int, number: int) -> None:
    """One password after the other."""
    for attempt in range(1_000_000):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await connect(port, f"127.0.4.{number}")
            password = base64.b64encode(b"\0app\0%d" % attempt)
            writer.write(b"EHLO c\r\n" + b"AUTH PLAIN %b\r\n" % password * 3)
            await reader.read()
            done["guesses"] += 1
            writer.transport.abort()
        await asyncio.sleep(0.05)


async def afternoon(port: int, seconds: float) -> None:
    work = [
        open_and_leave(port),
        *[trickle(port, before) for before in (b"", ENVELOPE) for _ in range(LORISES // 2)],
        *[endless(port, before) for before in (b"", ENVELOPE)],
        *[guess(port, number) for number in range(1, 1 + GUESSERS)],
    ]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*work)
    print(json.dumps(done))  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a bad afternoon brings.")
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    asyncio.run(afternoon(arguments.port, arguments.seconds))
