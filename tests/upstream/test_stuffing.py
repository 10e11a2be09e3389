"""Content on the wire: un-stuffing it gives what was sent, and nothing in it can end the data."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.core.message import Content
from relay.upstream.stuffing import _stuff, stuffed


class Pieces:
    """A body in the pieces a test wants."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.size = sum(map(len, pieces))

    def chunks(self):
        return iter(self._pieces)

    def close(self) -> None:
        return None


LINES = st.lists(st.sampled_from([b"", b".", b"..", b"x", b".x", b"x."])).map(
    lambda lines: b"".join(b + b"\r\n" for b in lines)
)


@given(octets=LINES, cuts=st.lists(st.integers(0, 60)))
def test_stuffing_is_undone_by_unstuffing(octets, cuts):
    """Any lines in any pieces."""
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    pieces = [octets[a:b] for a, b in pairwise(edges)]
    wire = b"".join(_stuff(pieces))

    assert b"".join(stuffed(Content(b"", Pieces(pieces), 10, False), eight_bit_ok=True)) == wire

    assert b"\r\n.\r\n" not in b"\r\n" + wire
    assert b"".join(line.removeprefix(b".") for line in wire.splitlines(keepends=True)) == octets


def test_a_small_message_is_one_piece():
    """Header section, body and soon the dot: one write, one TLS record."""
    content = Content(b"Subject: x\r\n", Pieces([b"\r\n", b"hello\r\n"]), 10, False)

    assert list(stuffed(content, eight_bit_ok=True)) == [b"Subject: x\r\n\r\nhello\r\n"]


def test_others_have_their_turn_while_it_is_found_out_what_offends():
    """Nothing can leave before all of the content has been looked at, and that may be twenty megabytes."""
    line = b"x" * 76 + b"\r\n"
    parts = [b"\r\n", *[line * 800] * 20, b"\xe4\r\n"]
    pieces = list(stuffed(Content(b"Subject: x\r\n", Pieces(parts), 76, True), eight_bit_ok=False))
    turns = next(number for number, piece in enumerate(pieces) if piece)

    assert turns >= 10
    assert b"".join(pieces).count(line) == 16_000
    assert all(len(piece) < 200_000 for piece in pieces)
