"""One that reads: a thread with a read-only connection of its own.

What is read is always the last commit. A connection that fails is replaced once before anybody is told: after an error
of the disk an old one may know less than the disk does.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from relay.core.spooled import SpoolUnavailable
from relay.spool.database import connect
from relay.spool.writer import CLOSED, unavailable_by

T = TypeVar("T")


class Reader:
    """Runs readings one after another."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(1, name)
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def run(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        """The result of a reading; raises SpoolUnavailable if it cannot be done now, or what it raises."""
        if self._closed:
            raise SpoolUnavailable(CLOSED)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, reading)

    async def close(self) -> None:
        """Finish what waits."""
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown)
        self._give_up()

    def _run(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return reading(self._ready())
            except sqlite3.OperationalError:
                self._give_up()
                return reading(self._ready())
        except sqlite3.Error as error:
            self._give_up()
            raise unavailable_by(error) from error
        except OSError as error:
            raise unavailable_by(error) from error

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path, read_only=True)
        return self._connection

    def _give_up(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
