"""Clients that mean no good, many at once, from addresses of their own: `python -m benchmarks.scenarios.mob PORT`.

A process of its own, so that what it does costs the relay nothing but what arrives there. Each line on standard input
names one kind of mischief, with its numbers; a line of JSON on standard output says what came of it once it is done.
Connections that are held are held until the end.
"""

import asyncio
import base64
import contextlib
import json
import random
import resource
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ENVELOPE: Final = b"EHLO mob\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
AT_ONCE: Final = 50
BLOCK: Final = b"x" * 65_536
PATIENCE: Final = 20.0


class Mob:
    """What it holds, and what it has heard."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._held: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random(7)

    async def connect(self, address: str) -> Streams:
        """A connection from that loopback address."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(address, 0), limit=4096)
        self._held.append(writer)
        return reader, writer

    # -- kinds of mischief: numbers in, counts out --------------------------------------------------------------------

    async def idle(self, count: int, addresses: int, per_second: int) -> Counter[str]:
        """Connections that are opened at that rate, greeted, and left."""
        heard: Counter[str] = Counter()
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def one(number: int) -> None:
            await asyncio.sleep(began + number / per_second - loop.time())
            reader, _ = await self.connect(f"127.0.1.{1 + number % addresses}")
            heard[await word(reader)] += 1

        await gathered(count, one)
        return heard

    async def flood(self, count: int) -> Counter[str]:
        """More from an address that has all the connections it may have, as fast as they can be opened."""
        heard: Counter[str] = Counter()

        async def one(number: int) -> None:
            reader, writer = await self.connect("127.0.1.1")
            heard[await word(reader)] += 1
            writer.close()

        await gathered(count, one)
        return heard

    async def slow(self, count: int) -> Counter[str]:
        """One octet a second: half of them in a command, half in content. Goes on until the end."""

        async def one(number: int) -> None:
            reader, writer = await self.connect(f"127.0.2.{1 + number % 10}")
            await word(reader)
            if number % 2:
                writer.write(ENVELOPE)
            while not writer.is_closing():
                writer.write(b"N")
                await asyncio.sleep(1)

        for number in range(count):
            self._keep(one(number))
        return Counter({"slow": count})

    async def endless(self, megabytes: int) -> Counter[str]:
        """A line without end, in command phase and then in content."""
        heard: Counter[str] = Counter()
        for before in (b"EHLO ", ENVELOPE):
            reader, writer = await self.connect("127.0.3.1")
            await word(reader)
            writer.write(before)
            for _ in range(megabytes * 1_000_000 // 2 // len(BLOCK)):
                writer.write(BLOCK)
                await writer.drain()
            writer.write(b"\r\n.\r\nQUIT\r\n")
            answers = await asyncio.wait_for(reader.read(), PATIENCE)
            heard.update(line[:3].decode() for line in answers.splitlines() if line[3:4] == b" ")
            writer.close()
        return heard

    async def guess(self, clients: int, guesses: int) -> Counter[str]:
        """Passwords, one after another, from several addresses, on new connections where the old ones are closed."""
        heard: Counter[str] = Counter()

        async def one(number: int) -> None:
            left = guesses
            while left:
                reader, writer = await self.connect(f"127.0.4.{1 + number}")
                greeting = await word(reader)
                if greeting != "220":
                    heard[greeting] += 1
                    break
                writer.write(b"EHLO mob\r\n")
                await last_line(reader)
                while left:
                    left -= 1
                    guess = base64.b64encode(b"\0app\0guess %d" % left)
                    writer.write(b"AUTH PLAIN " + guess + b"\r\n")
                    answer = await word(reader)
                    heard[answer] += 1
                    if answer != "535":
                        break
                writer.close()

        await gathered(clients, one)
        return heard

    async def starttls(self, count: int) -> Counter[str]:
        """Handshakes that are begun: a third never speaks, a third sends half a ClientHello, a third hangs up."""
        heard: Counter[str] = Counter()
        hello = client_hello()

        async def one(number: int) -> None:
            reader, writer = await self.connect(f"127.0.5.{1 + number % 10}")
            await word(reader)
            writer.write(b"EHLO mob\r\n")
            await last_line(reader)
            writer.write(b"STARTTLS\r\n")
            heard[await word(reader)] += 1
            if number % 3:
                writer.write(hello[: len(hello) // 2])
            if number % 3 == 2:
                writer.close()

        await gathered(count, one)
        return heard

    async def garbage(self, count: int, octets: int) -> Counter[str]:
        """Noise, with and without line ends."""
        heard: Counter[str] = Counter()

        async def one(number: int) -> None:
            reader, writer = await self.connect(f"127.0.6.{1 + number % 10}")
            await word(reader)
            noise = self._random.randbytes(octets)
            writer.write(noise if number % 2 else noise.replace(b"\r", b"").replace(b"\n", b"\r\n"))
            writer.write_eof()
            said = (await asyncio.wait_for(reader.read(), PATIENCE)).splitlines()
            heard[said[-1][:3].decode() if said else ""] += 1
            writer.close()

        await gathered(count, one)
        return heard

    def leave(self) -> None:
        """Lets go of everything."""
        for task in self._tasks:
            task.cancel()
        for writer in self._held:
            writer.transport.abort()

    def _keep(self, work: Awaitable[None]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(OSError):  # it was hung up on
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def gathered(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """All of them, some at a time; who is hung up on has had his answer."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            try:
                await one(number)
            except (OSError, asyncio.IncompleteReadError):
                continue

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def word(reader: asyncio.StreamReader) -> str:
    """The code of the next line; "" where the connection is at its end."""
    return (await asyncio.wait_for(reader.readline(), PATIENCE))[:3].decode("ascii", "replace")


async def last_line(reader: asyncio.StreamReader) -> None:
    """Reads a reply of several lines to its end."""
    while (await asyncio.wait_for(reader.readline(), PATIENCE))[3:4] == b"-":
        pass


def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a peer")


async def main(port: int) -> None:
    """Does what it is told on standard input, until that ends."""
    mob = Mob(port)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *numbers = line.split()
        heard: Counter[str] = await getattr(mob, name)(*map(int, numbers))
        print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(int(sys.argv[1])))
