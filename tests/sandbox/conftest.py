"""A raw SMTP client for the sandbox's tests, as a ladder: connected, under TLS, authenticated."""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from relay.sandbox import Sandbox

KEY = "secret"
LAST_LINE = re.compile(rb"\d{3} .*\r\n")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Client:
    """Says what it is told to, octet by octet if need be, and reads whole replies."""

    def __init__(self, box: Sandbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.box = box
        self.reader = reader
        self.writer = writer

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def reply(self) -> str:
        """The next reply, its lines joined by a newline; EOFError if the connection ends first."""
        lines = []
        while True:
            line = await self.reader.readline()
            if not line:
                raise EOFError(f"the connection ended after {lines}")
            lines.append(line.decode("ascii").removesuffix("\r\n"))
            if LAST_LINE.fullmatch(line):
                return "\n".join(lines)

    async def say(self, command: str) -> str:
        await self.send(command.encode() + b"\r\n")
        return await self.reply()

    async def ended(self) -> bool:
        """Whether the sandbox has ended the connection, with nothing more said."""
        with suppress(ConnectionError):
            return await self.reader.read() == b""
        return True

    async def shake_hands(self, name: str = "localhost") -> None:
        await self.writer.start_tls(ssl.create_default_context(cafile=self.box.ca_file), server_hostname=name)

    async def starttls(self) -> str:
        """Banner, EHLO, STARTTLS, handshake, EHLO: the last reply."""
        await self.reply()
        await self.say("EHLO client.example")
        assert await self.say("STARTTLS") == "220 2.0.0 continue"
        await self.shake_hands()
        return await self.say("EHLO client.example")

    async def login(self, user: str = "SMTP_Injection", key: str = KEY, *, way: str = "LOGIN initial") -> str:
        """AUTH in one of the four ways of putting it; the reply at its end."""
        plain = encoded(f"\0{user}\0{key}")
        lines = {
            "LOGIN": ["AUTH LOGIN", encoded(user), encoded(key)],
            "LOGIN initial": [f"AUTH LOGIN {encoded(user)}", encoded(key)],
            "PLAIN": ["AUTH PLAIN", plain],
            "PLAIN initial": [f"AUTH PLAIN {plain}"],
        }[way]
        replies = [await self.say(line) for line in lines]
        return replies[-1]

    async def ready(self) -> "Client":
        """All that comes before MAIL."""
        await self.starttls()
        assert (await self.login()).startswith("235 ")
        return self

    async def mail(
        self,
        *,
        to: str = "to@example.org",
        sender: str = "from@example.com",
        content: bytes = b"Subject: x\r\n\r\nx\r\n",
    ) -> str:
        """One message; the reply to its final dot, or the first that was a refusal."""
        for command in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>", "DATA"):
            reply = await self.say(command)
            if reply[0] not in "23":
                return reply
        await self.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return await self.reply()


Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def connect() -> Connect:
    """A function that connects a client to a port of a sandbox."""

    @asynccontextmanager
    async def connected(box: Sandbox, port: int = 0) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection(*box.addresses[port])
        client = Client(box, reader, writer)
        try:
            yield client
        finally:
            client.writer.transport.abort()
            with suppress(OSError):
                await client.writer.wait_closed()

    return connected


@pytest.fixture(scope="session")
def tls_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of certificates for all tests: making keys takes longer than most of them."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture
def sandbox(tls_dir: Path) -> Callable[..., Sandbox]:
    """A function that makes a sandbox with one known key."""

    def make(**options: object) -> Sandbox:
        return Sandbox(**{"api_keys": {KEY: None}, "tls_dir": tls_dir} | options)

    return make


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The stand-in is a program of its own, and runs on asyncio's loop there."""
    return {"asyncio": asyncio.new_event_loop}
