"""One relay a spool: a lock beside the database, with a note about who holds it.

The lock is the kernel's (flock) and goes with the process, however that ends. The note tells the operator's commands
how to reach the relay that runs.
"""

import asyncio
import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from relay.observe import log as events

log = structlog.get_logger()

# `holder` takes the lock for an instant: one that is there that long only is not another relay's.
INSTANT: Final = 0.1  # seconds
_PAUSE: Final = 0.02  # seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the spool: the process, and the Unix socket of its admin server if it has one."""

    pid: int
    socket: str | None = None


class SpoolInUse(Exception):
    """Another process has the spool."""

    def __init__(self, path: Path, holder: Holder | None) -> None:
        who = f"the process {holder.pid}" if holder else "another process"
        super().__init__(
            f"{path} is in use by {who}: one relay a spool. Stop that one, or give this relay a spool.url of its own"
        )
        self.holder = holder


class SpoolLock:
    """The lock of one spool, held until it is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    async def take(cls, database: Path, *, socket: str | None = None, patience: float = INSTANT) -> Self:
        """Take it as soon as it is free; raises SpoolInUse if that is not within `patience` seconds, or OSError."""
        path = _lock_path(database)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not await _locked(descriptor, INSTANT):
                refusal = SpoolInUse(database, _read(path))
                if patience > INSTANT:
                    log.warning(events.SPOOL_AWAITED, path=str(database), reason=str(refusal), patience=patience)
                if not await _locked(descriptor, patience - INSTANT):
                    raise refusal
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(Holder(os.getpid(), socket))).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def close(self) -> None:
        """Let it go. The note goes first, so that nobody is named who has it no longer."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(database: Path) -> Holder | None:
    """Who has the spool now; None if nobody has. Raises OSError where the lock cannot be looked at."""
    path = _lock_path(database)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path) or Holder(0)
    finally:
        os.close(descriptor)
    return None


async def _locked(descriptor: int, patience: float) -> bool:
    """Take the lock within so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_PAUSE)


def _lock_path(database: Path) -> Path:
    """One lock for a database, whatever links lead to it."""
    database = Path(os.path.realpath(database))
    return database.with_name(database.name + ".lock")


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):  # the holder is about to write it, or may not be read by us
        return None
