"""How much new mail is kept in memory for its first attempt, and whose."""

from relay.core.spooled import Lane
from relay.delivery.window import Window

A, B, C = (Lane(name, None) for name in "ABC")


def filled(window: Window, sizes: list[int], lane: Lane = A) -> Window:
    for number, size in enumerate(sizes):
        window.enter(f"{lane.credential}{number}", lane, size)
    return window


def enter_all(window: Window, lane: Lane, size: int = 1, first: int = 0) -> list[str]:
    """As many as there is room for; their queue ids, numbered from `first` on."""
    entered: list[str] = []
    while window.has_room(lane, size):
        entered.append(f"{lane.credential}{first + len(entered)}")
        window.enter(entered[-1], lane, size)
    return entered


def test_as_many_as_need_not_wait_are_let_in_whatever_their_size() -> None:
    assert filled(Window(2, messages=8, octets=100), [500]).has_room(A, 500)
    assert not filled(Window(2, messages=8, octets=100), [500, 500]).has_room(A, 1)


def test_one_lane_holds_as_many_octets_as_it_leaves() -> None:
    window = filled(Window(1, messages=8, octets=200), [40, 40])
    assert window.has_room(A, 20)
    assert not window.has_room(A, 21)


def test_one_lane_holds_as_many_messages_as_it_leaves() -> None:
    assert len(enter_all(Window(0, messages=8, octets=100), A)) == 4


def test_a_loud_lane_leaves_room_for_others() -> None:
    """Who comes later finds room; as messages leave and others come, all come to hold the same."""
    window = Window(0, messages=80, octets=1000)
    held = {lane: enter_all(window, lane) for lane in (A, B, C)}
    assert [len(ids) for ids in held.values()] == [40, 20, 10]
    for turn, lane in enumerate([A, B, C] * 20, 1):
        if held[lane]:
            window.leave(held[lane].pop())
        for other in (B, C, A):
            held[other] += enter_all(window, other, first=1000 * turn)
    assert [len(ids) for ids in held.values()] == [20, 20, 20]


def test_what_leaves_makes_room() -> None:
    window = filled(Window(1, messages=4, octets=200), [60])
    window.enter("another", A, 40)
    assert not window.has_room(A, 10)
    window.leave("A0")
    assert window.has_room(A, 40)
