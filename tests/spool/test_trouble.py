"""What stands between a spool and its disk but is no fault of the disk: room, locks, cancellation, its own end."""

import asyncio
import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from relay.core.lifecycle import LEASE, Event, IllegalTransition, State
from relay.core.spooled import SpoolUnavailable, UnknownMessage
from relay.spool import claims, database, health, reading, writer
from relay.spool.opening import open_spool
from relay.spool.sqlite import SqliteSpool
from tests.spool.driven import small_disk
from tests.spool.homes import SqliteHome
from tests.support.clock import ManualClock
from tests.support.mail import LARGE, deferred, delivered, deposit, in_draft


@pytest.fixture(autouse=True)
def nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "RECOVERY_SECONDS", 0.02)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)


async def _healthy(spool: SqliteSpool) -> None:
    async with asyncio.timeout(10):
        while spool.problem is not None:  # noqa: ASYNC110 - it is asked, as load balancers ask
            await asyncio.sleep(0.01)


# -- room -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SqliteHome]:
    """A spool on a disk of 6 MB."""
    with small_disk(tmp_path / "disk", "6m") as disk:
        home = SqliteHome(disk, ManualClock())
        await home.start()
        yield home
        await home.stop()


async def _fill(home: SqliteHome, body: bytes) -> list[str]:
    """Put mail until the disk is full; the queue ids that were taken."""
    kept: list[str] = []
    for number in range(200):
        try:
            await home.spool.put(deposit(f"Q{number:03}", body=body))
        except SpoolUnavailable as refused:
            if refused.full:
                return kept
            raise
        kept.append(f"Q{number:03}")
    raise AssertionError("it is not to be filled")


@pytest.mark.parametrize("body", [LARGE, LARGE[: len(LARGE) // 2]], ids=["files", "rows"])
async def test_a_full_disk_refuses_mail_heals_when_there_is_room_and_loses_nothing(
    small: SqliteHome, body: bytes
) -> None:
    ballast = small.directory / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    kept = await _fill(small, body)
    assert small.spool.problem is not None

    ballast.unlink()

    await _healthy(small.spool)
    await small.spool.put(deposit("Q900", body=body))
    await small.restart()
    assert [entry.queue_id for entry in (await small.spool.page(limit=1000)).entries] == [*kept, "Q900"]
    for queue_id in kept:
        assert b"".join((await small.spool.content(queue_id)).body.chunks()) == body
    assert list(small.quarantine.iterdir()) == []


async def test_below_the_reserve_no_mail_is_taken_and_what_becomes_of_the_old_is_written(small: SqliteHome) -> None:
    await small.spool.put(deposit("Q1", claimed=True))
    await small.stop()
    spool = await open_spool(small.path, ManualClock(), reserve=2_000_000)
    try:
        await spool.claim(10)
        ballast = small.directory / "ballast"
        ballast.write_bytes(bytes(4_500_000))

        with pytest.raises(SpoolUnavailable, match="2000000 are kept in reserve") as refused:
            await spool.put(deposit("Q2"))
        assert refused.value.full
        assert "reserve" in (spool.problem or "")
        await spool.record("Q1", delivered())

        ballast.unlink()
        assert spool.problem is None
        await spool.put(deposit("Q2"))
    finally:
        await spool.close()


# -- locks ------------------------------------------------------------------------------------------------------------


async def test_a_database_that_somebody_locks_refuses_mail_until_it_is_let_go(sqlite: SqliteHome) -> None:
    await sqlite.restart()  # with less patience
    other = sqlite3.connect(sqlite.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(SpoolUnavailable, match="database is locked") as refused:
            await sqlite.spool.put(deposit("Q1"))
        assert not refused.value.full
        assert "locked" in (sqlite.spool.problem or "")
        assert (await sqlite.spool.stats()).messages[State.QUEUED] == 0  # reading goes on
    finally:
        other.execute("ROLLBACK")
        other.close()

    await _healthy(sqlite.spool)
    await sqlite.spool.put(deposit("Q1"))


async def test_somebody_who_reads_for_long_holds_nothing_up(sqlite: SqliteHome) -> None:
    """A backup, say."""
    await sqlite.spool.put(deposit("Q1"))
    other = sqlite3.connect(sqlite.path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM message").fetchone()

    await asyncio.gather(*(sqlite.spool.put(deposit(f"P{number}", body=LARGE[:100_000])) for number in range(100)))

    assert other.execute("SELECT count(*) FROM message").fetchone() == (1,)
    other.close()
    assert sqlite.counts()[State.QUEUED] == 101


async def test_a_database_that_was_taken_away_promises_nothing_more(sqlite: SqliteHome) -> None:
    """A message would go with the file that nobody can find any more."""
    away = sqlite.directory / "away.db"
    await sqlite.spool.put(deposit("Q1"))
    sqlite.path.rename(away)

    with pytest.raises(SpoolUnavailable, match="taken away or replaced"):
        await sqlite.spool.put(deposit("Q2"))
    assert sqlite.spool.problem is not None
    assert not sqlite.path.exists()

    away.rename(sqlite.path)
    await _healthy(sqlite.spool)
    await sqlite.spool.put(deposit("Q2"))


async def test_a_log_that_was_taken_away_is_in_the_database_before_long(sqlite: SqliteHome) -> None:
    """With its name the mail in it would be gone when the relay ends. Another log would not go with the readers'."""
    await sqlite.spool.put(deposit("Q000"))
    sqlite.path.with_name("spool.db-wal").unlink()

    kept = ["Q000"]
    while sqlite.spool.problem is None:
        with contextlib.suppress(SpoolUnavailable):
            await sqlite.spool.put(deposit(f"Q{len(kept):03}"))
            kept.append(f"Q{len(kept):03}")
    with pytest.raises(SpoolUnavailable, match=r"spool\.db-wal was taken away"):
        await sqlite.spool.put(deposit("Q800"))
    assert len(kept) <= 2 * writer.LOOK

    await sqlite.crash()
    assert [entry.queue_id for entry in (await sqlite.spool.page(limit=1000)).entries] == kept
    await sqlite.spool.put(deposit("Q900"))


# -- neighbours -------------------------------------------------------------------------------------------------------


async def test_nobody_suffers_for_a_neighbour_in_the_same_commit(sqlite: SqliteHome) -> None:
    """What is impossible is refused to whoever asks for it, and what fails half way leaves nothing behind."""
    await sqlite.spool.put(deposit("Q1"))
    spool = sqlite.spool
    strange = deposit("Q4", recipients=2)
    unwritable = strange.message.envelope.recipients[1]._replace(orcpt="rfc822;\ud800")
    envelope = strange.message.envelope._replace(recipients=(strange.message.envelope.recipients[0], unwritable))

    results = await asyncio.gather(
        spool.put(deposit("Q2", body=LARGE)),
        spool.put(deposit("Q1")),
        spool.record("Q9", delivered()),
        spool.act("Q1", Event.RELEASE),
        spool.put(strange._replace(message=strange.message._replace(envelope=envelope))),
        spool.put(deposit("Q3")),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [
        *(type(None), SpoolUnavailable, UnknownMessage, IllegalTransition, UnicodeEncodeError, type(None))
    ]
    assert spool.problem is None
    assert sqlite.counts()[State.QUEUED] == 3


async def test_whatever_is_done_together_comes_to_what_it_would_one_by_one(sqlite: SqliteHome) -> None:
    """More than one statement can hold, of several kinds, some for the same message, in one commit."""
    spool = sqlite.spool
    ids = [f"Q{number:02}" for number in range(40)]
    await asyncio.gather(*(spool.put(deposit(queue_id, recipients=3, claimed=True)) for queue_id in ids))

    await asyncio.gather(
        spool.record(ids[0], deferred(3)),
        *(spool.record(queue_id, delivered(3)) for queue_id in ids),
        spool.put(deposit("Q90", claimed=True)),
        spool.record("Q90", delivered()),
        spool.put(deposit("Q91", record=delivered())),
        spool.put(deposit("Q92")),
        spool.act("Q92", Event.DELETE),
    )

    assert sqlite.counts() == {**dict.fromkeys(State, 0), State.DELIVERED: 42, State.DELETED: 1}
    history = [(line.number, line.outcome, line.recipients) for line in (await spool.entry(ids[0])).history]
    assert history == [(1, "deferred", [0, 1, 2]), (2, "delivered", [0, 1, 2])]
    assert {(line.number, line.outcome) for line in (await spool.entry(ids[1])).history} == {(1, "delivered")}
    assert sqlite.sql("SELECT count(*) FROM content") == [(0,)]
    assert sqlite.sql("SELECT count(*) FROM recipient WHERE fate = 'delivered'") == [(122,)]


async def test_a_disk_slower_than_the_clients_is_told_to_them(
    sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is kept in memory than so many operations."""
    monkeypatch.setattr("relay.spool.writer.BACKLOG", 10)
    other = sqlite3.connect(sqlite.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    puts = [asyncio.ensure_future(sqlite.spool.put(deposit(f"Q{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    other.close()

    results = await asyncio.gather(*puts, return_exceptions=True)

    assert sum("slower" in str(result) for result in results) > 20
    assert sqlite.counts()[State.QUEUED] == results.count(None)


# -- cancellation -----------------------------------------------------------------------------------------------------


class _CancelledAt:
    """Runs a coroutine in the task that awaits this, and cancels that at its `number`-th await: as the wait begins, or
    as it is over and nobody has heard of it yet."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, *, late: bool) -> None:
        self._work = work
        self._number = number
        self._late = late
        self._awaits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        inner = self._work.__await__()
        value = None
        while True:
            try:
                waits_for = inner.send(value)
            except StopIteration as end:
                return end.value
            self._awaits += 1
            if self._awaits == self._number:
                if self._late:
                    waits_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                value = yield waits_for
            except asyncio.CancelledError as cancelled:
                yield from self._throw(inner, cancelled)

    @staticmethod
    def _throw(inner: Any, cancelled: BaseException) -> Generator[Any, Any, Any]:
        """What is cancelled may wait once more, to clean up."""
        waits_for = inner.throw(cancelled)
        while True:
            waits_for = inner.send((yield waits_for))


async def _cancelled_everywhere(work: Callable[[int], Coroutine[Any, Any, Any]], *, late: bool) -> int:
    """Do `work(n)` and cancel it at its n-th await, until one gets through; how often it was cancelled."""
    number = 0
    while True:
        number += 1
        if not await _cancelled(_CancelledAt(work(number), number, late=late)):
            return number - 1


async def _cancelled(work: _CancelledAt) -> bool:
    """Was it cancelled before it got through?"""

    async def run() -> None:
        await work

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.wait([task])
    return task.cancelled() or task.result() is not None


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["small", "large", "drafted"])
async def test_a_put_that_is_cancelled_has_stored_all_or_nothing(sqlite: SqliteHome, late: bool, kind: str) -> None:
    large = kind != "small"
    body = LARGE if large else b"\r\nhello\r\n"

    async def put(number: int) -> None:
        new = deposit(f"Q{number}", body=body)
        if kind == "drafted":
            new = in_draft(new, sqlite.spool)
        try:
            await sqlite.spool.put(new)
        finally:
            new.message.content.close()

    count = await _cancelled_everywhere(put, late=late)
    await sqlite.restart()

    assert count >= 1 + large
    claimed = await sqlite.spool.claim(100)
    assert claimed.damaged == ()
    kept = {claim.message.queue_id: b"".join(claim.message.content.body.chunks()) for claim in claimed.claims}
    assert set(kept.values()) == {body}
    assert f"Q{count + 1}" in kept
    assert {path.name for path in sqlite.contents.iterdir()} == (set(kept) if large else set())
    assert list(sqlite.quarantine.iterdir()) == []


async def test_a_put_whose_content_is_closed_when_it_is_cancelled_stores_no_part_of_it(sqlite: SqliteHome) -> None:
    """Whoever gave it closes it as soon as it is cancelled, whatever goes on here."""

    class Closing:
        """A body that can be closed."""

        def __init__(self) -> None:
            self._octets: bytes | None = LARGE
            self.size = len(LARGE)

        def chunks(self) -> Any:
            while self._octets is not None:
                yield self._octets[:65536]
                self._octets = self._octets[65536:] or None

        def close(self) -> None:
            self._octets = None

    async def put(number: int) -> None:
        new, body = deposit(f"Q{number}"), Closing()
        new = new._replace(message=new.message._replace(content=new.message.content._replace(body=body)))
        try:
            await sqlite.spool.put(new)
        finally:
            body.close()

    await _cancelled_everywhere(put, late=False)
    await sqlite.restart()

    claimed = await sqlite.spool.claim(100)
    assert claimed.damaged == ()
    assert {b"".join(claim.message.content.body.chunks()) for claim in claimed.claims} == {LARGE}


@pytest.mark.parametrize("late", [False, True])
async def test_a_claim_that_is_cancelled_is_given_back(sqlite: SqliteHome, late: bool) -> None:
    """Unmarked, because nobody has attempted it; and long before its lease is over."""
    for number in range(3):
        await sqlite.spool.put(deposit(f"Q{number}", body=LARGE))

    assert await _cancelled_everywhere(lambda _: sqlite.spool.claim(1), late=late) >= 1

    others = [claim.message.queue_id for claim in (await sqlite.spool.claim(10)).claims]
    await sqlite.restart()
    entries = (await sqlite.spool.page()).entries
    assert len(others) >= 1
    # Marked are those that were claimed and heard of when the spool was closed, and no others.
    assert sum(entry.maybe_twice for entry in entries) == 1 + len(others)


@pytest.mark.parametrize("late", [False, True])
async def test_a_claim_that_is_cancelled_comes_back_at_the_latest_with_the_end(sqlite: SqliteHome, late: bool) -> None:
    for number in range(3):
        await sqlite.spool.put(deposit(f"Q{number}"))
    await _cancelled(_CancelledAt(sqlite.spool.claim(10), 1, late=late))

    await sqlite.restart()

    assert not any(entry.maybe_twice for entry in (await sqlite.spool.page()).entries)
    assert len((await sqlite.spool.claim(10)).claims) == 3


async def test_what_could_not_be_given_back_in_time_is_given_back_no_more(
    sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease was over, and somebody else is attempting it now."""

    def fails(*_: Any, **named: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    await sqlite.spool.put(deposit("Q1"))
    with monkeypatch.context() as broken:
        broken.setattr(reading, "load_each", fails)
        broken.setattr(claims, "give_back", fails)
        with pytest.raises(SpoolUnavailable):
            await sqlite.spool.claim(10)
    sqlite.clock.advance(LEASE + 1)
    assert await sqlite.spool.reclaim(()) == ["Q1"]
    assert len((await sqlite.spool.claim(10)).claims) == 1

    await sqlite.spool.put(deposit("Q2"))
    with monkeypatch.context() as broken:
        broken.setattr(reading, "load_each", fails)
        with pytest.raises(SpoolUnavailable):
            await sqlite.spool.claim(10)

    entries = (await sqlite.spool.page()).entries
    assert [(entry.queue_id, entry.state) for entry in entries] == [("Q1", State.ACTIVE), ("Q2", State.QUEUED)]


async def test_a_claim_that_takes_longer_than_its_lease_to_be_read_is_not_lost(
    sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else it would be claimed once more, and sent by both."""
    begun, go_on = threading.Event(), threading.Event()
    load_each = reading.load_each

    def slowly(*arguments: Any, **named: Any) -> Any:
        begun.set()
        go_on.wait(10)
        return load_each(*arguments, **named)

    monkeypatch.setattr(reading, "load_each", slowly)
    await sqlite.spool.put(deposit("Q1"))
    claiming = asyncio.ensure_future(sqlite.spool.claim(10))
    await asyncio.to_thread(begun.wait, 10)
    sqlite.clock.advance(LEASE + 1)
    reclaimed = await sqlite.spool.reclaim(())
    go_on.set()
    (claim,) = (await claiming).claims

    assert reclaimed == []
    assert claim.message.queue_id == "Q1"
    assert await sqlite.spool.reclaim(()) == ["Q1"]  # whose claim it was does not know of it


@pytest.mark.parametrize("late", [False, True])
async def test_a_record_that_is_cancelled_is_written_whole(sqlite: SqliteHome, late: bool) -> None:
    """What SparkPost said is not forgotten because somebody stops waiting; and the file goes with the content."""
    for number in range(1, 4):
        await sqlite.spool.put(deposit(f"Q{number}", body=LARGE, claimed=True))

    count = await _cancelled_everywhere(lambda n: sqlite.spool.record(f"Q{n}", delivered()), late=late)
    await sqlite.restart()

    for number in range(1, count + 2):
        assert (await sqlite.spool.entry(f"Q{number}")).state is State.DELIVERED
        assert not (sqlite.contents / f"Q{number}").exists()


# -- the end ----------------------------------------------------------------------------------------------------------


async def test_what_was_begun_is_finished_when_the_spool_is_closed(sqlite: SqliteHome) -> None:
    puts = [
        asyncio.ensure_future(sqlite.spool.put(deposit(f"Q{number:02}", body=LARGE if number % 2 else b"\r\n")))
        for number in range(40)
    ]
    await asyncio.sleep(0)
    await sqlite.stop()
    results = await asyncio.gather(*puts, return_exceptions=True)
    await sqlite.start()

    stored = [f"Q{number:02}" for number, result in enumerate(results) if result is None]
    assert all(result is None or isinstance(result, SpoolUnavailable) for result in results)
    assert stored == sorted(entry.queue_id for entry in (await sqlite.spool.page()).entries)
    assert (await sqlite.spool.claim(100)).damaged == ()
    assert list(sqlite.quarantine.iterdir()) == []


async def test_a_closed_spool_says_so(sqlite: SqliteHome) -> None:
    spool = sqlite.spool
    await sqlite.stop()

    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.put(deposit("Q1"))
    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.put(deposit("Q2", body=LARGE))
    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.claim(1)
    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.stats()


async def test_a_spool_can_be_closed_while_its_disk_fails(sqlite: SqliteHome) -> None:
    await sqlite.restart()
    await sqlite.spool.put(deposit("Q1"))
    other = sqlite3.connect(sqlite.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolUnavailable):
        await sqlite.spool.put(deposit("Q2"))

    await sqlite.stop()

    other.execute("ROLLBACK")
    other.close()
    await sqlite.start()
    assert [entry.queue_id for entry in (await sqlite.spool.page()).entries] == ["Q1"]
