"""Where inputs come from: seeds that are cut, spliced and sprinkled with tokens, and now and then pure noise."""

from collections.abc import Callable, Sequence
from random import Random

MOST_KEPT = 2000  # inputs that did something new; a bound, so that a long run takes no more memory than a short one
LONGEST_KEPT = 2000  # octets; what is made of long ones is long, and costs the time of many


class Mutator:
    """Inputs for one target, none longer than `longest`; the same for the same seed and the same `keep`s."""

    def __init__(self, random: Random, seeds: Sequence[bytes], tokens: Sequence[bytes], longest: int) -> None:
        self._random = random
        self._pool = [seed[:longest] for seed in seeds]
        self._own = len(self._pool)
        self._tokens = tokens
        self._longest = longest
        self._ways: list[Callable[[bytes], bytes]] = [
            *[self._token] * 4,
            self._octet,
            self._octet,
            self._cut,
            self._move,
            self._splice,
            self._twice,
        ]

    def next(self) -> bytes:
        """Another input."""
        random = self._random
        kind = random.random()
        if kind < 0.05:
            return random.randbytes(int(random.expovariate(1 / 30)))[: self._longest]
        if kind < 0.2:
            return b"".join(random.choices(self._tokens, k=1 + int(random.expovariate(1 / 8))))[: self._longest]
        octets = random.choice(self._pool)
        for _ in range(1 + int(random.expovariate(1 / 2))):
            octets = random.choice(self._ways)(octets)
        if kind > 0.995:
            octets = self._many(octets)
        return octets[: self._longest]

    def keep(self, octets: bytes) -> None:
        """This one did something new: others shall be made of it."""
        if len(octets) > LONGEST_KEPT:
            return
        if len(self._pool) < MOST_KEPT:
            self._pool.append(octets)
        else:
            self._pool[self._random.randrange(self._own, MOST_KEPT)] = octets

    # -- ways ---------------------------------------------------------------------------------------------------------

    def _piece(self, octets: bytes) -> tuple[int, int]:
        start = self._random.randrange(len(octets) + 1)
        return start, start + int(self._random.expovariate(1 / 6))

    def _token(self, octets: bytes) -> bytes:
        start, end = self._piece(octets)
        return (
            octets[:start] + self._random.choice(self._tokens) + octets[start if self._random.random() < 0.6 else end :]
        )

    def _octet(self, octets: bytes) -> bytes:
        at = self._random.randrange(len(octets) + 1)
        return octets[:at] + bytes([self._random.randrange(256)]) + octets[at + self._random.randrange(2) :]

    def _cut(self, octets: bytes) -> bytes:
        start, end = self._piece(octets)
        return octets[:start] + octets[end:]

    def _move(self, octets: bytes) -> bytes:
        start, end = self._piece(octets)
        rest = octets[:start] + octets[end:]
        at = self._random.randrange(len(rest) + 1)
        return rest[:at] + octets[start:end] + rest[at:]

    def _splice(self, octets: bytes) -> bytes:
        other = self._random.choice(self._pool)
        return octets[: self._random.randrange(len(octets) + 1)] + other[self._random.randrange(len(other) + 1) :]

    def _twice(self, octets: bytes) -> bytes:
        start, end = self._piece(octets)
        return octets[:end] + octets[start:]

    def _many(self, octets: bytes) -> bytes:
        """What takes more than linear time shows it here."""
        start, end = self._piece(octets)
        piece = octets[start:end] or self._random.choice(self._tokens)
        return octets[:start] + piece * (self._longest // len(piece)) + octets[end:]
