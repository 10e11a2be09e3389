"""A line in which each lane keeps its order and the lanes take turns: whoever sends much delays only itself. Pure."""

from collections import deque
from typing import Generic, TypeVar

from relay.core.spooled import Lane

T = TypeVar("T")


class Turns(Generic[T]):
    """Those who wait. `len` is how many."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[T]] = {}  # in the order of their turns; none is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, lane: Lane, one: T) -> None:
        self._lanes.setdefault(lane, deque()).append(one)
        self._count += 1

    def take(self) -> T:
        """Whose turn it is; raises StopIteration where nobody waits."""
        lane = next(iter(self._lanes))
        line = self._lanes.pop(lane)
        one = line.popleft()
        self._count -= 1
        if line:
            self._lanes[lane] = line
        return one
