"""A mail server that remembers the octets of what it is sent, and knows nothing else: what a client really produced."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message. `extended`: was it EHLO; `mail`: that command as it came; the paths are without their brackets; the
    content is un-stuffed."""

    extended: bool
    mail: str
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)


class Recorder:
    """Listens on a port of its own from start to stop, offering what another server was heard to offer in EHLO."""

    def __init__(self, extensions: Sequence[str]) -> None:
        self._ehlo = "".join(f"250-{line}\r\n" for line in extensions) + "250 HELP\r\n"
        self.recorded: list[Recorded] = []
        self._more = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def wait_for(self, count: int) -> None:
        """Until there are so many messages."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.recorded) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 recorder.test ESMTP\r\n")
        extended, mail, recipients = False, "", []
        while line := await reader.readline():
            said = line.decode("utf-8").rstrip("\r\n")
            verb = said[:4].upper()
            if verb == "EHLO":
                extended = True
                writer.write(b"250-recorder.test\r\n" + self._ehlo.encode())
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                sent = await reader.readuntil(b"\r\n.\r\n")
                content = re.sub(rb"(?m)^\.", b"", sent.removesuffix(b".\r\n"))
                async with self._more:
                    envelope = _path(mail), tuple(map(_path, recipients))
                    self.recorded.append(Recorded(extended, mail, *envelope, content))
                    self._more.notify_all()
                writer.write(b"250 2.0.0 OK\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                if verb == "MAIL":
                    mail, recipients = said, []
                elif verb == "RCPT":
                    recipients.append(said)
                writer.write(b"250 2.0.0 OK\r\n")
        writer.close()


def _path(command: str) -> str:
    found = re.search(r"<([^>]*)>", command)
    return found[1] if found else ""
