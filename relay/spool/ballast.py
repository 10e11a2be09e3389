"""Room that is put by for the day when the disk is full: a file beside the database that holds nothing.

The reserve keeps mail from filling the disk; other programs may fill it all the same. Then what is put by is given up,
for the mail that is here already: to open the spool, claim a message and write down what became of it takes a log and
its index. Mail that comes in has no part in it, since there is less room than the reserve. Who has filled the disk may
fill what is given up too: so it is half of what is left each time, and the log is kept short.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

import structlog

from relay.observe import log as events
from relay.spool.room import free

log = structlog.get_logger()

SIZE: Final = 20 * 1024 * 1024  # octets: the log until it is moved into the database (16 MB), its index, and some more
_LEAST: Final = 1024 * 1024  # octets that are not halved any more


class Ballast:
    """What is put by for one database, beyond `reserve` octets of its disk."""

    def __init__(self, database: Path, reserve: int) -> None:
        self._path = database.with_name(database.name + ".ballast")
        self._reserve = reserve
        self._size = min(SIZE, reserve // 2)  # given up, it is not yet room for mail that comes in

    def put_by(self) -> None:
        """Have it from now on, if there is room. It may take as long as to write so many octets."""
        try:
            if self._there() >= self._size or free(self._path.parent) < self._reserve + self._size:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            # It is a help, and no promise: a spool without one is as good, until the disk is full.
            with contextlib.suppress(OSError):
                self._path.unlink()

    def is_needed(self) -> bool:
        """Is there less room on the disk than what is put by for the day when it is full?"""
        try:
            return free(self._path.parent) < self._size
        except OSError:
            return False

    def give_up(self) -> bool:
        """Make room of half of it: others may take that too, and then there is more. False where there is none."""
        try:
            there = self._there()
            divisible = there > _LEAST and os.access(self._path, os.W_OK, effective_ids=True)
            left = there // 2 if divisible else 0
            if left:
                os.truncate(self._path, left)
            else:
                self._path.unlink()
        except OSError:
            return False
        if there:
            log.warning(events.SPOOL_BALLAST, path=str(self._path), octets=there - left)
        return there > 0

    def _there(self) -> int:
        """Octets that are put by: those that a copy has left out, as programs for backups do, are not."""
        try:
            status = self._path.lstat()
        except FileNotFoundError:
            return 0
        return min(status.st_size, status.st_blocks * 512) if stat.S_ISREG(status.st_mode) else 0
