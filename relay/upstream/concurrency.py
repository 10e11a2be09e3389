"""How many connections a target gets.

The first alone shows whether it takes any; with those that are made their number may grow fourfold, so a backlog after
an outage does not fall upon SparkPost all at once (slow start), and a dial of eight round trips is waited for only
twice before all are there. A 421, a 4yz greeting, or putting off every third message halves it (multiplicative
decrease); so many messages without that as there are connections make it one more (additive increase).
"""

from typing import Final

from relay.core.login import Target

GROWTH: Final = 4  # times as many connections as there are
PUT_OFF: Final = 1 / 3  # of the messages, which is too many
_WEIGHT: Final = 0.1  # of the last message in the share of those put off


class Concurrency:
    """The number of connections allowed to each target, of `limit` at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._window: dict[Target, int] = {}
        self._ceiling: dict[Target, float] = {}
        self._put_off: dict[Target, float] = {}

    def allowed(self, target: Target) -> int:
        """Connections that it may have now."""
        return min(self._window.get(target, 1), self.ceiling(target))

    def ceiling(self, target: Target) -> int:
        """Connections that it may come to have."""
        return int(self._ceiling.get(target, self._limit))

    def connected(self, target: Target, connections: int) -> None:
        """One has been made, and there are so many now."""
        self._window[target] = max(self._window.get(target, 1), min(self._limit, GROWTH * connections))

    def failed(self, target: Target, connections: int) -> None:
        """One could not be made, and there are so many."""
        self._window[target] = max(1, connections)

    def pushed_back(self, target: Target, connections: int) -> None:
        """It has asked to be spared while there were so many."""
        self._ceiling[target] = max(1.0, min(self.ceiling(target), connections) / 2)
        self._put_off.pop(target, None)

    def put_off(self, target: Target, connections: int) -> bool:
        """It has answered 4yz to a message while there were so many; True if that means that it wants to be spared."""
        share = self._put_off[target] = self._put_off.get(target, 0.0) * (1 - _WEIGHT) + _WEIGHT
        if share < PUT_OFF:
            return False
        self.pushed_back(target, connections)
        return True

    def accepted(self, target: Target) -> None:
        """It has taken a message, or refused it for good."""
        if not (self._put_off or self._ceiling):
            return
        if (share := self._put_off.get(target)) is not None:
            self._put_off[target] = share * (1 - _WEIGHT)
        ceiling = self._ceiling.get(target)
        if ceiling is None:
            return
        if ceiling + 1 / ceiling >= self._limit:
            del self._ceiling[target]
        else:
            self._ceiling[target] = ceiling + 1 / ceiling
