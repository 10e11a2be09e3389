"""The command line becomes a plan."""

from dataclasses import replace

import pytest

from benchmarks.peers import PEERS
from benchmarks.plan import read_plan


def test_quick_is_short_but_whole() -> None:
    """The quick comparison has every size, new connections, two distances, bursts, and lone messages."""
    plan = read_plan(["--quick"])

    assert [stage.workload.name for stage in plan.stages] == [
        "2 kB, 10 clients, kept connections",
        "50 kB, 10 clients, kept connections",
        "1 MB, 10 clients, kept connections",
        "2 kB, 10 clients, a new connection per message",
        "2 kB, messages waiting, 20 ms round trip",
        "2 kB, messages waiting, 80 ms round trip",
        "2 kB, 1000 messages at once, 20 ms round trip",
        "2 kB, 400 messages at once, 80 ms round trip",
        "2 kB, a lone message now and then, 20 ms round trip",
    ]
    main, *others = plan.stages
    assert main.rounds == 3
    assert {peer.name for peer in main.peers} == set(PEERS) - {"naive-uvloop"} - set(plan.left_out)
    assert all(stage.rounds <= 2 for stage in others)


def test_options_go_before_what_quick_says() -> None:
    """Rounds, seconds, sizes and peers can be chosen; who chooses sizes gets no distances."""
    plan = read_plan(
        ["--quick", "--rounds=2", "--seconds=0.5", "--sizes=3k,1MB", "--only=relay,naive-new", "--clients=4"]
    )

    assert [(stage.workload.name, stage.rounds, stage.seconds) for stage in plan.stages] == [
        ("3 kB, 4 clients, kept connections", 2, 0.5),
        ("1 MB, 4 clients, kept connections", 2, 1.0),
    ]
    assert [peer.name for peer in plan.peers] == ["relay", "naive-new"]


def test_distances_can_be_chosen_alone() -> None:
    """Messages waiting at each, and lone ones at the first."""
    plan = read_plan(["--rtt=40,100", "--only=relay"])

    assert [stage.workload.name for stage in plan.stages] == [
        "2 kB, messages waiting, 40 ms round trip",
        "2 kB, messages waiting, 100 ms round trip",
        "2 kB, a lone message now and then, 40 ms round trip",
    ]


def test_who_is_missing_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are compared all the same."""
    absent = replace(PEERS["relay"], name="absent", missing=lambda: "it is not installed")
    monkeypatch.setitem(PEERS, "absent", absent)

    plan = read_plan(["--only=absent,relay"])

    assert plan.left_out == {"absent": "it is not installed"}
    assert [peer.name for peer in plan.peers] == ["relay"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sizes", "2x"], "give sizes such as"),
        (["--sizes", "1"], "sizes lie between 1 kB and 100 MB"),
        (["--only", "sendmail"], "no peer is called sendmail"),
        (["--rounds", "0"], "give a whole number from 1"),
        (["--seconds", "nan"], "give a number above 0"),
        (["--rtt", "0.2"], "give round trip times from 1 to 1000 ms"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each wrong value is named with what would be right."""
    with pytest.raises(SystemExit):
        read_plan(arguments)

    assert words in capsys.readouterr().err
