"""One login's messages and sessions: where the next message goes, and what the pool is told of them."""

import asyncio

import pytest

from relay.core.login import Login, Target
from relay.core.secret import Secret
from relay.upstream.lanes import DEPTH, Held, Lane, Waiter

LOGIN = Login(Target("localhost", (587,)), "SMTP_Injection", Secret("key"), "default")
NEAR_END = 10


class FakeSession:
    """What a lane asks of a session."""

    def __init__(self, *, usable: bool = True, takes_more: bool = True) -> None:
        self.usable = usable
        self.takes_more = usable and takes_more


def lane_of(*states: dict) -> Lane:
    """A lane with these sessions; those without a load have come to rest in this order."""
    lane = Lane(LOGIN)
    for state in states:
        options = {name: state.pop(name) for name in ("usable", "takes_more") if name in state}
        held = Held(FakeSession(**options), lane, **{"limit": 100, **state})
        lane.held.append(held)
        if not held.load:
            lane.resting[held] = None
    return lane


@pytest.mark.parametrize(
    ("states", "place"),
    [
        ([], None),
        ([{}, {}], 1),  # the one used last: the other grows old
        ([{}, {"usable": False}], 0),
        ([{"load": 1}, {}], 1),
        ([{"load": 2}, {"load": 1}], 1),  # behind another message, where there are fewest
        ([{"load": DEPTH}], None),
        ([{"load": 1, "takes_more": False}], None),
        ([{"load": 1, "carried": 100}], None),
        ([{"load": 1, "carried": 99}], 0),
        ([{"load": 1, "retiring": True}], None),
        ([{"load": 1, "usable": False}], None),
    ],
)
def test_where_the_next_message_goes(states, place):
    """On a session that rests, else behind another message, else nowhere."""
    lane = lane_of(*states)

    assert lane.place() is (None if place is None else lane.held[place])


@pytest.mark.parametrize(
    ("states", "worn"),
    [
        ([{"load": 1, "carried": 90}], 0),
        ([{"load": 1, "carried": 91}], 1),
        ([{"load": 1, "carried": 100}], 1),
        ([{"load": 1, "carried": 95, "retiring": True}], 0),  # its slot is for somebody else
        ([{"carried": 95}], 0),  # not in use
        ([{"load": 1, "carried": 95}, {"carried": 50}], 0),  # another can take its place
        ([{"load": 1, "carried": 95}, {"carried": 95}], 1),
        ([{}, {}], 0),
    ],
)
def test_sessions_that_need_a_successor(states, worn):
    """Those in use whose end is near, but for those that a resting one can stand in for."""
    assert demand(lane_of(*states)).worn == worn


def demand(lane: Lane):
    return lane.demand(1.0, NEAR_END, may_dial=True, full=False, allowed=10)


def test_sessions_are_counted_by_what_they_do():
    """What carries its last message is on its way out, like one that has been told to leave."""
    lane = lane_of({}, {"load": 3, "carried": 20}, {"load": 1, "carried": 100}, {"load": 1, "retiring": True})
    lane.parting = 1
    told = demand(lane)

    assert (told.idle, told.busy, told.leaving) == (1, 1, 3)
    assert (told.queued, told.ripe) == (2, 1)


async def test_who_wanted_a_new_session_goes_first_once_the_login_is_let_in():
    """In the order in which they came."""
    lane, loop = Lane(LOGIN), asyncio.get_running_loop()
    a, b, c, d = (Waiter(loop.create_future(), number, number + 4.0) for number in (1, 2, 3, 4))
    lane.wanting += [b, c]
    lane.waiting += [a, d]

    told = demand(lane)
    assert (told.waiting, told.fresh, told.arrival) == (4, 2, 1)
    lane.let_in()
    assert list(lane.waiting) == [b, c, a, d]
    lane.forget(c)
    assert list(lane.waiters()) == [b, a, d]
