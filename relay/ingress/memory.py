"""How much memory the content of all sessions together may take (`limits.data_memory`), and who waits for it. Pure.

A message asks before it grows. Where there is no room its body goes to a file; what cannot, waits: its client is not
read from, which is the back-pressure, and the longest wait is served first. Nobody can be waiting for ever on each
other: when everybody who holds memory waits for more, the first of them gets it whatever the limit says.
"""

from collections.abc import Callable


class DataMemory:
    """The room that all messages share; `limit` in octets, None for as much as there is."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self.held = 0
        self._waiting: dict[Share, tuple[int, Callable[[], None]]] = {}

    def share(self) -> "Share":
        """What one message holds of it; nothing yet."""
        return Share(self)

    def room_for(self, octets: int) -> bool:
        """May a message take so many octets more? Those who wait already come first."""
        return self._limit is None or (self.held + octets <= self._limit and not self._waiting)

    def change(self, share: "Share", octets: int) -> None:
        """From now on the share is so large, whatever the limit."""
        self.held += octets - share.held
        share.held = octets
        if self._waiting:
            self._serve()

    def wait(self, share: "Share", octets: int, served: Callable[[], None]) -> None:
        """`served` is called once the share is so large."""
        self._waiting[share] = (octets, served)
        self._serve()

    def give_up(self, share: "Share") -> None:
        """It does not wait any more."""
        if self._waiting and self._waiting.pop(share, None) is not None:
            self._serve()

    def _serve(self) -> None:
        """Give those who wait what they wait for, in their order, as far as it goes."""
        while self._waiting:
            share, (octets, served) = next(iter(self._waiting.items()))
            fits = self._limit is None or self.held + octets - share.held <= self._limit
            if not fits and self.held > sum(waiting.held for waiting in self._waiting):
                return  # somebody who does not wait holds memory, and will give it back
            del self._waiting[share]
            self.held += octets - share.held
            share.held = octets
            served()


class Share:
    """What one message holds of the memory; `held` in octets."""

    __slots__ = ("_memory", "held")

    def __init__(self, memory: DataMemory) -> None:
        self._memory = memory
        self.held = 0

    def reach(self, octets: int) -> bool:
        """Hold so many octets, if there is room; else nothing has changed."""
        if octets > self.held:
            if not self._memory.room_for(octets - self.held):
                return False
            self._memory.change(self, octets)
        return True

    def settle(self, octets: int) -> None:
        """It is so many octets now: the rest is given back, or what is missing is taken."""
        if octets != self.held:
            self._memory.change(self, octets)

    def wait(self, octets: int, served: Callable[[], None]) -> None:
        """Hold so many octets as soon as there is room; `served` is called then, perhaps at once."""
        self._memory.wait(self, octets, served)

    def release(self) -> None:
        """Nothing is held any more, and nothing waited for."""
        self._memory.give_up(self)
        self.settle(0)
