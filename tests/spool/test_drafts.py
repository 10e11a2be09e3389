"""Large bodies that are in the spool's directory before anybody knows whether they will be stored."""

import errno
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.spooled import Deposit, SpoolUnavailable
from relay.ingress.body import StoredBody
from relay.spool.content import joined
from relay.spool.opening import open_spool
from tests.spool.driven import driven, small_disk
from tests.spool.homes import SqliteHome
from tests.support.clock import ManualClock
from tests.support.mail import LARGE, delivered, deposit, in_draft


def _body(deposit: Deposit) -> bytes:
    return b"".join(deposit.message.content.body.chunks())


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_what_is_stored_is_not_written_again(sqlite: SqliteHome) -> None:
    """The draft is the file: the same inode under another name. The attempt that goes on reads it still."""
    new = in_draft(deposit("Q1", body=LARGE), sqlite.spool)
    (draft,) = sqlite.contents.iterdir()
    inode, mode = draft.stat().st_ino, draft.stat().st_mode & 0o777

    await sqlite.spool.put(new)

    assert _files(sqlite.contents) == ["Q1"]
    assert (sqlite.contents / "Q1").stat().st_ino == inode
    assert mode == 0o600
    assert _body(new) == LARGE
    new.message.content.close()
    (claim,) = (await sqlite.spool.claim(10)).claims  # which looks at the checksum
    assert b"".join(claim.message.content.body.chunks()) == LARGE
    await sqlite.spool.record("Q1", delivered())
    await sqlite.stop()
    assert _files(sqlite.contents) == []


async def test_what_is_not_stored_is_gone_when_it_is_closed(sqlite: SqliteHome) -> None:
    new = in_draft(deposit("Q1", body=LARGE), sqlite.spool)

    new.message.content.close()
    new.message.content.close()

    assert _files(sqlite.contents) == []


async def test_what_the_disk_does_not_let_go_of_is_closed_all_the_same(
    sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has become read-only is no reason for a session not to end. The file goes at the next start."""
    new = in_draft(deposit("Q1", body=LARGE), sqlite.spool)
    body = new.message.content.body
    assert isinstance(body, StoredBody)
    assert body.file is not None

    def refuses(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr(Path, "unlink", refuses)
        body.close()

    assert body.file.closed
    await sqlite.restart()
    assert _files(sqlite.contents) == []


async def test_drafts_of_a_process_that_died_are_no_mail(sqlite: SqliteHome) -> None:
    """Nobody was told that they are there: they are neither sent nor kept for the operator."""
    new = in_draft(deposit("Q1", body=LARGE), sqlite.spool)
    await sqlite.crash()
    new.message.content.close()

    assert _files(sqlite.contents) == []
    assert _files(sqlite.quarantine) == []
    assert (await sqlite.spool.page()).entries == ()


async def test_a_name_that_is_taken_is_left_alone(sqlite: SqliteHome) -> None:
    await sqlite.spool.put(deposit("Q1", body=LARGE))
    new = in_draft(deposit("Q1", body=LARGE[::-1]), sqlite.spool)

    with pytest.raises(SpoolUnavailable):
        await sqlite.spool.put(new)

    assert _body(new) == LARGE[::-1]
    new.message.content.close()
    assert _files(sqlite.contents) == ["Q1"]
    assert (sqlite.contents / "Q1").read_bytes() == LARGE


async def test_a_draft_that_could_not_be_stored_can_be_stored_later(
    sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt went on meanwhile, and what it came to is to be stored with the message: by a copy now."""
    new = in_draft(deposit("Q1", body=LARGE), sqlite.spool)

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(SpoolUnavailable):
            await sqlite.spool.put(new)
    assert _files(sqlite.contents) == []
    assert _body(new) == LARGE

    await sqlite.spool.put(new)
    new.message.content.close()

    assert (sqlite.contents / "Q1").read_bytes() == LARGE


async def test_no_descriptors_left_is_no_defect(sqlite: SqliteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft stays its sender's: it is refused, and gone when it is closed."""
    new = in_draft(deposit("Q1", body=LARGE), sqlite.spool)

    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as crowded:
        crowded.setattr(os, "dup", none_left)
        with pytest.raises(SpoolUnavailable, match="Too many open files"):
            await sqlite.spool.put(new)
    assert sqlite.spool.problem is not None

    assert _body(new) == LARGE
    new.message.content.close()
    assert _files(sqlite.contents) == []


async def test_where_there_is_no_room_for_drafts_there_are_none(tmp_path: Path) -> None:
    """Bodies go to temporary files then, as without a spool; one that is a draft already has no more room."""
    with small_disk(tmp_path / "disk", "6m") as disk:
        spool = await open_spool(disk / "spool.db", ManualClock(), reserve=2_000_000)
        body = StoredBody(drafts=spool)
        body.append(LARGE)
        assert not body.in_memory
        (disk / "ballast").write_bytes(bytes(4_500_000))

        with pytest.raises(OSError, match="reserve"):
            body.append(LARGE * 20)
        assert spool.draft() is None

        body.close()
        await spool.close()


async def test_a_directory_that_cannot_be_written_is_told(sqlite: SqliteHome) -> None:
    """Mail is not taken into the spool then; what is sent while the application waits needs no draft."""
    sqlite.contents.rmdir()

    assert sqlite.spool.draft() is None
    assert sqlite.spool.problem is not None

    sqlite.contents.mkdir()


async def test_a_draft_whose_sync_fails_is_no_message(tmp_path: Path) -> None:
    async with driven(tmp_path / "spool.db") as spool:
        spool.fail("fsync", "spool.db.content/")
        with pytest.raises(SpoolUnavailable):
            await spool.ask("put", "Q1", large=True, drafted=True)
        spool.work()
        await spool.ask("heal")
        await spool.ask("put", "Q2", large=True, drafted=True)

        assert list(await spool.ask("entries")) == ["Q2"]
        assert await spool.ask("intact", "Q2")


@given(first=st.binary(max_size=300), second=st.binary(max_size=3000))
def test_a_checksum_of_both_from_that_of_each(first: bytes, second: bytes) -> None:
    assert joined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)
