"""How much new mail is kept in memory for its first attempt."""

from relay.delivery.window import Window


def filled(window: Window, sizes: list[int]) -> Window:
    for size in sizes:
        window.enter(size)
    return window


def test_as_many_as_need_not_wait_are_let_in_whatever_their_size() -> None:
    assert filled(Window(2, messages=8, octets=100), [500]).has_room(500)
    assert not filled(Window(2, messages=8, octets=100), [500, 500]).has_room(1)


def test_beyond_these_it_holds_so_many_octets() -> None:
    window = filled(Window(1, messages=8, octets=100), [40, 40])
    assert window.has_room(20)
    assert not window.has_room(21)


def test_it_holds_so_many_messages() -> None:
    assert filled(Window(1, messages=3, octets=100), [1, 1]).has_room(1)
    assert not filled(Window(1, messages=3, octets=100), [1, 1, 1]).has_room(1)


def test_what_leaves_makes_room() -> None:
    window = filled(Window(1, messages=2, octets=100), [60, 60])
    window.leave(60)
    assert window.has_room(40)
