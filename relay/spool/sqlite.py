"""The spool in SQLite: what `core.ports.Spool` promises, kept by one writer, two readers and files for large content.

Nothing here blocks the loop: changes go to the writer's thread, what claims and health read to one reader's, what
people search for to the other's, large content to threads of its own. The file is locked while the spool is open.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from relay.core.lifecycle import ENDED, Event, State
from relay.core.login import Assignment
from relay.core.message import Content
from relay.core.spooled import (
    Claim,
    Claimed,
    Damaged,
    Deposit,
    Entry,
    Lane,
    Page,
    Record,
    SpoolUnavailable,
    Stats,
    Unreadable,
)
from relay.observe import log as events
from relay.spool import claims, commands, reading, rows
from relay.spool.background import Background
from relay.spool.ballast import Ballast
from relay.spool.clock import SpoolClock
from relay.spool.content import ContentStore, Draft
from relay.spool.files import ContentFiles
from relay.spool.health import Health
from relay.spool.lock import SpoolLock
from relay.spool.reader import Reader
from relay.spool.room import Room
from relay.spool.rows import Arrival, Now, Report
from relay.spool.writer import Writer, is_of_kind, unavailable_by

log = structlog.get_logger()

SWEEP: Final = 500  # messages in one go of what is done now and then


class SqliteSpool:
    """One open spool. Made by `opening.open_spool`."""

    def __init__(
        self,
        path: Path,
        lock: SpoolLock,
        store: ContentStore,
        ballast: Ballast,
        room: Room,
        clock: SpoolClock,
        wall: Callable[[], float],
    ) -> None:
        self.path = path
        self._lock = lock
        self._store = store
        self._ballast = ballast
        self._room = room
        self._clock = clock
        self._wall = wall
        self._health = Health(path, self._probe)
        self._background = Background()
        self._loading: set[str] = set()  # claims of ours that are being read, however long that takes
        self._unused: set[str] = set()  # claims of ours that nobody has heard of
        self._doomed: set[str] = set()  # files whose rows could not be committed
        self._writer = Writer(path, self._database_heard, ballast.is_needed, self._make_room)
        self._files = ContentFiles(store, self._background)
        # Two readers: no search of a person makes the mail wait.
        self._reader = Reader(path, "spool-reader")
        self._archive = Reader(path, "spool-archive")

    async def recover(self) -> None:
        """Put in order what the process before this one has left behind; raises OSError or SpoolUnavailable."""
        now = self._now()

        def take_over(connection: sqlite3.Connection) -> claims.Lost:
            claims.renew(connection, (), now)
            return claims.reclaim(connection, (), now, leases=False)

        lost = await self._writer.run(take_over, then=self._discard_lost)
        for queue_id in lost.queued:
            log.warning(events.QUEUE_RECLAIMED, queue_id=queue_id)
        names = await asyncio.to_thread(self._store.names)
        states = await self._reader.run(lambda connection: rows.known(connection, names))
        self._files.discard([name for name in names if states.get(name) in ENDED])
        for name in names:
            if name not in states:
                target = self._store.quarantine(name)
                log.warning(events.SPOOL_QUARANTINED, queue_id=name, reason=_ORPHAN, path=str(target))

    # -- its state ----------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """Why no mail can be taken into the spool now; None when it can."""
        return self._health.problem or self._room.lack

    def _database_heard(self, problem: str | None) -> None:
        """The writer's health has changed."""
        self._health.report("database", problem)
        if problem is None and self._doomed:
            _ = self._background.begin(self._settle_doomed())

    def _make_room(self) -> bool:
        """The disk is full, the writer says, from its thread: for what is here already there is something put by."""
        self._room.doubt()
        return self._ballast.give_up()

    async def _settle_doomed(self) -> None:
        """Whatever the log still held is in the database now: files that have no row will never have one."""
        doomed, self._doomed = self._doomed, set()
        with contextlib.suppress(SpoolUnavailable):  # they are orphans then, to be found at the next start
            self._files.discard(
                doomed - (await self._reader.run(lambda connection: rows.known(connection, doomed))).keys()
            )

    async def _probe(self) -> None:
        """Write something small to the database and to the disk."""
        now = self._now()
        probes = (
            self._files.probe(),
            self._writer.run(lambda connection: claims.renew(connection, (), now)),
        )
        file, _ = await asyncio.gather(*probes, return_exceptions=True)
        self._health.report("content", str(unavailable_by(file)) if isinstance(file, OSError) else None)

    def _now(self) -> Now:
        return Now(self._clock.now(), self._wall())

    async def close(self) -> None:
        """Finish what has been begun, write down the time, and let go of the file."""
        await self._health.close()
        await self._background.finish()
        now, unused = self._now(), tuple(self._unused)

        def leave(connection: sqlite3.Connection) -> None:
            claims.give_back(connection, unused, now)
            claims.renew(connection, (), now)

        leaving = self._writer.run(leave)
        await asyncio.wait([leaving])
        if isinstance(error := leaving.exception(), SpoolUnavailable):
            log.warning(events.SPOOL_DOWN, path=str(self.path), reason=str(error))
        # The writer is the last to go: a reader cannot move the log into the database.
        await self._reader.close()
        await self._archive.close()
        await self._writer.close()
        await self._files.close()
        self._lock.close()

    # -- deliveries ---------------------------------------------------------------------------------------------------

    async def put(self, deposit: Deposit) -> None:
        """Store a message; it is safe when this returns. Raises SpoolUnavailable, and then nothing is stored.

        One that is cancelled has stored all of the message or nothing.
        """
        self._room.ask(deposit.message.content.size)
        self._writer.ask()
        now = self._now()
        if not rows.in_a_file(deposit):
            await self._writer.join(rows.insert, rows.inline(deposit, now))
            return
        try:
            crc = await self._files.keep(deposit.message)
        except OSError as error:
            raise self._content_failed(error) from error
        # With the file whole, the rest needs nothing of the depositor's any more.
        storing = self._background.begin(self._put_row(Arrival(deposit, None, crc, now)))
        await asyncio.wait([storing])
        storing.result()

    def draft(self) -> Draft | None:
        """A file for a body that is being received (see `core.ports.Drafts`)."""
        if self.problem is not None:
            return None
        try:
            return self._store.draft(self._room.ask)
        except OSError as error:
            _ = self._content_failed(error)
            return None

    def _content_failed(self, error: OSError) -> SpoolUnavailable:
        """What an error of a content file means for who stores a message; the probe finds out when it is over."""
        unavailable = unavailable_by(error)
        self._health.report("content", str(unavailable))
        return unavailable

    async def _put_row(self, arrival: Arrival) -> None:
        """Commit what belongs to a file."""
        queue_id = arrival.deposit.message.queue_id
        try:
            await self._writer.join(rows.insert, arrival)
        except SpoolUnavailable as error:
            if error.full or self._health.problem is None:
                self._files.discard([queue_id])
            else:
                # A commit that could not be synced may stand in the log all the same, and a crash would bring it back.
                self._doomed.add(queue_id)
            raise

    async def claim(self, limit: int, *, skip: Collection[Lane] = ()) -> Claimed:
        claiming = self._background.begin(self._claim(limit, skip))
        try:
            await asyncio.wait([claiming])
        except asyncio.CancelledError:
            claiming.add_done_callback(self._unclaim)
            raise
        return claiming.result()

    async def _claim(self, limit: int, skip: Collection[Lane]) -> Claimed:
        now = self._now()
        try:
            taken = await self._writer.run(lambda connection: claims.claim(connection, limit, skip, now))
        except SpoolUnavailable as error:
            if is_of_kind(error, "SQLITE_CORRUPT"):
                self._health.report("claims", f"{self.path} is damaged, and no mail can be claimed: {error}. {_MEND}")
            raise
        self._health.report("claims", None)
        able: list[Claim] = []
        damaged: list[Damaged] = []
        queue_ids = {queue_id for _, queue_id in taken.messages}
        self._loading |= queue_ids
        self._unused -= queue_ids  # whose leases were over
        try:
            loaded = await self._load([row for row, _ in taken.messages], now)
            for found, (_, queue_id) in zip(loaded, taken.messages, strict=True):
                if isinstance(found, Claim):
                    able.append(found)
                else:
                    damaged.append(await self._quarantine(queue_id, str(found)))
        except SpoolUnavailable:
            await self._put_back(queue_ids)
            raise
        finally:
            self._loading -= queue_ids
        return Claimed(tuple(able), tuple(damaged), taken.lanes, taken.next_due)

    async def _load(self, messages: Sequence[int], now: Now) -> list[Claim | Unreadable]:
        """Raises SpoolUnavailable where they may be readable later."""
        try:
            return await self._reader.run(partial(reading.load_each, rows=messages, store=self._store, now=now.spool))
        except SpoolUnavailable as error:
            if not is_of_kind(error, "SQLITE_IOERR"):
                raise
            if len(messages) > 1:  # which of them is it?
                return [found for row in messages for found in await self._load([row], now)]
            # A connection made anew could not read it either. If not even that can be written down, it is not the row.
            return [Unreadable(f"its row cannot be read: {error}")]

    async def _quarantine(self, queue_id: str, reason: str) -> Damaged:
        """Put aside what is left of a message that cannot be read, and hold it."""
        with contextlib.suppress(OSError):  # there is no file, or it cannot be moved: then it stays where it is
            reason += f"; what is left of it: {await self._files.quarantine(queue_id)}"
        await self.hold(queue_id, reason)
        return Damaged(queue_id, reason)

    def _unclaim(self, claiming: "asyncio.Future[Claimed]") -> None:
        """Nobody has heard of these claims."""
        if not claiming.cancelled() and claiming.exception() is None:
            _ = self._background.begin(self._put_back({claim.message.queue_id for claim in claiming.result().claims}))

    async def _put_back(self, queue_ids: set[str]) -> None:
        """Give claims back now, or, where that is impossible, as soon as it is possible."""
        unused, self._unused = self._unused | queue_ids, set()  # once: they may be claimed again at any moment
        try:
            await self.give_back(unused)
        except SpoolUnavailable:
            self._unused |= unused

    async def record(self, queue_id: str, record: Record) -> None:
        await self._writer.join(rows.record, Report(queue_id, record, self._now()), then=self._files.discard)

    async def hold(self, queue_id: str, reason: str) -> None:
        now = self._now()
        await self._writer.run(
            lambda connection: claims.hold(connection, queue_id, reason, now),
            then=lambda gone: self._files.discard([queue_id] if gone else ()),
        )

    async def give_back(self, queue_ids: Collection[str]) -> None:
        now = self._now()
        await self._writer.run(lambda connection: claims.give_back(connection, queue_ids, now), then=self._discard_lost)

    async def renew(self, queue_ids: Collection[str]) -> None:
        now, queue_ids = self._now(), tuple(queue_ids)
        await self._writer.run(lambda connection: claims.renew(connection, queue_ids, now))

    async def reclaim(self, alive: Collection[str]) -> Sequence[str]:
        now, alive = self._now(), {*alive, *self._loading}
        lost = await self._writer.run(
            lambda connection: claims.reclaim(connection, alive, now, leases=True), then=self._discard_lost
        )
        return lost.queued

    async def hold_over_age(self, blocked: Collection[Lane]) -> Sequence[str]:
        now = self._now()
        return await self._writer.run(lambda connection: claims.hold_over_age(connection, blocked, SWEEP, now))

    async def purge(self, *, failed_for: float, ended_for: float) -> int:
        await asyncio.to_thread(self._ballast.put_by)  # a disk that was full may have room again
        now = self._clock.now()
        gone = await self._writer.run(
            lambda connection: rows.purge(connection, now - failed_for, now - ended_for, SWEEP),
            then=lambda gone: self._files.discard(gone.files),
        )
        return gone.messages

    # -- the operator -------------------------------------------------------------------------------------------------

    async def stats(self) -> Stats:
        return await self._reader.run(lambda connection: reading.stats(connection, self._wall()))

    async def page(
        self, *, state: State | None = None, search: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page:
        return await self._archive.run(
            lambda connection: reading.page(
                connection, self._clock, state=state, search=search, cursor=cursor, limit=limit
            )
        )

    async def entry(self, queue_id: str) -> Entry:
        return await self._archive.run(lambda connection: reading.entry(connection, queue_id, self._clock))

    async def content(self, queue_id: str) -> Content:
        return await self._archive.run(lambda connection: reading.content(connection, queue_id, self._store))

    async def header(self, queue_id: str) -> bytes | None:
        return await self._archive.run(lambda connection: reading.header(connection, queue_id))

    async def act(self, queue_id: str, event: Event, assignment: Assignment | None = None) -> State:
        now = self._now()
        state, _ = await self._writer.run(
            lambda connection: commands.act(connection, queue_id, event, assignment, now),
            then=lambda outcome: self._files.discard([queue_id] if outcome[1] else ()),
        )
        return state

    def _discard_lost(self, lost: claims.Lost) -> None:
        self._files.discard(lost.files)


_MEND: Final = "Stop the relay and mend the file with sqlite3's .recover, or .dump where its build has none"
_ORPHAN: Final = "no message of the spool has this content: it was being received when the relay was stopped"
