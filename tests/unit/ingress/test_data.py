"""The content reader: its end, its limits, and that chunking never matters."""

import re
import tempfile
from io import FileIO
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import reply
from relay.core.mime import MAX_LINE
from relay.ingress import body as body_module
from relay.ingress.body import _LONG_TO_CLOSE, MEMORY_LIMIT, scratch_problem
from relay.ingress.data import HEADER_LIMIT, PIECE, DataLimits, DataReader
from relay.ingress.unwrapping import LineEnd

LIMITS = DataLimits(message_size=1_000_000, line_length=100_000)


def read(octets: bytes, *, line_end: LineEnd = LineEnd.CRLF, limits: DataLimits = LIMITS, size: int = 0):
    """Feed `octets` whole or in pieces of `size`; the reader and what followed the end (None if it never came)."""
    reader = DataReader(limits, line_end)
    pieces = [octets] if not size else [octets[i : i + size] for i in range(0, len(octets), size)]
    for index, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader, rest + b"".join(pieces[index + 1 :])
    return reader, None


def octets_of(reader: DataReader) -> bytes:
    return b"".join(reader.content().chunks())


def test_content_ends_at_the_dot_line():
    """What stands before CRLF.CRLF is the content, what follows is left for the dialogue."""
    reader, rest = read(b"Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n")

    assert octets_of(reader) == b"Subject: x\r\n\r\nbody\r\n"
    assert rest == b"QUIT\r\n"
    assert reader.content().header == b"Subject: x\r\n"


def test_empty_content():
    """A dot right after 354 is an empty message."""
    reader, rest = read(b".\r\n")

    assert octets_of(reader) == b""
    assert rest == b""


def test_dots_are_unstuffed_once():
    """A line that begins with a dot loses exactly one."""
    reader, _ = read(b"..a\r\n...\r\nb.\r\n..\r\n.\r\n")

    assert octets_of(reader) == b".a\r\n..\r\nb.\r\n.\r\n"


@pytest.mark.parametrize(
    "variant",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n\x00.\r\n",
        b"\r\n.\x00\r\n",
        b"\n\r.\r\n",
    ],
)
def test_no_other_end_of_data_is_taken(variant):
    """In a CRLF session nothing but CRLF.CRLF ends the content, so nothing can be smuggled behind it."""
    reader, rest = read(b"a" + variant + b"MAIL FROM:<smuggled@example.com>\r\n.\r\n")

    assert rest == b""
    assert b"smuggled" in octets_of(reader)
    assert b"\r\n.\r\n" not in octets_of(reader).replace(b"\r\n.", b"\r\n..")


def test_lone_line_ends_become_crlf():
    """Bare LF and lone CR are normalised, and named as tolerances."""
    reader, _ = read(b"a\nb\rc\r\n\r\r\nd\r\n.\r\n")

    assert octets_of(reader) == b"a\r\nb\r\nc\r\n\r\n\r\nd\r\n"
    assert {"bare-lf", "lone-cr"} <= reader.tolerances


def test_bare_lf_session():
    """A session that began with bare LF ends its data with LF.LF and gets CRLF content."""
    reader, rest = read(b"Subject: x\n\n..a\nb\n.\nQUIT\n", line_end=LineEnd.LF)

    assert octets_of(reader) == b"Subject: x\r\n\r\n.a\r\nb\r\n"
    assert rest == b"QUIT\n"


def test_crlf_within_a_bare_lf_session_is_one_line_end():
    """CRLF lines in such a content are not doubled, whatever the chunking."""
    for size in (0, 1, 2, 3):
        reader, rest = read(b"a\r\nb\r\n.c\r\n\n.\n", line_end=LineEnd.LF, size=size)

        assert rest == b""
        assert octets_of(reader) == b"a\r\nb\r\nc\r\n\r\n"


def test_too_large_is_read_to_its_end():
    """Content over the limit is dropped but its end is found, so that the rest is not taken for commands."""
    reader, rest = read(b"x\r\n" * 500_000 + b".\r\nRSET\r\n", size=65536)

    assert reader.refusal == reply.message_too_large(1_000_000)
    assert rest == b"RSET\r\n"


def test_one_line_of_ten_megabytes():
    """A line without an end is refused by its length and costs no memory."""
    reader, rest = read(b"x" * 10_000_000 + b"\r\n.\r\n", size=65536, limits=DataLimits(20_000_000, 100_000))

    assert reader.refusal == reply.line_too_long(100_000)
    assert rest == b""


def test_header_section_has_a_limit():
    """A header section that never ends is refused."""
    reader, _ = read(b"X: y\r\n" * (HEADER_LIMIT // 5) + b".\r\n", size=65536, limits=DataLimits(20_000_000, 1000))

    assert reader.refusal == reply.HEADER_TOO_LARGE


def test_large_content_is_spooled_to_a_file_and_can_be_read_twice():
    """Beyond the memory limit the body lives in a file; reading it again gives the same octets."""
    line = b"0123456789" * 7 + b"\r\n"
    octets = b"Subject: big\r\n\r\n" + line * (3 * MEMORY_LIMIT // len(line))
    reader, _ = read(octets + b".\r\n", size=10_000, limits=DataLimits(20_000_000, 1000))
    content = reader.content()

    assert b"".join(content.chunks()) == octets
    assert b"".join(content.chunks()) == octets
    assert content.size == len(octets)
    content.body.close()


@pytest.mark.parametrize("before", range(-2, 10))
def test_a_large_read_is_one_content(before):
    """What comes at once is worked on in pieces: where one ends does not matter, not even within a dot or the end."""
    header, end = b"Subject: large\r\n", b"\r\n..\r\n.\r\n"
    lines = b"\r\n" + b"line\r\n" * (2 * PIECE // 6)
    text = lines[: 2 * PIECE - before - len(header) - 4] + b"last"

    reader, rest = read(header + text + end + b"QUIT\r\n")
    content = octets_of(reader)
    reader.discard()

    assert rest == b"QUIT\r\n"
    assert content == header + re.sub(rb"\r(?!\n)", b"\r\n", text) + b"\r\n.\r\n"


def test_measures():
    """Lines that are too long to travel and 8-bit octets are known without another pass."""
    reader, _ = read(b"ab\r\n" + b"x" * 1000 + b"\r\n" + b"y" * 999 + b"\r\n\xe9\r\n.\r\n", size=1)
    short, _ = read(b"x" * MAX_LINE + b"\r\n.\r\n")

    assert reader.content().longest_line == 1000
    assert reader.content().eight_bit
    assert short.content().longest_line == 0


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("octets", "stalled"),
    [(b"a\n.\n", True), (b"a\n.\r\n", True), (b".\n", True), (b"a\r\n.", False), (b"a\n", False)],
)
def test_a_client_that_believes_to_be_done_is_noticed(octets, stalled, size):
    """LF.LF in a CRLF session stalls the client; the reader knows, however the octets came."""
    reader, rest = read(octets, size=size)

    assert rest is None
    assert reader.stalled is stalled


ALPHABET = st.lists(
    st.sampled_from(
        [
            *(b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"X: y", b"\xff", b"\x00"),
            *(b"\r\n.\r\n", b"\r\n\r\n", b"x" * 50, b"y" * 998),
        ]
    )
).map(b"".join)


@given(octets=ALPHABET, sizes=st.lists(st.integers(1, 7), min_size=1), line_end=st.sampled_from(LineEnd))
def test_chunking_never_matters(octets, sizes, line_end):
    """Any octets in any pieces give the same content, the same end, the same measures."""
    stream = octets + line_end.value + b"." + line_end.value + b"NOOP\r\n"
    whole, whole_rest = read(stream, line_end=line_end)
    reader = DataReader(LIMITS, line_end)
    position = index = 0
    rest = None
    while rest is None:
        size = sizes[index % len(sizes)]
        rest = reader.feed(stream[position : position + size])
        position, index = position + size, index + 1

    assert rest + stream[position:] == whole_rest
    assert reader.content().header == whole.content().header
    assert octets_of(reader) == octets_of(whole)
    assert reader.content().longest_line == whole.content().longest_line
    assert reader.tolerances == whole.tolerances


@given(octets=ALPHABET)
def test_content_is_lines_ended_by_crlf(octets):
    """Whatever came in, what goes on has no lone CR or LF, ends with CRLF and reports its longest line."""
    reader, _ = read(octets + b"\r\n.\r\n")
    content = octets_of(reader)

    assert re.search(rb"\r(?!\n)|(?<!\r)\n", content) is None
    assert content == b"" or content.endswith(b"\r\n")
    longest = max(len(line) for line in content.split(b"\r\n"))
    assert reader.content().longest_line == (longest if longest > MAX_LINE else 0)


def test_a_file_that_takes_long_to_close_is_closed_elsewhere(monkeypatch):
    """Nobody waits for it, and closing it twice is closing it once."""
    begun: list[Thread] = []

    def thread(target, args):
        begun.append(Thread(target=target, args=args))
        return begun[-1]

    monkeypatch.setattr(body_module, "Thread", thread)
    reader, _ = read(b"\r\n" + b"0123456\r\n" * (_LONG_TO_CLOSE // 8) + b".\r\n", limits=DataLimits(20_000_000, 1000))
    content = reader.content()
    content.body.close()
    begun[0].join()
    content.body.close()

    assert len(begun) == 1
    with pytest.raises(ValueError, match="closed"):
        list(content.body.chunks())


def test_where_there_are_no_more_threads_a_file_is_closed_all_the_same(monkeypatch):
    """A session that ends must come to its end, or its place is taken for ever."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", start)
    reader, _ = read(b"\r\n" + b"0123456\r\n" * (_LONG_TO_CLOSE // 8) + b".\r\n", limits=DataLimits(20_000_000, 1000))
    reader.discard()

    assert reader.content().body.file.closed


class Place:
    """Gives files of its own for large bodies, as long as it has some."""

    def __init__(self, *files: Path) -> None:
        self._files = list(files)

    def draft(self) -> FileIO | None:
        return FileIO(self._files.pop(), "x+") if self._files else None


def test_a_large_body_goes_where_the_spool_wants_it(tmp_path):
    """And to a temporary file when the spool takes none."""
    place = Place(tmp_path / "draft")
    body = b"\r\n" + b"0123456\r\n" * (MEMORY_LIMIT // 8)
    readers = [DataReader(DataLimits(2_000_000, 1000), LineEnd.CRLF, drafts=place) for _ in range(2)]

    for reader in readers:
        assert reader.feed(body + b".\r\n") == b""
        assert octets_of(reader) == body
    assert (tmp_path / "draft").read_bytes() == body
    assert [path.name for path in tmp_path.iterdir()] == ["draft"]
    for reader in readers:
        reader.discard()


def test_without_room_for_a_temporary_file(monkeypatch, tmp_path):
    """Small messages pass, a large one is 452 and read to its end; at the start there is a warning with the remedy."""
    assert scratch_problem() is None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    small, _ = read(b"Subject: x\r\n\r\nbody\r\n.\r\n")
    lines = b"0123456\r\n" * (MEMORY_LIMIT // 8)
    large, rest = read(b"Subject: x\r\n\r\n" + lines + b".\r\nQUIT\r\n", limits=DataLimits(2_000_000, 1000))

    assert small.refusal is None
    assert large.refusal == reply.NO_ROOM
    assert rest == b"QUIT\r\n"
    assert "TMPDIR" in str(scratch_problem())
