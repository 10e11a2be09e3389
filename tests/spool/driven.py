"""A spool in a process of its own, whose disk can be made to fail, or to forget what was not synced."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import pytest

from relay.core.spooled import SpoolUnavailable
from tests.support.environment import clean

SOURCE = Path(__file__).parent / "shim" / "faults.c"
TOP = Path(__file__).parents[2]


@cache
def shim() -> Path:
    """The library that plays the disk; skips where it cannot be made."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed: the faults of a disk are played by a small C library")
    library = Path(mkdtemp(prefix="spool-shim-")) / "faults.so"
    built = subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            library,
            SOURCE,
            "-ldl",
            "-lpthread",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return library


class Driven:
    """The process; `faults` is where its disk is told what to do."""

    def __init__(self, process: asyncio.subprocess.Process, faults: Path) -> None:
        self._process = process
        self._faults = faults

    @classmethod
    async def start(
        cls, database: Path, *, shadow: Path | None = None, under: tuple[str, ...] = (), preload: bool = True
    ) -> Self:
        """`under`: a program that is to run it; `shadow`: where the disk is mirrored as it would be after a loss of
        power."""
        faults = database.parent / "faults"
        faults.mkdir(exist_ok=True)
        environment = {"LD_PRELOAD": str(shim()), "FAULTS": str(faults)} if preload else {}
        if shadow is not None:
            for directory in (str(shadow), f"{shadow}.inodes"):
                os.mkdir(directory)
            environment |= {"SHADOW_OF": str(database.parent), "SHADOW": str(shadow)}
        process = await asyncio.create_subprocess_exec(
            *under,
            *(sys.executable, "-m", "tests.spool.driver", str(database)),
            cwd=TOP,
            env=clean(**environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        driven = cls(process, faults)
        assert await driven._answer() == {"done": "open"}
        return driven

    async def ask(self, do: str, queue_id: str = "", **details: Any) -> Any:
        """Have something done; raises SpoolUnavailable as the spool does."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "queue_id": queue_id, **details}).encode() + b"\n")
        answer = await self._answer()
        if "unavailable" in answer:
            raise SpoolUnavailable(answer["unavailable"], full=answer["full"])
        return answer["done"]

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self._process.stdout.readline():
                if line.startswith(b"{"):  # the log goes there too
                    answer: dict[str, Any] = json.loads(line)
                    return answer
        raise AssertionError("the process has ended")

    def fail(self, kind: str, *paths: str, errno: int | None = None) -> None:
        """From now on calls of this kind (fsync, write, read) fail, or are left out (pretend), on these paths."""
        if errno is not None:
            (self._faults / "errno").write_text(str(errno))
        fresh = self._faults / "fresh"
        fresh.write_text("\n".join(paths))
        fresh.rename(self._faults / kind)

    def work(self, *kinds: str) -> None:
        """The disk is well again."""
        for kind in kinds or ("fsync", "write", "read", "pretend"):
            (self._faults / kind).unlink(missing_ok=True)

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        """Let it close the spool."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), 20) == 0


@contextlib.asynccontextmanager
async def driven(database: Path, **options: Any) -> AsyncIterator[Driven]:
    """A spool in a process, killed at the end if it still runs."""
    process = await Driven.start(database, **options)
    try:
        yield process
    finally:
        await process.kill()


def need_root() -> None:
    """Skips where no file system can be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Any:
    """A file system of its own, so small that it can be filled."""
    need_root()
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def make_read_only(disk: Path) -> None:
    """As a file system is that has found an error in itself."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
