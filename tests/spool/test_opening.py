"""Opening a spool: its schema, other people's files, and one relay at a time."""

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from relay.core.lifecycle import State
from relay.spool import database
from relay.spool.ballast import Ballast
from relay.spool.database import APPLICATION_ID, SCHEMA_VERSION, SpoolFull, SpoolUnusable
from relay.spool.lock import Holder, SpoolInUse, holder
from relay.spool.opening import open_spool, path_of
from relay.spool.sqlite import SqliteSpool
from tests.spool.driven import driven, make_read_only, small_disk
from tests.spool.homes import SqliteHome
from tests.support.clock import ManualClock
from tests.support.mail import deposit


async def _open(path: Path, **options: object) -> SqliteSpool:
    return await open_spool(path, ManualClock(), reserve=0, **options)  # type: ignore[arg-type]


async def _refused(path: Path) -> str:
    """What is said about a file that cannot be a spool."""
    with pytest.raises(SpoolUnusable) as refused:
        await _open(path)
    assert holder(path) is None
    assert str(path) in str(refused.value)
    return str(refused.value)


# -- schema -----------------------------------------------------------------------------------------------------------


async def test_broken_off_in_its_last_step_it_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that is told to stop while it starts: the next one finds the spool free."""
    path, begun, gate = tmp_path / "spool.db", asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def put_by(_: Ballast) -> None:
        loop.call_soon_threadsafe(begun.set)
        gate.wait(10)

    monkeypatch.setattr(Ballast, "put_by", put_by)
    opening = asyncio.ensure_future(_open(path))
    await begun.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    gate.set()

    assert holder(path) is None


async def test_a_new_spool_has_the_schema_of_this_version(sqlite: SqliteHome) -> None:
    assert sqlite.sql("PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert sqlite.sql("PRAGMA application_id") == [(APPLICATION_ID,)]
    assert sqlite.sql("PRAGMA journal_mode") == [("wal",)]
    assert sqlite.sql("PRAGMA integrity_check") == [("ok",)]


async def test_an_older_schema_is_brought_up_to_date_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrations are run one after the other, in one transaction; the mail stays."""
    path = tmp_path / "spool.db"
    spool = await _open(path)
    await spool.put(deposit("Q1"))
    await spool.close()
    later = [(SCHEMA_VERSION + 1, "ALTER TABLE message ADD COLUMN first TEXT;\n")]
    later.append((SCHEMA_VERSION + 2, "-- fills what the one before has made\nUPDATE message\n   SET first = 'yes';\n"))
    monkeypatch.setattr(database, "_MIGRATIONS", [*database._MIGRATIONS, *later])
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 2)

    spool = await _open(path)
    entry = await spool.entry("Q1")
    await spool.close()

    assert entry.state is State.QUEUED
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT first FROM message").fetchall() == [("yes",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 2,)
    connection.close()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spool.db"
    await (await _open(path)).close()
    with monkeypatch.context() as broken:
        bad = (SCHEMA_VERSION + 1, "ALTER TABLE message ADD COLUMN first TEXT;\nUPDATE absent SET x = 1;\n")
        broken.setattr(database, "_MIGRATIONS", [*database._MIGRATIONS, bad])
        broken.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        assert "no such table: absent" in await _refused(path)

    spool = await _open(path)
    await spool.put(deposit("Q1"))
    await spool.close()


async def test_the_file_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    await (await _open(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1000")
    connection.close()

    said = await _refused(path)

    assert "newer version of sparkpost-relay" in said
    assert f"its schema is 1000, this program knows {SCHEMA_VERSION}" in said


async def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    assert "another program" in await _refused(path)

    assert path.read_bytes() == before


async def test_a_spool_whose_beginning_is_destroyed_is_left_as_it_is_and_told_of(tmp_path: Path) -> None:
    """A crash may leave zeros where its first page was: the mail behind it is to be kept."""
    path = tmp_path / "spool.db"
    await (await _open(path)).close()
    with path.open("r+b") as file:
        file.write(bytes(4096))
    before = path.read_bytes()

    said = await _refused(path)
    assert "its beginning is destroyed" in said
    assert "move it away with all that lies beside it, and keep it" in said
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("do not forget the milk\n" * 100)

    assert "no database" in await _refused(path)

    assert path.read_text() == "do not forget the milk\n" * 100


@pytest.mark.parametrize("left_over", ["spool.db.content", "spool.db"])
async def test_a_place_that_is_taken_by_something_else_is_refused(tmp_path: Path, left_over: str) -> None:
    """A file where the contents belong; a directory where the database belongs."""
    if left_over == "spool.db":
        (tmp_path / left_over).mkdir()
    else:
        (tmp_path / left_over).write_text("")

    assert "spool.url: none" in await _refused(tmp_path / "spool.db")


async def test_a_directory_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    said = await _refused(tmp_path / "nowhere" / "spool.db")

    assert "No such file or directory" in said
    assert "spool.url: none" in said


async def test_a_read_only_disk_is_refused_at_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        await (await _open(disk / "spool.db")).close()
        make_read_only(disk)

        assert "Read-only file system" in await _refused(disk / "spool.db")


@pytest.mark.parametrize(("was_there", "room"), [(False, 0), (False, 16), (False, 64), (True, 0), (True, 16)])
async def test_a_full_disk_is_said_to_be_full_and_may_have_room_later(
    tmp_path: Path, was_there: bool, room: int
) -> None:
    """Whatever finds no room: a file, the database, or the index of its log, of which SQLite says "disk I/O error"."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        path, ballast = disk / "spool.db", disk / "ballast"
        if was_there:
            await (await _open(path)).close()
        status = os.statvfs(disk)
        ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - room * 1024))
        with pytest.raises(SpoolFull, match="the disk is full"):
            await _open(path)
        ballast.unlink()

        await (await _open(path)).close()


async def test_a_disk_that_has_room_and_no_inodes_is_full_and_the_relay_may_be_started_later(tmp_path: Path) -> None:
    """It cannot make the log: of that SQLite says no more than that it cannot open it."""
    with small_disk(tmp_path / "disk", "12m,nr_inodes=40") as disk:
        path = disk / "spool.db"
        await (await _open(path)).close()
        with contextlib.suppress(OSError):
            for number in range(40):
                (disk / f"other-{number}").touch()

        with pytest.raises(SpoolFull, match="has no inodes left"):
            await _open(path)

        for other in disk.glob("other-*"):
            other.unlink()
        await (await _open(path)).close()


def test_a_url_names_a_file() -> None:
    assert path_of("sqlite:/var/lib/sparkpost-relay/spool.db") == Path("/var/lib/sparkpost-relay/spool.db")
    assert path_of("sqlite:spool.db") == Path("spool.db")


# -- one relay at a time ----------------------------------------------------------------------------------------------


async def test_a_second_relay_is_refused_and_told_who_has_the_spool(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    async with driven(path, preload=False) as first:
        with pytest.raises(SpoolInUse, match=r"in use by the process \d+: one relay a spool") as refused:
            await _open(path)
        assert refused.value.holder is not None
        assert refused.value.holder == holder(path)

        await first.ask("put", "Q1")  # it was not disturbed
        await first.end()

    spool = await _open(path)
    assert holder(path) == Holder(os.getpid())
    await spool.close()
    assert holder(path) is None


async def test_a_link_leads_to_the_same_spool_and_the_same_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real" / "spool.db")
    spool = await _open(link)
    try:
        await spool.put(deposit("Q1"))

        with pytest.raises(SpoolInUse):
            await _open(tmp_path / "real" / "spool.db")
        assert holder(link) == holder(tmp_path / "real" / "spool.db") == Holder(os.getpid())
        assert sorted(os.listdir(tmp_path)) == ["link.db", "real"]
    finally:
        await spool.close()


async def test_after_a_kill_the_spool_opens_whoever_the_note_names(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    async with driven(path, preload=False) as first:
        await first.ask("put", "Q1")
        await first.kill()
    assert "pid" in json.loads((tmp_path / "spool.db.lock").read_bytes())

    assert holder(path) is None
    spool = await _open(path)
    assert (await spool.entry("Q1")).state is State.QUEUED
    await spool.close()


async def test_a_look_at_the_lock_keeps_no_relay_from_starting(tmp_path: Path) -> None:
    """Whoever asks who has it (`holder`) has it for an instant, and that long a relay waits that is about to start."""
    path = tmp_path / "spool.db"
    await (await _open(path)).close()
    asking = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(asking, fcntl.LOCK_SH)
    opening = asyncio.ensure_future(_open(path))
    await asyncio.sleep(0)
    waits = not opening.done()
    os.close(asking)
    await (await opening).close()

    assert waits


async def test_the_note_says_where_the_admin_server_of_the_relay_is(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = await _open(path, socket="/run/relay/admin.sock")
    try:
        assert holder(path) == Holder(os.getpid(), "/run/relay/admin.sock")
    finally:
        await spool.close()


async def test_a_note_that_cannot_be_read_still_means_that_somebody_has_it(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = await _open(path)
    try:
        (tmp_path / "spool.db.lock").write_bytes(b"[1, 2")

        assert holder(path) == Holder(0)
        with pytest.raises(SpoolInUse, match="another process"):
            await _open(path)
    finally:
        await spool.close()


def test_where_there_was_never_a_spool_nobody_has_it(tmp_path: Path) -> None:
    assert holder(tmp_path / "spool.db") is None
