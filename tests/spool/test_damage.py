"""A damaged message is put aside, held and named; it harms no other, and never stops the relay."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.lifecycle import Event, State
from relay.core.spooled import SpoolUnavailable
from relay.spool.content import FileBody
from relay.spool.database import SpoolUnusable
from tests.spool.homes import SqliteHome
from tests.support.mail import LARGE, SMALL, bounced, deposit


def _tear(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)


def _cut(path: Path) -> None:
    os.truncate(path, 1000)


FILES = {
    "one bit is wrong": (_tear, "torn"),
    "it was cut short": (_cut, "torn"),
    "it is gone": (Path.unlink, "No such file"),
}


@pytest.mark.parametrize("damage", FILES)
async def test_a_damaged_content_file_holds_its_message(sqlite: SqliteHome, damage: str) -> None:
    harm, words = FILES[damage]
    for queue_id in ("Q1", "Q2", "Q3"):
        await sqlite.spool.put(deposit(queue_id, body=LARGE))
        sqlite.clock.advance(1)
    harm(sqlite.contents / "Q2")

    claimed = await sqlite.spool.claim(10)

    assert [claim.message.queue_id for claim in claimed.claims] == ["Q1", "Q3"]
    (damaged,) = claimed.damaged
    assert damaged.queue_id == "Q2"
    assert words in damaged.reason
    entry = await sqlite.spool.entry("Q2")
    assert (entry.state, entry.reason) == (State.HELD, damaged.reason)
    assert (sqlite.quarantine / "Q2").exists() == (damage != "it is gone")
    assert sqlite.spool.problem is None


ROWS = {
    "a recipient's address": "UPDATE recipient SET address = 'nobody at all' WHERE message = 2",
    "the reverse-path": "UPDATE message SET reverse_path = x'ff00' WHERE id = 2",
    "a fate": "UPDATE recipient SET fate = 'lucky' WHERE message = 2",
    "a time": "UPDATE message SET expires = 'soon' WHERE id = 2",
    "the content": "UPDATE content SET body = x'00' WHERE message = 2",
    "the checksum": "UPDATE content SET crc = 1 WHERE message = 2",
    "the header, gone": "UPDATE content SET header = '' WHERE message = 2",
    "the content, gone": "DELETE FROM content WHERE message = 2",
    "the body, gone": "UPDATE content SET body = NULL WHERE message = 2",
}


@pytest.mark.parametrize("damage", ROWS)
async def test_a_damaged_row_holds_its_message(sqlite: SqliteHome, damage: str) -> None:
    for queue_id in ("Q1", "Q2", "Q3"):
        await sqlite.spool.put(deposit(queue_id))
        sqlite.clock.advance(1)
    sqlite.sql(ROWS[damage])

    claimed = await sqlite.spool.claim(10)

    assert [claim.message.queue_id for claim in claimed.claims] == ["Q1", "Q3"]
    assert [damaged.queue_id for damaged in claimed.damaged] == ["Q2"]
    assert sqlite.counts()[State.HELD] == 1


async def test_a_damaged_message_can_be_deleted_and_one_that_was_mended_be_released(sqlite: SqliteHome) -> None:
    for queue_id in ("Q1", "Q2"):
        await sqlite.spool.put(deposit(queue_id, body=LARGE))
        _tear(sqlite.contents / queue_id)
    await sqlite.spool.claim(10)

    assert await sqlite.spool.act("Q1", Event.DELETE) is State.DELETED
    (sqlite.contents / "Q2").write_bytes(LARGE)
    assert await sqlite.spool.act("Q2", Event.RELEASE) is State.QUEUED
    (claim,) = (await sqlite.spool.claim(10)).claims
    assert b"".join(claim.message.content.body.chunks()) == LARGE


async def test_a_page_of_the_database_that_is_torn_stops_neither_other_mail_nor_new(sqlite: SqliteHome) -> None:
    """The octets of a body that spans pages of its own are overwritten on the disk."""
    body = b"\r\n" + b"a line of sixty-four octets that is easily found on the disk...\r\n" * 400
    for queue_id in ("Q1", "Q2", "Q3"):
        await sqlite.spool.put(deposit(queue_id, body=body))
        sqlite.clock.advance(1)
    await sqlite.stop()
    octets = bytearray(sqlite.path.read_bytes())
    pages = [at for at in range(0, len(octets), 4096) if b"easily found" in octets[at : at + 4096]]
    middle = pages[len(pages) // 2]
    octets[middle : middle + 4096] = b"\xff" * 4096
    sqlite.path.write_bytes(octets)
    await sqlite.start()

    claimed = await sqlite.spool.claim(10)
    await sqlite.spool.put(deposit("Q4"))

    assert len(claimed.claims) == 2
    assert len(claimed.damaged) == 1
    assert [claim.message.queue_id for claim in (await sqlite.spool.claim(10)).claims] == ["Q4"]


async def test_a_database_that_cannot_be_opened_any_more_is_told_with_the_remedy(sqlite: SqliteHome) -> None:
    """Not with that of a missing directory, which is there."""
    await sqlite.spool.put(deposit("Q1"))
    ((page,),) = sqlite.sql("SELECT rootpage FROM sqlite_master WHERE name = 'meta'")
    await sqlite.stop()
    octets = bytearray(sqlite.path.read_bytes())
    at = 4096 * (int(str(page)) - 1)
    octets[at : at + 4096] = b"\xff" * 4096
    sqlite.path.write_bytes(octets)

    with pytest.raises(SpoolUnusable, match=r"is damaged, and cannot be opened: .*malformed\. Move it away") as told:
        await sqlite.start()
    assert "directory must be there" not in str(told.value)


async def test_a_queue_that_is_torn_is_told_with_the_remedy(sqlite: SqliteHome) -> None:
    """Where the rows of the queue themselves are gone, nobody can claim any: that must not pass for an empty queue."""
    await sqlite.spool.put(deposit("Q1"))
    ((page,),) = sqlite.sql("SELECT rootpage FROM sqlite_master WHERE name = 'message'")
    await sqlite.stop()
    octets = bytearray(sqlite.path.read_bytes())
    at = 4096 * (int(str(page)) - 1)
    octets[at : at + 4096] = b"\xff" * 4096
    sqlite.path.write_bytes(octets)
    await sqlite.start()

    for _ in range(2):
        with pytest.raises(SpoolUnavailable, match="malformed"):
            await sqlite.spool.claim(10)
        await sqlite.spool.renew(())

    assert "is damaged, and no mail can be claimed" in (sqlite.spool.problem or "")
    assert ".recover" in (sqlite.spool.problem or "")


async def test_no_descriptors_left_is_no_damage(sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be opened at the moment is claimed later, unmarked, and is not put aside."""
    await sqlite.spool.put(deposit("Q1", body=LARGE))
    await sqlite.spool.put(deposit("Q2"))

    def none_left(body: FileBody) -> Iterator[bytes]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as broken:
        broken.setattr(FileBody, "chunks", none_left)
        with pytest.raises(SpoolUnavailable, match="Too many open files"):
            await sqlite.spool.claim(10)

    claims = (await sqlite.spool.claim(10)).claims
    assert sorted(claim.message.queue_id for claim in claims) == ["Q1", "Q2"]
    assert not (await sqlite.spool.entry("Q1")).maybe_twice


# -- files without a message, messages without need of one -------------------------------------------------------------


async def test_a_file_without_a_message_goes_to_the_quarantine_at_the_start(sqlite: SqliteHome) -> None:
    await sqlite.spool.put(deposit("Q1", body=LARGE))
    (sqlite.contents / "Q7").write_bytes(b"half a mess")
    await sqlite.restart()

    assert (sqlite.quarantine / "Q7").read_bytes() == b"half a mess"
    assert [path.name for path in sqlite.contents.iterdir()] == ["Q1"]
    (claim,) = (await sqlite.spool.claim(10)).claims
    assert claim.message.queue_id == "Q1"


async def test_a_file_nobody_needs_any_more_is_removed_at_the_start(sqlite: SqliteHome) -> None:
    """As when the relay died between the commit and the removal."""
    await sqlite.spool.put(deposit("Q1", body=LARGE))
    await sqlite.spool.act("Q1", Event.DELETE)
    await sqlite.stop()
    (sqlite.contents / "Q1").write_bytes(LARGE)
    await sqlite.start()
    await sqlite.stop()

    assert list(sqlite.contents.iterdir()) == []
    assert list(sqlite.quarantine.iterdir()) == []


@pytest.mark.parametrize("end", ["deleted", "purged"])
async def test_the_file_goes_with_the_content(sqlite: SqliteHome, end: str) -> None:
    await sqlite.spool.put(deposit("Q1", body=LARGE, record=bounced()))
    assert (sqlite.contents / "Q1").exists()
    if end == "deleted":
        await sqlite.spool.act("Q1", Event.DELETE)
    else:
        sqlite.clock.advance(10)
        await sqlite.spool.purge(failed_for=1, ended_for=1)
    await sqlite.stop()

    assert list(sqlite.contents.iterdir()) == []


async def test_nobody_but_the_relay_may_read_the_mail(sqlite: SqliteHome) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        await sqlite.spool.put(deposit("Q1", body=LARGE))
        await sqlite.spool.put(deposit("Q2", body=SMALL))
        modes = {path.name: path.stat().st_mode & 0o777 for path in sqlite.directory.rglob("*")}
    finally:
        os.umask(before)

    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
