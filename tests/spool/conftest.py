"""Spools under test: the real one, on the disk, and its twin in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.spool.homes import Home, MemoryHome, SqliteHome
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "memory"])
async def home(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Home]:
    """Where a spool lives; the same contract for both."""
    home: Home = SqliteHome(tmp_path, clock) if request.param == "sqlite" else MemoryHome(clock)
    await home.start()
    yield home
    await home.stop()


@pytest.fixture
async def sqlite(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteHome]:
    """The real one."""
    home = SqliteHome(tmp_path, clock)
    await home.start()
    yield home
    await home.stop()
