"""Room that is put by: the disk is full of other people's files, and the mail that is here goes on."""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.core.lifecycle import State
from relay.core.spooled import SpoolUnavailable
from relay.observe import log as events
from relay.spool.ballast import SIZE, Ballast
from relay.spool.database import SpoolFull
from relay.spool.opening import open_spool
from relay.spool.room import free
from tests.spool.driven import small_disk
from tests.support.clock import ManualClock
from tests.support.mail import LARGE, delivered, deposit

RESERVE = 4 * 1024 * 1024
LONG_AGO = {"failed_for": 1e9, "ended_for": 1e9}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "12m") as disk:
        yield disk


@asynccontextmanager
async def opened(disk: Path, reserve: int = RESERVE) -> Any:
    spool = await open_spool(disk / "spool.db", ManualClock(), reserve=reserve)
    try:
        yield spool
    finally:
        await spool.close()


@contextmanager
def full(disk: Path, name: str = "others") -> Iterator[None]:
    """Others have filled it to the last octet."""
    others = disk / name
    others.write_bytes(bytes(free(disk)))
    assert free(disk) == 0
    try:
        yield
    finally:
        others.unlink()


def ballast_of(disk: Path) -> Path:
    return disk / "spool.db.ballast"


async def test_half_of_the_reserve_is_put_by_and_really_taken_from_the_disk(disk: Path) -> None:
    before = free(disk)
    async with opened(disk):
        status = ballast_of(disk).stat()
        assert free(disk) < before - RESERVE // 2

    assert status.st_size == RESERVE // 2
    assert status.st_blocks * 512 == status.st_size
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_however_large_the_reserve_no_more_is_put_by_than_the_log_needs(tmp_path: Path) -> None:
    Ballast(tmp_path / "spool.db", 2 * SIZE + 1_000_000).put_by()

    assert ballast_of(tmp_path).stat().st_size == SIZE


@pytest.mark.parametrize("reserve", [0, 9_000_000], ids=["no reserve", "too little room"])
async def test_nothing_is_put_by_at_the_expense_of_the_reserve(disk: Path, reserve: int) -> None:
    async with opened(disk, reserve) as spool:
        assert not ballast_of(disk).exists()
        await spool.put(deposit("Q1"))


async def test_what_is_put_by_already_stays_as_it_is(disk: Path) -> None:
    async with opened(disk):
        pass
    before = ballast_of(disk).stat()

    async with opened(disk) as spool:
        await spool.purge(**LONG_AGO)
    async with opened(disk, reserve=0):  # the commands of an operator, while no relay runs
        pass

    assert ballast_of(disk).stat().st_mtime_ns == before.st_mtime_ns
    assert ballast_of(disk).stat().st_ino == before.st_ino


async def test_while_the_disk_is_full_stored_mail_is_claimed_and_settled_and_new_mail_refused(disk: Path) -> None:
    async with opened(disk) as spool:
        for number in range(20):
            await spool.put(deposit(f"Q{number:02}", body=LARGE[:100_000]))
        with full(disk), capture_logs() as logs:
            claimed = await spool.claim(20)
            await asyncio.gather(*(spool.record(claim.message.queue_id, delivered()) for claim in claimed.claims))

            for body in (b"\r\nsmall\r\n", LARGE):
                with pytest.raises(SpoolUnavailable, match="are kept in reserve") as refused:
                    await spool.put(deposit("Q90", body=body))
                assert refused.value.full
            assert spool.problem is not None
            assert not ballast_of(disk).exists()
            assert [one for one in logs if one["event"] == events.SPOOL_BALLAST] == [
                {
                    "event": events.SPOOL_BALLAST,
                    "log_level": "warning",
                    "path": str(ballast_of(disk)),
                    "octets": RESERVE // 4,
                }
            ] * 2
            assert events.SPOOL_DOWN not in [one["event"] for one in logs]

        assert (await spool.stats()).messages[State.DELIVERED] == 20
        assert not ballast_of(disk).exists()
        await spool.purge(**LONG_AGO)
        assert ballast_of(disk).stat().st_size == RESERVE // 2
        async with asyncio.timeout(10):
            while spool.problem is not None:  # noqa: ASYNC110 - it is asked, as load balancers ask
                await asyncio.sleep(0.01)
        await spool.put(deposit("Q91"))


async def test_however_much_mail_waits_on_a_full_disk_its_log_does_not_take_what_the_database_needs(disk: Path) -> None:
    """To settle it takes a log several times as long as what was put by."""
    async with opened(disk) as spool:
        await asyncio.gather(*(spool.put(deposit(f"Q{number:03}")) for number in range(400)))

    with full(disk):
        async with opened(disk) as spool:
            while claimed := (await spool.claim(20)).claims:
                for claim in claimed:
                    await spool.record(claim.message.queue_id, delivered())

            assert (await spool.stats()).messages[State.DELIVERED] == 400
            assert (disk / "spool.db-wal").stat().st_size < RESERVE // 2
            assert ballast_of(disk).exists()


async def test_what_is_given_up_others_may_take_and_there_is_more(disk: Path) -> None:
    async with opened(disk) as spool:
        await asyncio.gather(*(spool.put(deposit(f"Q{number:03}")) for number in range(100)))

    with full(disk):
        async with opened(disk) as spool:
            with full(disk, "more"):
                for claim in (await spool.claim(100)).claims:
                    await spool.record(claim.message.queue_id, delivered())

                assert (await spool.stats()).messages[State.DELIVERED] == 100


async def test_a_spool_on_a_full_disk_is_opened_and_its_mail_goes_on(disk: Path) -> None:
    async with opened(disk) as spool:
        await spool.put(deposit("Q1", body=LARGE))
        await spool.put(deposit("Q2"))

    with full(disk):
        async with opened(disk) as spool:
            with pytest.raises(SpoolUnavailable, match="are kept in reserve"):
                await spool.put(deposit("Q3"))
            for claim in (await spool.claim(10)).claims:
                await spool.record(claim.message.queue_id, delivered())
            assert (await spool.stats()).messages[State.DELIVERED] == 2

    async with opened(disk):
        assert ballast_of(disk).exists()


async def test_the_operators_commands_can_use_what_was_put_by(disk: Path) -> None:
    """To delete mail is one way to make room."""
    async with opened(disk) as spool:
        await spool.put(deposit("Q1"))

    with full(disk):
        async with opened(disk, reserve=0) as spool:
            assert (await spool.stats()).messages[State.QUEUED] == 1


async def test_it_can_be_given_up_once(disk: Path) -> None:
    async with opened(disk):
        pass
    ballast_of(disk).unlink()

    with full(disk), pytest.raises(SpoolFull, match="the disk is full"):
        async with opened(disk):
            pass


def test_a_disk_that_cannot_hold_it_after_all_keeps_no_part_of_it(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else was faster."""
    monkeypatch.setattr("relay.spool.ballast.free", lambda directory: 2 * RESERVE)
    (disk / "others").write_bytes(bytes(free(disk) - RESERVE // 4))

    Ballast(disk / "spool.db", RESERVE).put_by()

    assert not ballast_of(disk).exists()


def test_what_a_copy_has_left_out_is_put_by_anew(tmp_path: Path) -> None:
    """As when the files of the spool were moved with `rsync --sparse` or `tar --sparse`."""
    with ballast_of(tmp_path).open("wb") as copy:
        copy.truncate(RESERVE // 2)
    assert not Ballast(tmp_path / "spool.db", RESERVE).give_up()
    with ballast_of(tmp_path).open("wb") as copy:
        copy.truncate(RESERVE // 2)

    Ballast(tmp_path / "spool.db", RESERVE).put_by()

    status = ballast_of(tmp_path).stat()
    assert (status.st_size, status.st_blocks * 512) == (RESERVE // 2, RESERVE // 2)


def test_the_file_that_a_link_of_its_name_leads_to_is_nobody_s_ballast(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"of another program")
    for use in (Ballast.put_by, Ballast.give_up):
        ballast_of(tmp_path).symlink_to(other)

        use(Ballast(tmp_path / "spool.db", RESERVE))

        assert other.read_bytes() == b"of another program"
        assert not ballast_of(tmp_path).is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files that others cannot open")
def test_what_is_somebody_else_s_is_given_up_as_a_whole() -> None:
    """As when root has put the spool's files back: in a directory of its own the relay can remove it all the same."""
    with TemporaryDirectory() as directory:
        ballast = Ballast(Path(directory) / "spool.db", RESERVE)
        ballast.put_by()
        os.chown(directory, 65534, -1)
        os.seteuid(65534)
        try:
            assert ballast.give_up()
        finally:
            os.seteuid(0)

        assert os.listdir(directory) == []


def test_where_none_was_put_by_there_is_none_to_give_up(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert not Ballast(tmp_path / "spool.db", RESERVE).give_up()

    assert logs == []
