"""A spool with a place to live, where its process can die and another can take up what it left behind."""

import shutil
import sqlite3
from pathlib import Path
from typing import Protocol

from relay.core.lifecycle import State
from relay.core.ports import Archive, Spool
from relay.spool.opening import open_spool
from relay.spool.sqlite import SqliteSpool
from tests.support.clock import ManualClock
from tests.support.memory_spool import MemorySpool

RESERVE = 0


class AnySpool(Spool, Archive, Protocol):
    """Both sides of a spool."""


class Home(Protocol):
    """One spool and its life."""

    clock: ManualClock

    @property
    def spool(self) -> AnySpool: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def crash(self) -> None:
        """The process dies without a word, and another opens what it left behind."""
        ...


class MemoryHome:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.spool = MemorySpool(clock)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def crash(self) -> None:
        self.spool.reopen()


class SqliteHome:
    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self.clock = clock
        self._directory = directory
        self._lives = 0
        self._spool: SqliteSpool | None = None

    @property
    def spool(self) -> SqliteSpool:
        assert self._spool is not None
        return self._spool

    @property
    def lives(self) -> bool:
        return self._spool is not None

    @property
    def directory(self) -> Path:
        return self._directory / f"life-{self._lives}"

    @property
    def path(self) -> Path:
        return self.directory / "spool.db"

    @property
    def contents(self) -> Path:
        return self.directory / "spool.db.content"

    @property
    def quarantine(self) -> Path:
        return self.directory / "spool.db.quarantine"

    async def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self._spool = await open_spool(self.path, self.clock, reserve=RESERVE)

    async def stop(self) -> None:
        if self._spool is not None:
            await self._spool.close()
            self._spool = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def crash(self) -> None:
        # What a kill leaves is what is in the files at that moment: a copy of them is that, and nothing was tidied up.
        left, before = self.directory, self._spool
        self._lives += 1
        shutil.copytree(left, self.directory, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        if before is not None:
            await before.close()
        shutil.rmtree(left)
        await self.start()

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Look at the database, or tamper with it, behind the spool's back."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def counts(self) -> dict[State, int]:
        """Messages by state, counted one by one; the tally and the lanes' own counts must say the same."""
        counted = {
            State(str(state)): int(str(n))
            for state, n in self.sql("SELECT state, count(*) FROM message GROUP BY state")
        }
        tally = {State(str(state)): int(str(n)) for state, n in self.sql("SELECT state, messages FROM tally")}
        assert {state: counted.get(state, 0) for state in State} == tally
        lanes = self.sql(
            "SELECT id, queued, (SELECT count(*) FROM message WHERE lane = lane.id AND state = 'queued') FROM lane"
        )
        assert all(kept == real for _, kept, real in lanes), lanes
        return tally
