"""Replies off the wire: bounded, and indifferent to how their octets are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.reply import EnhancedCode, Reply
from relay.upstream.replies import MAX_LINE, MAX_REPLY, Gibberish, ReplyReader


def unheard(reply):
    """For octets that complete no reply."""
    pytest.fail(f"heard {reply}")


def test_replies_are_read_in_order():
    """Several in one piece, single-line and multi-line."""
    replies: list[Reply] = []

    ReplyReader().feed(b"250 2.1.0 ok\r\n250-2.1.5 a\r\n250 2.1.5 b\r\n354\r\n", replies.append)

    assert replies == [
        Reply(250, EnhancedCode(2, 1, 0), "ok"),
        Reply(250, EnhancedCode(2, 1, 5), "a b"),
        Reply(354, None, ""),
    ]


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"99 x\r\n",
        b"600 x\r\n",
        b"250_x\r\n",
        b"250-a\r\n251 b\r\n",
        b"\r\n",
        b"2\xff0 x\r\n",
        b"5\r\n",
        b"25\n",
    ],
)
def test_what_is_no_reply(octets):
    """Octets that no server should send."""
    with pytest.raises(Gibberish):
        ReplyReader().feed(octets, unheard)


def test_a_line_without_end_costs_nothing():
    """A reply of four gigabytes ends at eight kilobytes."""
    reader = ReplyReader()
    for _ in range(MAX_LINE // 1000):
        reader.feed(b"2" * 1000, unheard)

    with pytest.raises(Gibberish):
        reader.feed(b"2" * 1000, unheard)


def test_a_reply_without_end_costs_nothing():
    """Nor do continuation lines for ever."""
    reader = ReplyReader()
    for _ in range(MAX_REPLY // 1000):
        reader.feed(b"250-" + b"x" * 996 + b"\r\n", unheard)

    with pytest.raises(Gibberish):
        reader.feed(b"250-" + b"x" * 996 + b"\r\n", unheard)


@given(
    st.lists(st.sampled_from([b"250 ok", b"250-", b"\r\n", b"\n", b"5.7.1", b"421", b" ", b"\xff", b"x"])),
    st.integers(1, 5),
)
def test_chunking_never_matters(pieces, size):
    """Whole or in pieces: the same replies, or gibberish, and never another exception."""
    octets = b"".join(pieces)

    def read(step):
        reader, replies = ReplyReader(), []
        try:
            for at in range(0, len(octets), step):
                reader.feed(octets[at : at + step], replies.append)
        except Gibberish:
            return None
        return replies

    assert read(size) == read(len(octets) or 1)
