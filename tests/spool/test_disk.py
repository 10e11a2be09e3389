"""What becomes of the spool's promises when the disk fails: named faults, each with what the relay makes of it."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.spooled import SpoolUnavailable
from tests.spool.driven import Driven, driven

LOG, DATABASE, CONTENT, DIRECTORY = "spool.db-wal$", "spool.db$", "spool.db.content/", "spool.db.content$"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk" / "spool.db"


@pytest.fixture
async def spool(database: Path) -> AsyncIterator[Driven]:
    async with driven(database) as process:
        yield process


def _files(database: Path) -> list[str]:
    """The content files, without the one that a look at the disk makes."""
    directory = database.with_name("spool.db.content")
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


FAULTS = {
    "fsync error of the log": ("fsync", LOG, False, errno.EIO),
    "fsync error of the log that tells of a file": ("fsync", LOG, True, errno.EIO),
    "EIO at the log": ("write", LOG, False, errno.EIO),
    "log on a disk that became read-only": ("write", LOG, False, errno.EROFS),
    "fsync error of a content file": ("fsync", CONTENT, True, errno.EIO),
    "EIO at a content file": ("write", CONTENT, True, errno.EIO),
    "fsync error of the content directory": ("fsync", DIRECTORY, True, errno.EIO),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_put_that_meets_a_fault_is_refused_and_the_spool_heals_by_itself(
    spool: Driven, database: Path, fault: str
) -> None:
    kind, path, large, number = FAULTS[fault]
    await spool.ask("put", "Q1", large=large)
    spool.fail(kind, path, errno=number)

    with pytest.raises(SpoolUnavailable) as refused:
        await spool.ask("put", "Q2", large=large)
    assert not refused.value.full
    with pytest.raises(SpoolUnavailable):
        await spool.ask("put", "Q3", large=large)
    assert await spool.ask("problem") is not None

    spool.work()
    await spool.ask("heal")
    await spool.ask("put", "Q4", large=large)

    await spool.kill()
    async with driven(database) as after:
        assert sorted(await after.ask("entries")) == ["Q1", "Q4"]
        assert [await after.ask("intact", queue_id) for queue_id in ("Q1", "Q4")] == [True, True]
        assert _files(database) == (["Q1", "Q4"] if large else [])


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_kill_while_the_disk_fails_leaves_all_that_was_promised_and_nothing_torn(
    spool: Driven, database: Path, fault: str
) -> None:
    """A refused message may be there after all, but then it is whole: its commit stood in the log already."""
    kind, path, large, number = FAULTS[fault]
    await spool.ask("put", "Q1", large=large)
    spool.fail(kind, path, errno=number)
    with pytest.raises(SpoolUnavailable):
        await spool.ask("put", "Q2", large=large)

    await spool.kill()
    spool.work()

    async with driven(database) as after:
        entries = await after.ask("entries")
        assert "Q1" in entries
        assert (await after.ask("claim"))["damaged"] == {}
        for queue_id in entries:
            assert await after.ask("intact", queue_id)


@pytest.mark.parametrize(("path", "large"), [(LOG, False), (CONTENT, True)])
async def test_a_full_disk_is_said_to_be_full(spool: Driven, path: str, large: bool) -> None:
    spool.fail("write", path, errno=errno.ENOSPC)

    with pytest.raises(SpoolUnavailable) as refused:
        await spool.ask("put", "Q1", large=large)

    assert refused.value.full
    spool.work()
    await spool.ask("heal")
    await spool.ask("put", "Q1", large=large)


@pytest.mark.parametrize("large", [False, True])
async def test_a_quota_that_is_used_up_is_a_full_disk(spool: Driven, large: bool) -> None:
    """SQLite does not say so: for it that is a disk that is broken."""
    spool.fail("write", LOG, CONTENT, errno=errno.EDQUOT)

    with pytest.raises(SpoolUnavailable, match="quota exceeded") as refused:
        await spool.ask("put", "Q1", large=large)

    assert refused.value.full
    spool.work()
    await spool.ask("heal")
    await spool.ask("put", "Q1", large=large)


async def test_small_mail_goes_on_while_only_content_files_fail(spool: Driven) -> None:
    spool.fail("fsync", CONTENT)
    with pytest.raises(SpoolUnavailable):
        await spool.ask("put", "Q1", large=True)

    await spool.ask("put", "Q2")


async def test_after_an_error_of_the_log_nothing_is_promised_until_the_log_is_in_the_database(
    spool: Driven, database: Path
) -> None:
    """The log can be synced again, the database cannot: what the log still holds is not safe yet."""
    await spool.ask("put", "Q1")
    spool.fail("fsync", LOG, DATABASE)
    with pytest.raises(SpoolUnavailable):
        await spool.ask("put", "Q2")

    spool.fail("fsync", DATABASE)
    with pytest.raises(SpoolUnavailable):
        await spool.ask("put", "Q3")

    spool.work()
    log = database.with_name("spool.db-wal")
    before = log.stat().st_size
    await spool.ask("heal")
    await spool.ask("put", "Q4")
    assert log.stat().st_size < before + 100_000
    await spool.kill()
    async with driven(database) as after:
        assert {"Q1", "Q4"} <= set(await after.ask("entries"))


async def test_what_sparkpost_said_can_be_written_once_the_disk_is_well_again(spool: Driven) -> None:
    await spool.ask("put", "Q1", claimed=True)
    spool.fail("fsync", LOG)

    with pytest.raises(SpoolUnavailable):
        await spool.ask("deliver", "Q1")
    assert (await spool.ask("entries"))["Q1"] == ["active", False]

    spool.work()
    await spool.ask("heal")
    await spool.ask("deliver", "Q1")
    assert (await spool.ask("entries"))["Q1"] == ["delivered", False]


async def test_a_claim_that_could_not_be_written_is_nobodys(spool: Driven) -> None:
    await spool.ask("put", "Q1")
    spool.fail("fsync", LOG)
    with pytest.raises(SpoolUnavailable):
        await spool.ask("claim")

    spool.work()
    await spool.ask("heal")

    assert (await spool.ask("claim"))["claims"] == ["Q1"]
    assert (await spool.ask("entries"))["Q1"] == ["active", False]


async def test_a_content_file_that_cannot_be_read_is_put_aside_and_its_message_held(
    spool: Driven, database: Path
) -> None:
    for queue_id in ("Q1", "Q2"):
        await spool.ask("put", queue_id, large=True)
    spool.fail("read", CONTENT + "Q1")

    claimed = await spool.ask("claim")

    assert claimed["claims"] == ["Q2"]
    assert "Input/output error" in claimed["damaged"]["Q1"]
    aside = database.with_name("spool.db.quarantine") / "Q1"
    assert str(aside) in claimed["damaged"]["Q1"]
    assert aside.exists()
    assert (await spool.ask("entries"))["Q1"] == ["held", False]
    assert await spool.ask("problem") is None


async def test_a_database_that_cannot_be_read_for_a_while_loses_nothing(spool: Driven, database: Path) -> None:
    for number in range(20):
        await spool.ask("put", f"Q{number:02}")
    await spool.kill()  # so that nothing is left in memory

    async with driven(database) as after:
        after.fail("read", DATABASE, LOG)
        with pytest.raises(SpoolUnavailable):
            await after.ask("claim")
        after.work()

        claimed = await after.ask("claim")
        await after.ask("heal")
        held = [queue_id for queue_id, (state, _) in (await after.ask("entries")).items() if state == "held"]
        assert len(claimed["claims"]) + len(held) == 20


async def test_a_database_that_cannot_be_synced_is_noticed_though_the_log_still_can(
    spool: Driven, database: Path
) -> None:
    """What is promised is safe in the log meanwhile; but that grows, and nobody would hear of it."""
    spool.fail("fsync", DATABASE)
    promised: list[str] = []
    while await spool.ask("problem") is None and len(promised) < 100:
        promised.append(f"Q{len(promised):03}")
        await spool.ask("put", promised[-1], size=100_000)
    assert 10 < len(promised) < 100

    spool.work()
    await spool.ask("heal")
    await spool.ask("put", "Q900")
    await spool.kill()

    async with driven(database) as after:
        assert list(await after.ask("entries")) == [*promised, "Q900"]
