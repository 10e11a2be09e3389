"""How much of the mail that has just come in is kept in memory for its first attempt, beside being stored. Pure."""

from typing import Final

MESSAGES: Final = 256
OCTETS: Final = 8 * 1024 * 1024


class Window:
    """What is held by messages between their arrival and the end of their first attempt.

    The first `always` may be of any size: they need not wait, and large content is in a file.
    """

    def __init__(self, always: int, *, messages: int = MESSAGES, octets: int = OCTETS) -> None:
        self._always = always
        self._most_messages = messages
        self._most_octets = octets
        self._messages = 0
        self._octets = 0

    def has_room(self, size: int) -> bool:
        if self._messages < self._always:
            return True
        return self._messages < self._most_messages and self._octets + size <= self._most_octets

    def enter(self, size: int) -> None:
        """A message of so many octets is held, whether there is room or not."""
        self._messages += 1
        self._octets += size

    def leave(self, size: int) -> None:
        """It is not held any more."""
        self._messages -= 1
        self._octets -= size
