"""What is left alone for a time, and for longer each time that it disappoints again. Pure but for its clock."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from relay.core.outcome import Outcome

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pause:
    """Left alone until the time `again`, after a wait of so many seconds, because of `outcome`."""

    outcome: Outcome
    again: float
    wait: float


class Pauses(Generic[K]):
    """Pauses of `first` seconds, doubled each time up to `longest`. `now` is a monotonic clock."""

    def __init__(self, now: Callable[[], float], first: float, longest: float) -> None:
        self._now = now
        self._first = first
        self._longest = longest
        self._pauses: dict[K, Pause] = {}
        self.begun: Mapping[K, Pause] = self._pauses  # those that are over too, until they are ended or forgotten

    def begin(self, key: K, outcome: Outcome) -> bool:
        """Something has disappointed; True if a pause begins.

        Several messages may hear the same at once; only the first of them makes the wait longer.
        """
        known, now = self._pauses.get(key), self._now()
        if known is not None and known.again > now:
            return False
        wait = self._first if known is None else min(known.wait * 2, self._longest)
        self._pauses[key] = Pause(outcome, now + wait, wait)
        return True

    def end(self, key: K) -> bool:
        """It works: the next pause is short again. True if one was under way."""
        known = self._pauses.pop(key, None)
        return known is not None and known.again > self._now()

    def reason(self, key: K) -> Outcome | None:
        """Why it is left alone now; None if it is not."""
        known = self._pauses.get(key)
        return known.outcome if known is not None and known.again > self._now() else None

    @property
    def reasons(self) -> dict[K, Outcome]:
        """Everything that is left alone now, and why."""
        now = self._now()
        return {key: pause.outcome for key, pause in self._pauses.items() if pause.again > now}

    def next_end(self) -> float | None:
        """In how many seconds the first of them ends."""
        now = self._now()
        return min((pause.again - now for pause in self._pauses.values() if pause.again > now), default=None)

    def forget(self, current: Callable[[K], bool]) -> bool:
        """Drop those of what is not `current` any more; True if there were any."""
        gone = [key for key in self._pauses if not current(key)]
        for key in gone:
            del self._pauses[key]
        return bool(gone)
