"""Who waits in memory for an attempt."""

from relay.core.spooled import Lane
from relay.delivery.turns import Turns

A, B, C = Lane("a", None), Lane("b", None), Lane("b", 7)


def taken(turns: Turns[str]) -> str:
    return "".join(turns.take() for _ in range(len(turns)))


def test_within_a_lane_it_goes_by_arrival() -> None:
    turns: Turns[str] = Turns()
    for one in "12345":
        turns.add(A, one)
    assert taken(turns) == "12345"
    assert len(turns) == 0


def test_the_lanes_take_turns_however_many_wait_in_each() -> None:
    turns: Turns[str] = Turns()
    for one in "12345":
        turns.add(A, one)
    for lane, one in ((B, "x"), (C, "u"), (B, "y")):
        turns.add(lane, one)
    assert taken(turns) == "1xu2y345"


def test_who_comes_anew_stands_behind_the_others() -> None:
    turns: Turns[str] = Turns()
    turns.add(A, "1")
    turns.add(B, "x")
    assert turns.take() == "1"
    turns.add(A, "2")
    assert taken(turns) == "x2"
