"""How much time a client has, by what it does with it."""

import pytest

from relay.ingress.pace import Pace

LIMIT = 300.0


def drip(*, in_data: bool, octets: int, every: float) -> float:
    """The time at which a client is given up that sends so many octets every so many seconds; at most an hour."""
    pace, now = Pace(LIMIT), 0.0
    left = pace.left(now, in_data=in_data, lines=0, octets=0)
    received = 0
    while left > every and now < 3600:
        now += every
        received += octets
        left = pace.left(now, in_data=in_data, lines=0, octets=received)
    return now + left


def test_octets_that_make_no_line_win_no_time():
    """A slow-loris is given up when a silent client is."""
    assert drip(in_data=False, octets=1, every=10.0) == pytest.approx(LIMIT)


def test_a_line_wins_all_of_it():
    """As often as there is one."""
    pace = Pace(LIMIT)
    pace.left(0.0, in_data=False, lines=0, octets=0)
    assert pace.left(200.0, in_data=False, lines=0, octets=5) == 100.0

    assert pace.left(290.0, in_data=False, lines=1, octets=8) == LIMIT
    assert not pace.trickled


@pytest.mark.parametrize(("octets", "every"), [(1, 10.0), (50, 1.0), (1000, 60.0)])
def test_content_below_the_floor_is_given_up_in_the_end(octets, every):
    """However steadily it comes."""
    assert LIMIT <= drip(in_data=True, octets=octets, every=every) < 2.5 * LIMIT


@pytest.mark.parametrize(("octets", "every"), [(100, 1.0), (64_000, 280.0), (30_000, 299.0)])
def test_content_that_flows_goes_on(octets, every):
    """Slow lines, and clients that send now and then but enough."""
    assert drip(in_data=True, octets=octets, every=every) > 3600


def test_silence_in_content_is_silence():
    """And is called that."""
    pace = Pace(LIMIT)
    pace.left(0.0, in_data=True, lines=3, octets=100)

    assert pace.left(1.0, in_data=True, lines=3, octets=100_000) == LIMIT
    assert not pace.trickled


def test_the_time_that_the_relay_takes_is_not_the_clients():
    """After a message has been delivered the client has all of it."""
    pace = Pace(LIMIT)
    pace.left(0.0, in_data=False, lines=0, octets=0)
    pace.restart()

    assert pace.left(1000.0, in_data=False, lines=0, octets=0) == LIMIT
