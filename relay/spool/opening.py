"""Opening a spool: it is locked, its schema brought up to date, and what the process before has left put in order."""

import asyncio
import sqlite3
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

import structlog

from relay.core.ports import Clock
from relay.core.spooled import SpoolUnavailable
from relay.observe import log as events
from relay.spool import database, rows
from relay.spool.ballast import Ballast
from relay.spool.clock import SpoolClock
from relay.spool.content import ContentStore
from relay.spool.database import SpoolFull, unusable
from relay.spool.lock import INSTANT, SpoolLock
from relay.spool.room import Room
from relay.spool.sqlite import SqliteSpool

log = structlog.get_logger()

SCHEME: Final = "sqlite:"


def path_of(url: str) -> Path:
    """The database file that a `spool.url` names: `sqlite:/absolute/path` or `sqlite:relative/path`."""
    return Path(url.removeprefix(SCHEME))


async def open_spool(
    path: Path, clock: Clock, *, reserve: int, socket: str | None = None, patience: float = INSTANT
) -> SqliteSpool:
    """Open or make the spool at `path`; `reserve` octets of the disk stay free, `socket` is noted in the lock.

    Raises SpoolInUse if another process has it for over `patience` seconds, or SpoolUnusable with the cause and the
    remedy. Claims that a dead process held are due.
    """
    path = database.real(path)
    ballast = Ballast(path, reserve)
    room = Room(path.parent, reserve, clock.monotonic)
    while True:
        try:
            spool = await _open(path, clock, ballast, room, SpoolLock.take(path, socket=socket, patience=patience))
        except SpoolFull:
            if not ballast.give_up():
                raise
            continue
        try:
            await asyncio.to_thread(ballast.put_by)
        except BaseException:
            await spool.close()
            raise
        return spool


async def _open(path: Path, clock: Clock, ballast: Ballast, room: Room, locking: Awaitable[SpoolLock]) -> SqliteSpool:
    try:
        lock = await locking
    except OSError as error:
        raise unusable(path, error) from error
    try:
        store = ContentStore(path)
        store.prepare()
        spool = SqliteSpool(path, lock, store, ballast, room, _prepare(path, clock), clock.now)
    except (OSError, sqlite3.Error) as error:
        lock.close()
        raise unusable(path, error) from error
    except BaseException:
        lock.close()
        raise
    try:
        await spool.recover()
    except (OSError, SpoolUnavailable) as error:
        await spool.close()
        raise unusable(path, error) from error
    except BaseException:
        await spool.close()
        raise
    return spool


def _prepare(path: Path, clock: Clock) -> SpoolClock:
    """Bring the file up to date; the clock goes on from where it was."""
    before, version = database.prepare(path)
    if before != version:
        log.info(events.SPOOL_MIGRATED, path=str(path), schema_before=before, schema=version)
    connection = database.connect(path)
    try:
        time, wall = rows.read_time(connection) or (0.0, clock.now())
    finally:
        connection.close()
    return SpoolClock(clock, time=time, wall=wall)
