"""What scenarios are made of; the plays themselves are run by `make bench`."""

from pathlib import Path

import pytest

from benchmarks import ours
from benchmarks.instruments import run_load
from benchmarks.measure import await_arrival
from benchmarks.place import free_port
from benchmarks.scenarios.shares import KEYS, several
from benchmarks.scenarios.stage import Finding, Latencies, relay, stage

pytestmark = pytest.mark.usefixtures("issued")  # the rig is built


def test_latencies_are_looked_at_by_time(tmp_path: Path) -> None:
    """A message belongs to the act in which it fell due."""
    file = tmp_path / "latencies"
    file.write_text("10.0 5.0\n11.0 7.0\n12.5 900.0\n20.0 6.0\n")

    latencies = Latencies.read(file)

    assert latencies.between(10.0, 12.0).slowest == 7.0
    assert latencies.between(12.0).share(0.5) == 6.0
    assert latencies.between(30.0).p99 == 0.0


def test_a_finding_says_whether_it_will_do() -> None:
    """Or nothing, where it is only for information."""
    assert str(Finding("lost", "0", good=True)) == "  ok      lost: 0"
    assert str(Finding("lost", "1", good=False)) == "  FAILED  lost: 1"
    assert str(Finding("usual latency", "4 ms")) == "          usual latency: 4 ms"


def test_each_listener_sends_with_a_key_of_its_own() -> None:
    """The sink knows them apart."""
    with stage(0) as here:
        ports = [here.place.port, *(free_port() for _ in KEYS[1:])]
        with relay(here.place, several(here, KEYS, ports, delivery="cut-through")):
            for number, port in enumerate(ports):
                result = run_load(port, "--messages", number + 1, "--first-serial", 100 * number)
                assert result.accepted == number + 1
            await_arrival(here.sink, 15)
            counters = here.sink.read()

    assert [counters.of_key(key).messages for key in KEYS] == [1, 2, 3, 4, 5]


def test_the_relay_with_a_short_memory_is_the_relay() -> None:
    """It carries mail."""
    with stage(0) as here:
        launcher = ("-m", "benchmarks.scenarios.hurried", "3")
        with relay(here.place, ours.configure(here.place, spool=False), launcher):
            assert run_load(here.place.port, "--messages", 3).accepted == 3
