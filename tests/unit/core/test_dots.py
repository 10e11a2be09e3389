"""Cutting at dots that begin a line: the same as `split`, whether they are few or many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.dots import splitter

PIECES = st.lists(
    st.sampled_from([b"\r\n.", b"\n.", b"\r\n", b"\r", b".", b"a.b", b"x" * 700, b"y" * 3000]), max_size=40
)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@given(pieces=PIECES)
def test_it_cuts_as_split_does(line_end, pieces):
    """Ends that touch, dots without an end, ends without a dot."""
    octets = b"".join(pieces)

    assert splitter(line_end)(octets) == octets.split(line_end + b".")


def test_dots_that_begin_to_be_many_are_all_found():
    """A few that are looked at one by one, and then those that are left to the expression."""
    octets = b"x" * 10_000 + b"\r\n.\r\n." * 50 + b"a.b" * 50 + b"\r\n.end"

    assert splitter(b"\r\n")(octets) == octets.split(b"\r\n.")
