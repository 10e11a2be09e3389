"""How much of the mail that has just come in is kept in memory for its first attempt, beside being stored. Pure.

A lane holds at most as much as it leaves free: so there is always room for another, however loud the first one is, and
lanes that all want more come to hold the same. One alone gets half.
"""

from collections import Counter
from typing import Final

from relay.core.spooled import Lane

MESSAGES: Final = 256
OCTETS: Final = 32 * 1024 * 1024


class Window:
    """What is held by messages between their arrival and the end of their first attempt.

    The first `always` may be of any size: they need not wait, and large content is in a file.
    """

    def __init__(self, always: int, *, messages: int = MESSAGES, octets: int = OCTETS) -> None:
        self._always = always
        self._free_messages = messages
        self._free_octets = octets
        self._held: dict[str, tuple[Lane, int]] = {}  # by queue id
        self._messages: Counter[Lane] = Counter()
        self._octets: Counter[Lane] = Counter()

    def has_room(self, lane: Lane, size: int) -> bool:
        if len(self._held) < self._always:
            return True
        return (
            self._messages[lane] + 1 <= self._free_messages - 1
            and self._octets[lane] + size <= self._free_octets - size
        )

    def enter(self, queue_id: str, lane: Lane, size: int) -> None:
        """A message of so many octets is held, whether there is room or not."""
        self._held[queue_id] = lane, size
        self._free_messages -= 1
        self._free_octets -= size
        self._messages[lane] += 1
        self._octets[lane] += size

    def leave(self, queue_id: str) -> None:
        """It is not held any more."""
        lane, size = self._held.pop(queue_id)
        self._free_messages += 1
        self._free_octets += size
        self._octets[lane] -= size
        self._messages[lane] -= 1
        if not self._messages[lane]:
            del self._messages[lane], self._octets[lane]
