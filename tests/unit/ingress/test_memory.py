"""The memory that all messages share: who gets it, who waits, and that nobody waits for ever."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from relay.core import reply
from relay.ingress.data import DataLimits, DataReader
from relay.ingress.memory import DataMemory, Share
from relay.ingress.unwrapping import LineEnd

LIMITS = DataLimits(message_size=1_000_000, line_length=100_000)


def holding(memory: DataMemory, octets: int) -> Share:
    share = memory.share()
    share.settle(octets)
    return share


def test_there_is_room_up_to_the_limit():
    """What fits is given, what does not changes nothing, and what is released can be had again."""
    memory = DataMemory(100)
    first, second = memory.share(), memory.share()

    assert first.reach(60)
    assert not second.reach(41)
    assert second.reach(40)
    first.release()
    assert second.reach(100)
    assert memory.held == 100


def test_who_waits_is_served_in_turn():
    """The longest wait comes first, and nobody slips past while others wait."""
    memory = DataMemory(100)
    holder = holding(memory, 90)
    served = []
    memory.share().wait(50, lambda: served.append("first"))
    memory.share().wait(5, lambda: served.append("second"))

    assert served == []
    assert not memory.share().reach(1)
    holder.settle(45)
    assert served == ["first", "second"]
    assert memory.held == 100


def test_who_gives_up_lets_the_others_pass():
    """A session that has gone leaves its place in the queue and what it held."""
    memory = DataMemory(100)
    _ = holding(memory, 90)
    served = []
    large = memory.share()
    large.wait(50, lambda: served.append("large"))
    memory.share().wait(5, lambda: served.append("small"))
    large.release()

    assert served == ["small"]


def test_those_who_wait_for_each_other_go_on():
    """When everybody who holds memory waits for more, the first of them gets it: nobody else could make room."""
    memory = DataMemory(100)
    served = []
    for name in ("first", "second"):
        share = holding(memory, 50)
        share.wait(80, lambda name=name: served.append(name))

    assert served == ["first"]
    assert memory.held == 130


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["reach", "settle", "wait", "release"]), st.integers(0, 60)))
)
def test_whatever_is_done_somebody_can_go_on(steps):
    """The account is right, and where somebody waits, somebody who does not wait holds memory."""
    memory = DataMemory(100)
    shares = [memory.share() for _ in range(5)]
    waiting = set()
    for number, what, octets in steps:
        share = shares[number]
        if what == "release":
            waiting.discard(number)
            share.release()
        elif number not in waiting:
            if what == "wait":
                waiting.add(number)
                share.wait(share.held + octets, lambda number=number: waiting.discard(number))
            elif what == "reach":
                share.reach(octets)
            else:
                share.settle(min(octets, share.held))

        assert memory.held == sum(one.held for one in shares)
        assert not waiting or sum(shares[number].held for number in waiting) < memory.held


def reader_in(memory: DataMemory) -> DataReader:
    return DataReader(LIMITS, LineEnd.CRLF, memory.share())


def test_a_body_goes_to_a_file_where_memory_is_short():
    """Then it takes no memory, and loses nothing."""
    memory = DataMemory(60_000)
    _ = holding(memory, 25_000)
    reader = reader_in(memory)
    lines = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 2000

    assert reader.admits(len(lines))
    assert reader.feed(lines) is None
    assert reader.admits(len(lines))
    assert memory.held == 25_000 + len(b"Subject: x\r\n")
    assert reader.feed(lines + b".\r\n") == b""
    assert b"".join(reader.content().chunks()) == lines + lines
    reader.content().close()


def test_a_header_section_waits_for_memory():
    """It cannot go to a file; what is given back by others is its own then."""
    memory = DataMemory(60_000)
    other = holding(memory, 50_000)
    reader = reader_in(memory)
    lines = b"Subject: x\r\n" * 1000
    served = []

    assert not reader.admits(len(lines))
    reader.wait_for_memory(len(lines), lambda: served.append(1))
    other.release()
    assert served == [1]
    assert reader.admits(len(lines))
    assert reader.feed(lines + b"\r\nbody\r\n.\r\n") == b""
    assert reader.refusal is None
    reader.content().close()
    assert memory.held == 0


def test_what_waited_too_long_is_452_and_read_to_its_end():
    """The last resort: the message is refused for now, and the session goes on."""
    memory = DataMemory(60_000)
    _ = holding(memory, 60_000)
    reader = reader_in(memory)

    assert not reader.admits(100)
    reader.wait_for_memory(100, lambda: None)
    reader.give_up()
    assert reader.admits(1_000_000)
    assert reader.feed(b"Subject: x\r\n\r\nbody\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    assert reader.refusal == reply.NO_ROOM
    assert memory.held == 60_000


def test_what_is_dropped_takes_no_memory_while_the_rest_of_it_is_read():
    """A client that sends what will be refused, for as long as it likes, keeps nobody else waiting."""
    memory = DataMemory(60_000)
    reader = DataReader(DataLimits(message_size=1_000_000, line_length=1000), LineEnd.CRLF, memory.share())

    assert reader.feed(b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 4000) is None
    assert memory.held > 40_000
    assert reader.feed(b"x" * 1001) is None
    assert memory.held == 0
    assert reader.feed(b"x\r\n.\r\n") == b""
    assert reader.refusal == reply.line_too_long(1000)
    assert memory.held == 0


def test_content_that_comes_in_crumbs_takes_the_memory_that_is_counted():
    """Two octets a packet must not be an object of fifty each, or `limits.data_memory` bounds nothing."""
    memory = DataMemory()
    reader = DataReader(LIMITS, LineEnd.CRLF, memory.share())
    reader.feed(b"Subject: x\r\n\r\n")
    tracemalloc.start()
    try:
        for number in range(40_000):
            reader.feed(b"%c\n" % (97 + number % 26) if number % 30 == 0 else b"ab")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    reader.discard()

    assert taken < 2 * 40_000 * 2
