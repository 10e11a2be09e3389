"""How much new mail is kept in memory for its first attempt, and whose."""

from relay.core.spooled import Lane
from relay.delivery.window import Window

A, B, C = (Lane(name, None) for name in "ABC")


def filled(window: Window, sizes: list[int], lane: Lane = A) -> Window:
    for size in sizes:
        window.enter(lane, size)
    return window


def enter_all(window: Window, lane: Lane, size: int = 1) -> int:
    """As many as there is room for."""
    count = 0
    while window.has_room(lane, size):
        window.enter(lane, size)
        count += 1
    return count


def test_as_many_as_need_not_wait_are_let_in_whatever_their_size() -> None:
    assert filled(Window(2, messages=8, octets=100), [500]).has_room(A, 500)
    assert not filled(Window(2, messages=8, octets=100), [500, 500]).has_room(A, 1)


def test_one_lane_holds_as_many_octets_as_it_leaves() -> None:
    window = filled(Window(1, messages=8, octets=200), [40, 40])
    assert window.has_room(A, 20)
    assert not window.has_room(A, 21)


def test_one_lane_holds_as_many_messages_as_it_leaves() -> None:
    assert enter_all(Window(0, messages=8, octets=100), A) == 4


def test_a_loud_lane_leaves_room_for_others() -> None:
    """Who comes later finds room; as messages leave and others come, all come to hold the same."""
    window = Window(0, messages=80, octets=1000)
    held = {lane: enter_all(window, lane) for lane in (A, B, C)}
    assert held == {A: 40, B: 20, C: 10}
    for lane in [A, B, C] * 20:
        if held[lane]:
            window.leave(lane, 1)
            held[lane] -= 1
        held[B] += enter_all(window, B)
        held[C] += enter_all(window, C)
        held[A] += enter_all(window, A)
    assert held == {A: 20, B: 20, C: 20}


def test_what_leaves_makes_room() -> None:
    window = filled(Window(1, messages=4, octets=200), [60])
    window.enter(A, 40)
    assert not window.has_room(A, 10)
    window.leave(A, 60)
    assert window.has_room(A, 40)
