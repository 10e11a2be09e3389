"""Room that is put by for the day when the disk is full: a file beside the database that holds nothing.

The reserve keeps mail from filling the disk; other programs may fill it all the same. Then what is put by is given up,
for the mail that is here already: to open the spool, claim a message and write down what became of it takes a log and
its index. Mail that comes in has no part in it, since there is less room than the reserve.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import structlog

from relay.observe import log as events
from relay.spool.room import free

log = structlog.get_logger()

SIZE: Final = 20 * 1024 * 1024  # octets: the log until it is moved into the database (16 MB), its index, and some more


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
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            # It is a help, and no promise: a spool without one is as good, until the disk is full.
            with contextlib.suppress(OSError):
                self._path.unlink()

    def give_up(self) -> bool:
        """Make room of it. False where there is none."""
        try:
            octets = self._there()
            self._path.unlink()
        except OSError:
            return False
        log.warning(events.SPOOL_BALLAST, path=str(self._path), octets=octets)
        return octets > 0

    def _there(self) -> int:
        """Octets that are put by."""
        return self._path.stat().st_size if self._path.exists() else 0
