"""How many connections a target gets, after what it has said."""

import pytest

from relay.core.login import Target
from relay.upstream.concurrency import Concurrency

HERE, THERE = Target("localhost", (587,)), Target("elsewhere", (587,))


@pytest.fixture
def concurrency():
    return Concurrency(10)


def grown(concurrency: Concurrency) -> list[int]:
    """Dial as much as is allowed, again and again."""
    seen = []
    for _ in range(5):
        seen.append(concurrency.allowed(HERE))
        for connections in range(1, seen[-1] + 1):
            concurrency.connected(HERE, connections)
    return seen


def test_connections_grow_fourfold_until_the_limit(concurrency):
    """The first alone shows whether the target takes any."""
    assert grown(concurrency) == [1, 4, 10, 10, 10]


def test_an_outage_begins_again_with_one(concurrency):
    """A dial that fails while there is no other connection."""
    grown(concurrency)
    concurrency.failed(HERE, 0)

    assert grown(concurrency) == [1, 4, 10, 10, 10]


def test_connections_that_end_are_replaced_at_once(concurrency):
    """Ten retire together: nothing has failed, so ten are dialled."""
    grown(concurrency)
    concurrency.connected(HERE, 1)

    assert concurrency.allowed(HERE) == 10


def test_who_asks_to_be_spared_gets_half(concurrency):
    """And a connection more for as many messages as there are connections."""
    grown(concurrency)
    concurrency.pushed_back(HERE, 10)
    halved = concurrency.allowed(HERE)
    concurrency.connected(HERE, 5)
    for _ in range(6):
        concurrency.accepted(HERE)

    assert (halved, concurrency.allowed(HERE)) == (5, 6)


def test_it_comes_back_to_the_limit(concurrency):
    """However often it had asked."""
    grown(concurrency)
    for _ in range(10):
        concurrency.pushed_back(HERE, concurrency.allowed(HERE))
    least = concurrency.allowed(HERE)
    for _ in range(100):
        concurrency.accepted(HERE)

    assert (least, concurrency.allowed(HERE), concurrency.ceiling(HERE)) == (1, 10, 10)


def test_targets_do_not_know_each_other(concurrency):
    """What one says is held against nobody else."""
    grown(concurrency)
    concurrency.pushed_back(THERE, 1)

    assert concurrency.allowed(HERE) == 10
