"""Two ways to start a client: a driver that reads the whole job, or a program for each message."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.e2e.clients.job import Message, Target
from tests.e2e.clients.programs import Command
from tests.e2e.clients.stage import Job, Run

HERE: Final = Path(__file__).parent
_ROOT: Final = HERE.parents[2]
_AT_ONCE: Final = 3
_NOTHING: Final[Mapping[str, str]] = {}


def driver(*command: str, prepare: Callable[[Job], None] | None = None, **environ: str) -> Run:
    """A driver is started once; {job}, {folder} and {here} in its words stand for places."""

    async def run(job: Job) -> str:
        if prepare is not None:
            prepare(job)
        words = [word.format(job=job.path, folder=job.folder, here=HERE) for word in command]
        status, output = await start(words, environ=environ)
        return output if status == 0 else f"{output}\nended with {status}"

    return run


def each(program: Callable[[Target, Message, Path], Command], *, prepare: Callable[[Job], None] | None = None) -> Run:
    """A program is started for each message and target, a few at a time."""

    async def run(job: Job) -> str:
        if prepare is not None:
            prepare(job)
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(target: Target, message: Message) -> str:
            async with places:
                words, octets = program(target, message, job.folder)
                status, output = await start(words, octets, {"HOME": str(job.folder)})
            outcome = "ok" if status == 0 else f"ended with {status}: {' '.join(output.split())}"
            return f"{target.name}\t{message.name}\t{outcome}"

        return "\n".join(
            await asyncio.gather(*[one(target, message) for target in job.targets for message in job.messages])
        )

    return run


async def start(
    words: list[str], octets: bytes | None = None, environ: Mapping[str, str] = _NOTHING
) -> tuple[int, str]:
    """A program to its end: its status, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=_ROOT,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environ},
        stdin=asyncio.subprocess.DEVNULL if octets is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate(octets)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, output.decode("utf-8", "replace")
