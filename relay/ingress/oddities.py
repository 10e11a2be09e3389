"""Which leniency has been named to the operator today, for which client. Pure.

Each is counted every time, and named in the log once a day for each client: enough to find the program that needs
mending, and not so much that nobody reads it.
"""

from collections import OrderedDict
from typing import Final

from relay.core.tolerance import Tolerance

REMEMBERED: Final = 10_000  # pairs of client and kind; beyond, the oldest may be named again
DAY: Final = 86_400.0


class Oddities:
    """What has been named, and when."""

    def __init__(self) -> None:
        self._named: OrderedDict[tuple[str, Tolerance], float] = OrderedDict()

    def worth_naming(self, client: str, kind: Tolerance, now: float) -> bool:
        """True once in 24 hours for the same client and kind. `now` in seconds that never go back."""
        key = (client, kind)
        named = self._named.get(key)
        if named is not None and now - named < DAY:
            return False
        self._named[key] = now
        self._named.move_to_end(key)
        if len(self._named) > REMEMBERED:
            self._named.popitem(last=False)
        return True
