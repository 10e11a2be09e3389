"""Reading a message from a descriptor, whatever its line ends and its size."""

import os
import tempfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sendmail.failure import Failure
from relay.sendmail.message import Content, assemble, read


def wire(octets: bytes, *, dot_ends: bool = False, pieces: int | None = None) -> tuple[bytes, bytes, Content]:
    """What is read from a file, or from a pipe that gives so many octets at once."""
    if pieces is None:
        with tempfile.TemporaryFile() as file:
            file.write(octets)
            file.seek(0)
            header, content = read(file.fileno(), dot_ends=dot_ends)
    else:
        split = [octets[at : at + pieces] for at in range(0, len(octets), pieces)]
        header, content = assemble(split, dot_ends=dot_ends)
    with content:
        octets = b"".join(content.blocks())
        assert octets == b"".join(content.blocks())
    return bytes(header), octets, content


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\r\n"], ids=["LF", "CRLF", "CR", "CR CR LF"])
def test_every_line_end_becomes_crlf(end):
    """And none is lost or doubled, empty lines and all."""
    header, content, _ = wire(end.join([b"A: 1", b"", b"one", b"", b"", b"two", b""]))

    assert header == b"A: 1\n"
    assert content == b"one\r\n\r\n\r\ntwo\r\n"


def test_mixed_line_ends_in_one_message():
    """PHP writes its own header lines with CRLF around a body with LF; a progress bar has lone CRs."""
    assert wire(b"A: 1\r\nB: 2\n\r\none\ntwo\r\n10%\r20%\r\nend")[1] == b"one\r\ntwo\r\n10%\r\n20%\r\nend\r\n"


def test_all_other_octets_pass():
    """8-bit ones, NUL, every control character."""
    octets = bytes(set(range(256)) - {10, 13}) * 300
    header, content, read_content = wire(b"A: \xff\xfe\n\n" + octets + b"\n")

    assert header == b"A: \xff\xfe\n"
    assert content == octets + b"\r\n"
    assert read_content.eight_bit
    assert read_content.size == len(octets) + 2


@given(
    octets=st.lists(st.sampled_from([b"A: 1", b"\r", b"\n", b"\r\n", b".", b"x", b" ", b"\xe9"])).map(b"".join),
    pieces=st.integers(1, 5),
    dot_ends=st.booleans(),
)
def test_the_pieces_in_which_it_comes_make_no_difference(octets, pieces, dot_ends):
    """Any split of the octets is the same message."""
    whole, split = wire(octets, dot_ends=dot_ends), wire(octets, dot_ends=dot_ends, pieces=pieces)

    assert whole[:2] == split[:2]
    assert whole[2].size == split[2].size == len(whole[1].replace(b"\r\n..", b"\r\n.")) - whole[1].startswith(b".")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_lone_dot_ends_the_message(end):
    """What stands behind it is no part of it; a dot with anything beside it is text."""
    lines = [b"A: 1", b"", b"one", b".x", b" .", b".", b"not this"]

    assert wire(end.join(lines), dot_ends=True)[1] == b"one\r\n..x\r\n .\r\n"
    assert wire(end.join(lines))[1] == b"one\r\n..x\r\n .\r\n..\r\nnot this\r\n"


@pytest.mark.parametrize("octets", [b".\nx\n", b"A: 1\n.\nx\n", b"A: 1\n\n.\nx\n", b"A: 1\n\n."])
def test_a_lone_dot_ends_it_wherever_it_stands(octets):
    """Before the header's end, right behind it, and at the end of all."""
    assert wire(octets, dot_ends=True)[1] == b""


def test_reading_stops_at_the_dot():
    """Who types a message need not end the input as well."""
    reading, writing = os.pipe()
    os.write(writing, b"A: 1\n\ntext\n.\n")
    try:
        _, content = read(reading, dot_ends=True)
    finally:
        os.close(reading)
        os.close(writing)

    assert b"".join(content.blocks()) == b"text\r\n"


def test_dots_are_stuffed():
    """At the beginning of lines, there alone, and across the seams of what was read."""
    line = b"." + b"x" * 99 + b"\n"

    assert wire(b"\n" + line * 3000)[1] == (b"." + line[:-1] + b"\r\n") * 3000


def test_a_line_longer_than_what_is_read_at_once():
    """It stays one line, with its dots as they are."""
    octets = (b"." * 1000 + b"x") * 1000

    assert wire(b"A: 1\n\n" + octets + b"\nend\n")[1] == b"." + octets + b"\r\nend\r\n"


def test_a_long_line_without_an_end():
    """It gets one, whether a piece ended with it or not."""
    for length in (65_536, 65_537, 131_072, 200_000):
        assert wire(b"\n" + b"x" * length)[1] == b"x" * length + b"\r\n"
        assert wire(b"\n" + b"x" * length, pieces=65_537)[1] == b"x" * length + b"\r\n"


def test_a_header_longer_than_what_is_read_at_once():
    """Ten thousand recipients in one field."""
    octets = b"To: " + b",\n ".join(b"r%d@example.net" % number for number in range(10_000)) + b"\n"

    assert wire(octets + b"\nx\n")[:2] == (octets, b"x\r\n")


def test_a_large_message_is_in_a_file_and_can_be_sent_again():
    """20 MB do not stay in memory."""
    octets = (b"x" * 75 + b"\n") * 270_000
    _, content, read_content = wire(b"A: 1\n\n" + octets)

    assert read_content._blocks == []
    assert content == octets.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    "octets", [b"\r" * 3_000_000, b"x" * 3_000_000, b"A: " + b" x" * 1_000_000], ids=["CR", "x", "field"]
)
def test_a_hostile_message_takes_time_in_proportion(octets):
    """No line end in it, or nothing but."""
    assert sum(map(len, wire(octets)[:2])) >= len(octets)


def test_a_message_of_nothing():
    """`sendmail address < /dev/null` sends an empty one."""
    assert wire(b"")[:2] == (b"", b"")


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
def test_a_slow_writer_is_waited_for(blocking):
    """A cron job writes when it has something to say; some callers leave a pipe that does not block."""
    reading, writing = os.pipe()
    os.set_blocking(reading, blocking)

    def write() -> None:
        for octet in b"A: 1\r\n\r\ntext\r\n":
            os.write(writing, bytes([octet]))
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        header, content = read(reading, dot_ends=True)
    finally:
        writer.join()
        os.close(reading)

    assert (bytes(header), b"".join(content.blocks())) == (b"A: 1\n", b"text\r\n")


def test_what_cannot_be_read_is_an_io_error(tmp_path):
    """A folder is no message."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(Failure, match="Nothing was sent") as caught:
            read(descriptor, dot_ends=False)
    finally:
        os.close(descriptor)

    assert caught.value.status == os.EX_IOERR


def test_no_room_for_a_large_message_is_an_io_error(monkeypatch):
    """The temporary folder is full, or none can be written to."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: _write_all(writing, b"x\n" * 1_000_000))
    writer.start()
    try:
        with pytest.raises(Failure, match="No space left on device") as caught:
            read(reading, dot_ends=False)
    finally:
        os.close(reading)
        writer.join()

    assert caught.value.status == os.EX_IOERR


def _write_all(descriptor: int, octets: bytes) -> None:
    try:
        while octets:
            octets = octets[os.write(descriptor, octets) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(descriptor)
