"""Goals are met, missed, or open; never met by chance."""

from benchmarks.goals import GOALS, Goal, verdict, verdicts
from benchmarks.measure import Run
from benchmarks.report import summarise
from benchmarks.tests.test_report import RUN, rounds

TWICE = Goal("messages/s x naive", RUN.workload, "relay", lambda row: row.ratios["naive"].rate, 2.0)


def test_a_floor_and_a_ceiling() -> None:
    """The bound itself is good enough for both."""
    ceiling = Goal("CPU", "2 kB", "relay", lambda row: row.cpu_ms, 0.4, least=False)

    assert [verdict(TWICE, value) for value in (1.99, 2.0, None)] == ["missed", "met", "open"]
    assert [verdict(ceiling, value) for value in (0.4, 0.41, None)] == ["met", "missed", "open"]


def test_each_goal_has_its_line() -> None:
    """With what was measured and what it should be."""
    runs: list[Run] = [*rounds("naive", [100]), *rounds("relay", [150])]
    other = Goal("messages/s", "another workload", "relay", lambda row: row.rate, 1.0)

    lines = verdicts(summarise(runs, ["naive"]), [TWICE, other]).splitlines()

    assert [line.split()[0] for line in lines] == ["missed", "open"]
    assert "1.50  (at least 2)" in lines[0]
    assert "not measured" in lines[1]


def test_nothing_is_decided_without_measurements() -> None:
    """All goals are open at first."""
    assert {line.split()[0] for line in verdicts([]).splitlines()} == {"open"}
    assert len(verdicts([]).splitlines()) == len(GOALS)
