"""Medians, ratios, and what may not be claimed."""

from dataclasses import replace

from benchmarks.measure import Run
from benchmarks.report import summarise, table

RUN = Run(
    peer="relay",
    workload="2 kB",
    round_number=1,
    seconds=1.0,
    accepted=100,
    delivered=100,
    duplicates=0,
    refused=0,
    broken=0,
    unanswered=0,
    missing_octets=0,
    last_failure="",
    rate=100.0,
    cpu_ms=1.0,
    p50_ms=5.0,
    p99_ms=9.0,
    peak_rss=30_000_000,
    connections=10,
    max_open=10,
    round_trips=1.0,
    load_share=0.1,
    sink_share=0.1,
    line_share=0.0,
    foreign_share=0.0,
    of_limit=None,
    comparable=True,
    caveat=None,
)


def rounds(peer: str, rates: list[float]) -> list[Run]:
    """One run a round, with these rates."""
    return [replace(RUN, peer=peer, round_number=number, rate=rate) for number, rate in enumerate(rates, 1)]


def test_ratios_are_formed_within_rounds() -> None:
    """The machine was twice as slow in the second round; the ratio of each round, and so the median, is 3."""
    runs = rounds("naive", [100, 50, 120]) + rounds("relay", [300, 150, 360])

    naive, relay = summarise(runs, ["naive"])

    assert (naive.rate, relay.rate) == (100, 300)
    assert (naive.ratios["naive"].rate, relay.ratios["naive"].rate) == (1.0, 3.0)


def test_only_rounds_that_both_took_part_in_are_compared() -> None:
    """A peer that stopped after one round is compared with that round alone."""
    runs = [*rounds("naive", [100, 1000]), *rounds("relay", [200])]

    assert summarise(runs, ["naive"])[1].ratios["naive"].rate == 2.0


def test_a_void_round_forbids_ratios_on_both_sides() -> None:
    """Where the sink was the limit, neither the peer nor anything measured against it may claim a ratio."""
    void = replace(RUN, peer="naive", sink_share=0.81)

    naive, relay = summarise([void, RUN], ["naive"])

    assert (naive.ratios, relay.ratios) == ({}, {})
    assert naive.notes == ["VOID (1 of 1 rounds): sink used 81% of a core"]
    assert "VOID" in table([naive, relay], ["naive"])


def test_faults_stand_beside_the_numbers() -> None:
    """Loss, duplicates and refusals are said in words; loss is not made good by a duplicate."""
    run = replace(RUN, accepted=100, delivered=98, duplicates=2, refused=1)

    assert summarise([run], [])[0].notes == ["2 lost", "2 sent twice", "1 refused"]


def test_a_baseline_that_nobody_can_be_compared_with_has_no_columns() -> None:
    """It did not run, or its row is void."""
    lines = table(summarise([RUN], ["naive"]), ["naive"]).splitlines()

    assert lines[0] == "2 kB"
    assert lines[1].split()[:6] == ["peer", "messages/s", "(min-max)", "CPU", "ms/msg", "p50"]
    assert lines[2].split()[:3] == ["relay", "100", "(100-100)"]


def test_messages_that_come_slowly_on_purpose_make_no_ratio() -> None:
    """Everybody carries six messages a second where six a second come."""
    runs = [replace(RUN, peer=peer, comparable=False) for peer in ("naive", "relay")]

    assert summarise(runs, ["naive"])[1].ratios == {}


def test_what_the_line_cannot_do_stands_beside_the_numbers() -> None:
    """Once, however many rounds there were."""
    runs = [replace(RUN, round_number=number, caveat="data is delayed, packets are not") for number in (1, 2)]

    assert summarise(runs, [])[0].notes == ["data is delayed, packets are not"]


def test_others_on_the_machine_are_mentioned() -> None:
    """A run beside somebody else's work says so."""
    assert summarise([replace(RUN, foreign_share=0.5)], [])[0].notes == ["others used up to 50% of a core"]
