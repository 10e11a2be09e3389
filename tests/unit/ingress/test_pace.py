"""How much time a client has, by what it does with it."""

import pytest

from relay.ingress.pace import Pace

LIMIT = 300.0


def drip(*, in_data: bool, octets: int, every: float) -> float:
    """The time at which a client is given up that sends so many octets every so many seconds; at most an hour."""
    pace, now = Pace(LIMIT), 0.0
    deadline = pace.deadline(now, 0, 0, in_data=in_data)
    received = 0
    while deadline > now + every and now < 3600:
        now += every
        received += octets
        deadline = pace.deadline(now, 0, received, in_data=in_data)
    return deadline


def test_octets_that_make_no_line_win_no_time():
    """A slow-loris is given up when a silent client is."""
    assert drip(in_data=False, octets=1, every=10.0) == pytest.approx(LIMIT)


def test_a_line_wins_all_of_it():
    """As often as there is one."""
    pace = Pace(LIMIT)
    pace.deadline(0.0, 0, 0, in_data=False)
    assert pace.deadline(200.0, 0, 5, in_data=False) == LIMIT

    assert pace.deadline(290.0, 1, 8, in_data=False) == 290.0 + LIMIT
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
    pace.deadline(0.0, 3, 100, in_data=True)

    assert pace.deadline(1.0, 3, 100_000, in_data=True) == 1.0 + LIMIT
    assert not pace.trickled


def test_the_time_that_the_relay_takes_is_not_the_clients():
    """After a message has been delivered the client has all of it."""
    pace = Pace(LIMIT)
    pace.deadline(0.0, 0, 0, in_data=False)
    pace.restart()

    assert pace.deadline(1000.0, 0, 0, in_data=False) == 1000.0 + LIMIT
