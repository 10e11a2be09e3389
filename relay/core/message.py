"""A message as it moves through the relay: its queue id, its envelope and its content."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple, Protocol

from relay.core.envelope import Envelope


class Body(Protocol):
    """The octets behind the header section, in memory or in a file; readable more than once until closed."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> Iterator[bytes]:
        """The octets from the start, in pieces of a bounded size; raises OSError where a file cannot be read.

        Several may be under way at once, also in other threads.
        """
        ...

    def close(self) -> None: ...


def gathered(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same octets in fewer pieces: each but the last has at least so many. An empty one is passed on, as an
    offer to let others have a turn.
    """
    pieces: list[bytes] = []
    held = 0
    for chunk in chunks:
        pieces.append(chunk)
        held += len(chunk)
        if held >= size or not chunk:
            yield b"".join(pieces)
            pieces, held = [], 0
    if held:
        yield b"".join(pieces)


@dataclass(frozen=True, slots=True)
class MemoryBody:
    """A body that is all in memory."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    def chunks(self) -> Iterator[bytes]:
        yield self.octets

    def close(self) -> None:
        """Nothing is held open."""


class Content(NamedTuple):
    """The octets between DATA and the final dot, un-stuffed, every line ended by CRLF.

    `header` is the header section without the empty line that ends it; `body` begins with that empty line where there
    is one. `longest_line` (octets, CRLF not counted) and `eight_bit` say whether anything must be re-encoded on the
    way out; lines that may travel as they are need not have been measured.
    """

    header: bytes
    body: Body
    longest_line: int
    eight_bit: bool

    @property
    def size(self) -> int:
        return len(self.header) + self.body.size

    def chunks(self) -> Iterator[bytes]:
        """All octets from the start; may be called again for another attempt."""
        chunks = self.body.chunks()
        return chain((self.header,), chunks) if self.header else chunks

    def close(self) -> None:
        """Nobody needs it any more."""
        self.body.close()


class Message(NamedTuple):
    """What one transaction brought: `queue_id` is our name for it in replies, logs and the Received line."""

    queue_id: str
    envelope: Envelope
    content: Content


_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [first + second for first in _BASE32 for second in _BASE32]


def queue_id_of(epoch: float, noise: int) -> str:
    """14 characters: milliseconds since the epoch and 25 bits of noise, so ids sort by time and hardly ever meet."""
    number = (int(epoch * 1000) & (1 << 45) - 1) << 25 | noise & (1 << 25) - 1
    pairs = _PAIRS
    return (
        f"{pairs[number >> 60]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}{pairs[number >> 30 & 1023]}"
        f"{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )
