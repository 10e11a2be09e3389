"""`sparkpost-relay` in a process of its own, with its log."""

import asyncio
import json
import socket
import sys

from tests.support.environment import clean


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Program:
    """A running program. Its log must be JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict] = []

    @classmethod
    async def start(cls, *arguments: str, **environ: str) -> "Program":
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "relay", *arguments],
            env=clean(**environ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def until(self, event: str) -> dict:
        """The next log record of this event; everything on the way is kept in `events`."""
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            while line := await self.process.stderr.readline():
                self.events.append(json.loads(line))
                if self.events[-1]["event"] == event:
                    return self.events[-1]
        raise AssertionError(f"no {event} in {self.events}")

    async def end(self) -> tuple[int, str]:
        """Exit status and what was left on stderr."""
        _, rest = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode is not None
        return self.process.returncode, rest.decode()
