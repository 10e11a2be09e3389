"""Room on the disk: below the reserve no mail is taken in, so that what becomes of the mail there is can be written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay.core.spooled import SpoolUnavailable

LOOK: Final = 1.0  # seconds for which plenty of room is still plenty
_SHARE: Final = 8  # a message is written to the log and to the database, and others write too


def free(directory: Path) -> int:
    """Octets that may still be written to the disk of a directory; raises OSError."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


class Room:
    """`reserve` octets of the disk that holds `directory` are to stay free. `now` is a monotonic clock."""

    def __init__(self, directory: Path, reserve: int, now: Callable[[], float]) -> None:
        self._directory = directory
        self._reserve = reserve
        self._now = now
        self._until = float("-inf")  # until then, and for so many octets, there is room without another look
        self._spare = 0

    def ask(self, octets: int = 0) -> None:
        """Raises SpoolUnavailable if there is no room for so many octets."""
        self._spare -= octets
        if self._spare <= 0 or self._now() >= self._until:
            self._look()

    def doubt(self) -> None:
        """The disk has just been full: whatever was seen before, look again."""
        self._until = float("-inf")

    def _look(self) -> None:
        try:
            left = free(self._directory)
        except OSError as error:
            raise SpoolUnavailable(error.strerror or str(error)) from error
        if left < self._reserve:
            self._spare = 0
            raise SpoolUnavailable(
                f"{left} octets free on the disk, {self._reserve} are kept in reserve (spool.reserve)", full=True
            )
        self._spare = (left - self._reserve) // _SHARE
        self._until = self._now() + LOOK

    @property
    def lack(self) -> str | None:
        """Why there is no room; None if there is."""
        try:
            self.ask()
        except SpoolUnavailable as error:
            return str(error)
        return None
