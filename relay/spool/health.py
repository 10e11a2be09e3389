"""What keeps mail out of a spool, told once, and looked at again and again until it is over."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from relay.observe import log as events

log = structlog.get_logger()

RECOVERY_SECONDS: Final = 1.0  # between looks at a spool that cannot be written


class Health:
    """`probe` tries to write something small everywhere, and reports what comes of it."""

    def __init__(self, path: Path, probe: Callable[[], Awaitable[None]]) -> None:
        self._path = path
        self._probe = probe
        self._problems: dict[str, str] = {}
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def problem(self) -> str | None:
        return next(iter(self._problems.values()), None)

    def report(self, part: str, problem: str | None) -> None:
        """One part of the spool is out of order, or in order if `problem` is None. To be called in the loop."""
        before = self.problem
        if problem is None:
            self._problems.pop(part, None)
        else:
            self._problems[part] = problem
        if before is None and self.problem is not None:
            log.error(events.SPOOL_DOWN, path=str(self._path), reason=self.problem)
            if self._recovery is None and not self._closed:
                self._recovery = asyncio.get_running_loop().create_task(self._recover())
        elif before is not None and self.problem is None:
            log.warning(events.SPOOL_UP, path=str(self._path))

    async def _recover(self) -> None:
        """A spool whose disk has come back should not wait for mail to find it out."""
        while self._problems:
            await asyncio.sleep(RECOVERY_SECONDS)
            await self._probe()
        self._recovery = None

    async def close(self) -> None:
        self._closed = True
        if self._recovery is not None:
            self._recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recovery
