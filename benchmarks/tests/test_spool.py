"""The spool's benchmark: its command line, and that it fills a spool as the spool itself would."""

from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks import depth, spool
from benchmarks.spool import read_plan
from relay.core.lifecycle import State
from relay.spool.opening import open_spool


def test_quick_is_short_but_goes_deep_enough() -> None:
    """Three rounds; queues up to a hundred thousand, without it up to a million."""
    assert (read_plan(["--quick"]).rounds, read_plan(["--quick"]).depths[-1]) == (3, 100_000)
    assert (read_plan([]).rounds, read_plan([]).depths) == (5, [1_000, 10_000, 100_000, 1_000_000])


async def test_what_is_filled_in_is_what_the_spool_would_have_written(tmp_path: Path) -> None:
    """All of it can be claimed and is whole, and the counts that are kept are right, also when more is added."""
    path = tmp_path / "spool.db"
    for first, end in ((0, 30), (30, 100)):
        await (await open_spool(path, depth.BenchmarkClock(), reserve=0)).close()
        depth.fill(path, first, end)

    kept = await open_spool(path, depth.BenchmarkClock(), reserve=0)
    stats, claimed = await kept.stats(), await kept.claim(1000)
    await kept.close()

    assert stats.messages[State.QUEUED] == len(claimed.claims) == 100
    assert (claimed.damaged, len(claimed.lanes)) == ((), depth.LANES)


async def test_a_queue_is_measured_at_each_depth(tmp_path: Path) -> None:
    """Every price is there, and the table has a line for each depth."""
    rows = await depth.measure(tmp_path, [100, 200])

    assert [row.depth for row in rows] == [100, 200]
    assert all(min(*astuple(row.prices), *astuple(row.ratios)) > 0 for row in rows)
    assert set(astuple(rows[0].ratios)) == {1.0}
    assert len(depth.table(rows).splitlines()) == 3


def test_the_table_of_what_is_accepted_has_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each size by each number of putters, with the disk's own price beside it."""
    monkeypatch.setattr(spool, "SIZES", [2_000, 200_000])
    monkeypatch.setattr(spool, "PUTTERS", [1, 5])
    plan = spool.Plan(rounds=1, seconds=0.05, octets=1_000_000, depths=[], directory=tmp_path)

    lines = spool.accept_table(plan).splitlines()

    assert [line.split("  ")[0] for line in lines[1:]] == [
        *("2 kB, 1 at a time", "2 kB, 5 at a time", "200 kB, 1 at a time", "200 kB, 5 at a time")
    ]
    assert list(tmp_path.iterdir()) == []
