"""A secret value that cannot be printed by accident.

`str()`, `repr()`, formatting, pickling and JSON all give the mask or fail; only `reveal()` gives the octets, so every
place that touches the real value can be found by searching for that word.
"""

import hashlib
import hmac
from typing import Final, NoReturn

MASK: Final = "********"


class Secret:
    """One password or API key. Compared in constant time, hashed by digest, never shown."""

    __slots__ = ("_digest", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._digest = hashlib.sha256(value.encode()).digest()

    def reveal(self) -> str:
        """The secret itself: for the wire and for verification only."""
        return self._value

    def digest(self) -> bytes:
        """SHA-256 of the value: tells two secrets apart without holding either."""
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._digest, other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not to be pickled or copied out of the process")
