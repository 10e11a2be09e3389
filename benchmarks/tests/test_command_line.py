"""The command line becomes a plan."""

import pytest

from benchmarks.__main__ import read_plan


def test_quick_is_short_but_whole() -> None:
    """The quick comparison has every size, new connections, both baselines and the relay."""
    plan = read_plan(["--quick"])

    assert [workload.name for workload in plan.workloads] == [
        "2 kB, 10 clients, kept connections",
        "50 kB, 10 clients, kept connections",
        "1 MB, 10 clients, kept connections",
        "2 kB, 10 clients, a new connection per message",
    ]
    assert [peer.name for peer in plan.peers] == ["naive-new", "naive-pool", "relay"]
    assert plan.rounds == 3


def test_options_go_before_what_quick_says() -> None:
    """Rounds, seconds, sizes and peers can be chosen."""
    plan = read_plan(
        ["--quick", "--rounds=2", "--seconds=0.5", "--sizes=3k,1MB", "--only=relay,naive-new", "--clients=4"]
    )

    assert (plan.rounds, plan.seconds) == (2, 0.5)
    assert [workload.name for workload in plan.workloads] == [
        "3 kB, 4 clients, kept connections",
        "1 MB, 4 clients, kept connections",
    ]
    assert [plan.seconds_for(workload) for workload in plan.workloads] == [0.5, 1.0]
    assert [peer.name for peer in plan.peers] == ["relay", "naive-new"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sizes", "2x"], "give sizes such as"),
        (["--sizes", "1"], "sizes lie between 1 kB and 100 MB"),
        (["--only", "sendmail"], "no peer is called sendmail"),
        (["--rounds", "0"], "give a whole number from 1"),
        (["--seconds", "nan"], "give a number above 0"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each wrong value is named with what would be right."""
    with pytest.raises(SystemExit):
        read_plan(arguments)

    assert words in capsys.readouterr().err
