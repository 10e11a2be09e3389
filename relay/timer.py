"""The one timer of a session: how long its peer may go without progress from where it is now."""

import asyncio
from collections.abc import Callable
from typing import Final

NEVER: Final = float("inf")


def _nobody() -> None:
    """Waits no more."""


class ProgressTimer:
    """Calls back once the peer has made no progress for as long as it was given.

    Progress moves the deadline and nothing else; the loop's handle is replaced only when it would come too late, or
    when it has come too early. So what is sent octet by octet costs nothing here.
    """

    __slots__ = ("_deadline", "_due", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._deadline = NEVER
        self._due = NEVER  # when the handle comes
        self._handle: asyncio.TimerHandle | None = None

    def until(self, deadline: float) -> None:
        """From now on the peer has until then, by the loop's clock."""
        self._deadline = deadline
        if deadline < self._due:
            self._set()

    def give(self, seconds: float) -> None:
        """From now on the peer has so many seconds."""
        self.until(self._loop.time() + seconds)

    def stop(self) -> None:
        """The peer has all the time in the world."""
        self._deadline = NEVER

    def end(self) -> None:
        """There will be no more of it. Whose timer it was is let go of, so that no cycle keeps it."""
        self._deadline = NEVER
        self._set()
        self._expired = _nobody

    def _set(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._due = self._deadline
        self._handle = None if self._due == NEVER else self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._handle, self._due = None, NEVER
        if self._loop.time() < self._deadline:
            self._set()
        else:
            self._expired()
