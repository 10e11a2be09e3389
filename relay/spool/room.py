"""Room on the disk: below the reserve no mail is taken in, so that what becomes of the mail there is can be written."""

import os
from pathlib import Path

from relay.core.spooled import SpoolUnavailable


class Room:
    """`reserve` octets of the disk that holds `directory` are to stay free."""

    def __init__(self, directory: Path, reserve: int) -> None:
        self._directory = directory
        self._reserve = reserve

    def ask(self) -> None:
        """Raises SpoolUnavailable if there is no room."""
        try:
            disk = os.statvfs(self._directory)
        except OSError as error:
            raise SpoolUnavailable(error.strerror or str(error)) from error
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve:
            raise SpoolUnavailable(
                f"{free} octets free on the disk, {self._reserve} are kept in reserve (spool.reserve)", full=True
            )

    @property
    def lack(self) -> str | None:
        """Why there is no room; None if there is."""
        try:
            self.ask()
        except SpoolUnavailable as error:
            return str(error)
        return None
