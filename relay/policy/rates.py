"""How many messages an identity may send in a minute and in a day, and how many it has sent. Pure: time is handed in.

Counted in memory: a relay that starts anew begins to count anew. What an identity captures from its logins, a
subaccount each, has the limits for itself.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from relay.core import reply
from relay.core.login import Assignment
from relay.core.reply import Reply

REMEMBERED: Final = 10_000  # senders; beyond, the one that has been silent for longest begins anew
_SLOTS: Final = 60  # a window is counted in so many parts; what is in one of them counts until all of it is over


@dataclass(frozen=True, slots=True)
class Rate:
    """Messages that may be sent; None is as many as there are."""

    per_minute: int | None
    per_day: int | None


class Window:
    """What happened in the last so many seconds, and whether it may happen again."""

    def __init__(self, period: str, seconds: float, limit: int) -> None:
        self.period = period
        self.limit = limit
        self._slot_seconds = seconds / _SLOTS
        self._slots: deque[list[int]] = deque()  # [number of the slot, how often]
        self._total = 0

    def wait(self, now: float) -> float:
        """In how many seconds it may happen again; 0 if it may now."""
        current = int(now / self._slot_seconds)
        while self._slots and self._slots[0][0] < current - _SLOTS:
            self._total -= self._slots.popleft()[1]
        if self._total < self.limit:
            return 0.0
        excess = self._total - self.limit
        for slot, count in self._slots:
            excess -= count
            if excess < 0:
                return (slot + _SLOTS + 1) * self._slot_seconds - now
        raise AssertionError("a limit is at least 1")

    def add(self, now: float) -> None:
        current = int(now / self._slot_seconds)
        if not self._slots or self._slots[-1][0] < current:
            self._slots.append([current, 0])
        self._slots[-1][1] += 1
        self._total += 1

    def take_back(self, then: float) -> None:
        """What was added then did not happen, if it is still counted; others may have been added since."""
        number = int(then / self._slot_seconds)
        for slot in reversed(self._slots):
            if slot[0] == number and slot[1]:
                slot[1] -= 1
                self._total -= 1
                return


class Quotas:
    """The messages of all senders that have a rate."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Assignment, tuple[Window, ...]] = OrderedDict()

    def refusal(self, sender: Assignment, rate: Rate | None, now: float) -> Reply | None:
        """Why the sender may not send now; None if it may."""
        for window in self._of(sender, rate) if rate is not None else ():
            wait = window.wait(now)
            if wait:
                return reply.too_many_messages(sender.identity, window.limit, window.period, wait)
        return None

    def take(self, sender: Assignment, rate: Rate | None, now: float) -> Reply | None:
        """Count a message in; or say why it may not be sent, and count nothing."""
        refused = self.refusal(sender, rate, now)
        if refused is None and rate is not None:
            for window in self._of(sender, rate):
                window.add(now)
        return refused

    def give_back(self, sender: Assignment, rate: Rate | None, then: float) -> None:
        """A message that was counted then has been refused."""
        if rate is not None:
            for window in self._of(sender, rate):
                window.take_back(then)

    def _of(self, sender: Assignment, rate: Rate) -> tuple[Window, ...]:
        windows = self._windows.get(sender)
        if windows is None:
            given = (("minute", 60.0, rate.per_minute), ("day", 86_400.0, rate.per_day))
            windows = tuple(Window(period, seconds, limit) for period, seconds, limit in given if limit is not None)
            self._windows[sender] = windows
            if len(self._windows) > REMEMBERED:
                self._windows.popitem(last=False)
        self._windows.move_to_end(sender)
        return windows
