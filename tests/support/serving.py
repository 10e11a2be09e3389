"""The program in processes of its own: `serve` for as long as a test needs it, and commands beside it."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.environment import clean


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run(*arguments: str, **environ: str) -> Ran:
    """`sparkpost-relay` with these arguments, to its end."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", *arguments],
        env=clean(**environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def run_on_a_terminal(*arguments: str, **environ: str) -> Ran:
    """The same, with stdout and stderr on one terminal; all that it showed is in `out`."""
    leader, follower = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", *arguments],
        env=clean(TERM="xterm", **environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = await asyncio.wait_for(asyncio.to_thread(_read_all, leader), 50)
    status = await process.wait()
    return Ran(status, shown.decode("utf-8", "replace"), "")


def _read_all(descriptor: int) -> bytes:
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while octets := os.read(descriptor, 65536):
            shown += octets
    os.close(descriptor)
    return shown


def write_config(path: Path, **sections: Any) -> str:
    """A configuration file that only its owner can read; its name."""
    path.write_text(yaml.safe_dump(sections))
    path.chmod(0o600)
    return str(path)


@dataclass
class Served:
    """A relay in a process of its own; `started` is its first event."""

    process: asyncio.subprocess.Process
    started: dict[str, Any]

    @property
    def smtp_port(self) -> int:
        return int(self.started["listeners"]["local"][0].rpartition(":")[2])

    @property
    def tcp(self) -> str:
        return next(address for address in self.started["admin"] if not address.startswith("unix:"))

    @property
    def unix(self) -> str:
        return next(address for address in self.started["admin"] if address.startswith("unix:"))


@contextlib.asynccontextmanager
async def serving(config: str, **environ: str) -> AsyncIterator[Served]:
    """`serve` with this configuration file, terminated at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", "serve", "--config", config],
        env=clean(**environ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    started: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while started.get("event") != "relay.started":
            line = await process.stderr.readline()
            assert line, f"the relay has ended with {await process.wait()}: {started}"
            started = json.loads(line)
    reading = asyncio.create_task(process.stderr.read())  # so that it never waits for a reader
    try:
        yield Served(process, started)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)
        await reading
