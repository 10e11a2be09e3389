"""How long connections last: apart from each other, and never for more messages than they may carry."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.wear import DIAL, lifetime, near_end


@pytest.mark.parametrize(
    ("messages", "connections", "left", "lasts"),
    [
        (100, 10, [], 100),
        (100, 10, [100], 98),
        (100, 10, [100, 98], 96),
        (100, 10, [88, 40], 100),  # no other is near
        (100, 10, [99], 97),
        (8, 1, [7, 5], 8),  # there is no room: two apart from both it cannot be
        (20, 10, [20, 19], 18),
        (100, 1, [], 100),
        (1, 10, [1, 1], 1),
        (2, 1, [2], 1),
    ],
)
def test_a_new_connection_ends_apart_from_the_others(messages, connections, left, lasts):
    """It carries as many as it may, but for that."""
    assert lifetime(messages, connections, left) == lasts


@given(st.integers(1, 200), st.integers(1, 20), st.data())
def test_no_end_has_more_room_and_no_later_one_as_much(messages, connections, data):
    """Of those with half of what it may carry, or more, wherever the others end; beyond a share of it, room is room."""
    left = data.draw(st.lists(st.integers(0, messages), max_size=connections))
    enough = max(1, messages // (4 * connections))

    def room(end):
        return min([enough, *(abs(end - other) for other in left)])

    lasts = lifetime(messages, connections, left)

    possible = range(messages - messages // 2, messages + 1)
    assert lasts in possible
    assert all(room(end) < room(lasts) if end > lasts else room(end) <= room(lasts) for end in possible)


def test_a_connection_for_ever_is_thought_about_no_longer():
    """Not each of its ends by itself: nothing else happens meanwhile."""
    messages = 10**12

    assert lifetime(messages, 10, [messages]) == messages - messages // 40


@pytest.mark.parametrize(("messages", "apart"), [(100, 2), (20, 1)])
def test_connections_that_are_made_at_once_do_not_end_at_once(messages, apart):
    """As after an outage, with the same load on each."""
    left: list[int] = []
    for _ in range(10):
        left.append(lifetime(messages, 10, left))
    left.sort()

    assert all(later - earlier >= apart for earlier, later in itertools.pairwise(left))


@pytest.mark.parametrize(("messages", "near"), [(100, DIAL), (20, DIAL), (10, 5), (1, 0)])
def test_the_end_is_near_when_there_is_just_time_for_a_dial(messages, near):
    """Of one that carries few messages it is the second half."""
    assert near_end(messages) == near
