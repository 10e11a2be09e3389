"""The one timer of a session: when it goes off, and how seldom the loop hears of it."""

from collections.abc import Callable

import pytest

from relay.timer import NEVER, ProgressTimer


class Handle:
    """One call that the loop has been asked for."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """As much of a loop as a timer needs; time goes by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        self.asked.append(Handle(when, call))
        return self.asked[-1]

    def go_to(self, now: float) -> None:
        """Time passes, and what comes due is called."""
        self.now = now
        for handle in list(self.asked):
            if not handle.cancelled and handle.when <= now:
                handle.cancel()
                handle.call()


class Session:
    """A timer, and how often it has gone off."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.expired = 0
        self.timer = ProgressTimer(self.loop, self._expire)  # type: ignore[arg-type]

    def _expire(self) -> None:
        self.expired += 1


@pytest.fixture
def session() -> Session:
    return Session()


def test_it_goes_off_when_the_time_is_over(session):
    """Once, and not before."""
    session.timer.give(10)
    session.loop.go_to(9.9)
    early = session.expired
    session.loop.go_to(10.0)
    session.loop.go_to(1000.0)

    assert (early, session.expired) == (0, 1)


def test_progress_costs_the_loop_nothing(session):
    """However often the deadline moves, the loop is asked once; when that comes too early, once more."""
    for now in range(100):
        session.loop.now = float(now)
        session.timer.until(now + 300.0)
    asked = len(session.loop.asked)
    session.loop.go_to(300.0)
    early = session.expired
    session.loop.go_to(399.0)

    assert (asked, early, session.expired) == (1, 0, 1)
    assert [handle.when for handle in session.loop.asked] == [300.0, 399.0]


def test_less_time_than_before_counts_at_once(session):
    """A client that seems to have ended its content need not be waited for as long as any other."""
    session.timer.give(300)
    session.timer.give(10)
    session.loop.go_to(10.0)

    assert session.expired == 1


def test_while_the_relay_is_at_work_it_does_not_go_off(session):
    """And when the client is in charge again, it has the time that it is given then."""
    session.timer.give(10)
    session.timer.stop()
    session.loop.go_to(60.0)
    stopped = session.expired
    session.timer.give(10)
    session.loop.go_to(70.0)

    assert (stopped, session.expired) == (0, 1)


def test_at_the_end_nothing_is_left_of_it(session):
    """Neither in the loop nor of whose timer it was."""
    session.timer.give(10)
    session.timer.end()
    session.loop.go_to(1000.0)

    assert session.expired == 0
    assert all(handle.cancelled for handle in session.loop.asked)
    assert session.timer._deadline == NEVER
