"""The log as JSON lines: what is said of an event, and that the line is one whatever is in it."""

import asyncio
import errno
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import structlog

from relay.core.secret import Secret
from relay.observe import log as events
from relay.observe.lines import LINES

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def logged() -> Callable[..., Lines]:
    """Configures the log; what it gives reads the lines written since."""

    def configure(**settings: str) -> Lines:
        stream = io.StringIO()
        events.configure(**{"form": "json", "level": "info", "addresses": "plain", **settings}, stream=stream)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    return configure


def test_a_line_tells_the_event_its_level_and_when(logged):
    """Fields come as they were given, and the event after them."""
    lines = logged()
    structlog.get_logger().warning(events.TX_REJECTED, session="s1", recipients=["a@example.com"], size=3, ok=False)

    [line] = lines()
    assert line.pop("timestamp")[10:11] == "T"
    assert line == {
        "session": "s1",
        "recipients": ["a@example.com"],
        "size": 3,
        "ok": False,
        "event": "tx.rejected",
        "level": "warning",
    }


def test_what_is_below_the_level_is_not_written(logged):
    """Whichever way it is said."""
    lines = logged(level="warning")
    log = structlog.get_logger()
    log.info(events.LINK_OPEN)
    log.log(20, events.LINK_AUTH)
    log.log(30, events.LINK_AUTH)

    assert [line["level"] for line in lines()] == ["warning"]


def test_what_a_logger_was_bound_to_is_in_its_lines(logged):
    """The context of a logger comes before an event's own fields, which win."""
    lines = logged()
    structlog.get_logger().bind(session="s1", size=1).info(events.TX_ACCEPTED, size=2)

    assert [(line["session"], line["size"]) for line in lines()] == [("s1", 2)]


def test_an_exception_is_a_field_of_one_line(logged):
    """The traceback is text, and ends no line."""
    lines = logged()
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError as error:
        structlog.get_logger().exception(events.INTERNAL_ERROR)
        structlog.get_logger().error(events.INTERNAL_ERROR, exc_info=error)

    found = lines()
    assert ["RuntimeError: first\nsecond" in str(line["exception"]) for line in found] == [True, True]
    assert not any("exc_info" in line for line in found)


def test_what_is_no_json_shows_itself_and_a_secret_is_masked(logged):
    """Nothing that is logged can break the line or the promise."""
    lines = logged()
    structlog.get_logger().info(events.TX_ACCEPTED, key=Secret("0123456789abcdef"), text="a\r\n\u2028b")

    [line] = lines()
    assert "0123456789abcdef" not in str(line["key"])
    assert line["text"] == "a\r\n\u2028b"


@pytest.mark.parametrize("text", ["plain", "h\u00e4lf", "\ud800"], ids=["ascii", "beyond ASCII", "half a character"])
def test_the_time_is_written_in_one_way(logged, text):
    """In UTC, whatever else is in the event."""
    lines = logged()
    structlog.get_logger().info(events.TX_ACCEPTED, text=text)

    [line] = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z", line["timestamp"])


@pytest.mark.parametrize(
    ("style", "shown"),
    [("plain", "john@example.com"), ("masked", "j***@example.com"), ("hashed", "855f96e983f1@example.com")],
)
def test_addresses_are_shown_in_the_style_that_was_asked_for(logged, style, shown):
    """Single and in lists, in the fields that hold them."""
    lines = logged(addresses=style)
    structlog.get_logger().info(
        events.TX_ACCEPTED, reverse_path="john@example.com", recipients=["john@example.com"], peer="john@example.com"
    )

    [line] = lines()
    assert (line["reverse_path"], line["recipients"], line["peer"]) == (shown, [shown], "john@example.com")


@pytest.mark.parametrize(
    ("style", "john", "strange"),
    [
        ("plain", "john@example.com", '"x y"@[192.0.2.1]'),
        ("masked", "j***@example.com", '"***@[192.0.2.1]'),
        ("hashed", "855f96e983f1@example.com", "bda19cd6d6f5@[192.0.2.1]"),
    ],
)
def test_addresses_in_replies_and_logins_are_no_plainer(logged, style, john, strange):
    """SparkPost and the relay itself repeat addresses in what they say, and many a login is one."""
    lines = logged(addresses=style)
    structlog.get_logger().info(
        events.TX_REJECTED,
        login="john@example.com",
        reply="550 5.7.1 relaying denied for <john@example.com>.",
        reason='451 4.3.0 not now: john@example.com, "x y"@[192.0.2.1]',
        endpoint="john@example.com",
    )

    [line] = lines()
    assert line["login"] == john
    assert line["reply"] == f"550 5.7.1 relaying denied for <{john}>."
    assert line["reason"] == f"451 4.3.0 not now: {john}, {strange}"
    assert line["endpoint"] == "john@example.com"


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 200_000, "@" + "a" * 200_000, "a@" * 100_000, "a." * 100_000, "a@a." * 50_000),
        *('"' * 200_000, '"' + r"\"" * 100_000, r'"\\' * 70_000, "[@" * 100_000, "a@[" * 70_000),
    ],
    ids=lambda text: text[:4],
)
def test_a_text_that_is_made_to_be_searched_for_long_is_not(logged, text):
    """Each of these would take minutes if what is looked for could begin anywhere: the test ends by its time limit."""
    lines = logged(addresses="masked")
    structlog.get_logger().info(events.TX_REJECTED, reply=text + "@")

    assert len(lines()) == 1


class Trouble(io.StringIO):
    """A stream on a disk that is full, at times."""

    full = False

    def write(self, text):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_cannot_be_written_harms_nobody(form):
    """What is said then is lost; the log goes on when it can, and says how much is missing."""
    stream = Trouble()
    events.configure(form=form, level="info", addresses="plain", stream=stream)
    log = structlog.get_logger()
    stream.full = True
    log.info(events.LINK_OPEN)
    log.info(events.LINK_AUTH)
    stream.full = False
    log.info(events.LINK_CLOSE)
    log.info(events.LINK_CLOSE)
    written = re.sub(r"\x1b\[\d+m", "", stream.getvalue())

    assert re.findall(r"link\.\w+|log\.\w+", written) == [events.LINK_CLOSE, events.LOG_INTERRUPTED, events.LINK_CLOSE]
    assert re.search(r'lines"?[=:]2\b', written)


def test_a_log_that_nobody_reads_any_more_harms_nobody():
    """Its pipe is broken."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as raw, io.TextIOWrapper(raw, write_through=True) as stream:
        events.configure(form="json", level="info", addresses="plain", stream=stream)
        structlog.get_logger().info(events.LINK_OPEN)


class Counted(io.StringIO):
    """Counts how often it is written to."""

    writes = 0

    def write(self, text):
        self.writes += 1
        return super().write(text)


async def test_the_lines_of_one_turn_of_the_loop_are_written_together():
    """In their order, and none of them later than the turn after."""
    stream = Counted()
    events.configure(form="json", level="info", addresses="plain", stream=stream, loop=asyncio.get_running_loop())
    log = structlog.get_logger()
    for number in range(3):
        log.info(events.LINK_OPEN, number=number)
    before = stream.getvalue()
    await asyncio.sleep(0)

    assert not before
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == [0, 1, 2]
    assert stream.writes == 1


async def test_another_thread_does_not_wait_for_the_loop():
    """The loop may be busy for long; what the thread says is written, with what waits before it."""
    stream = io.StringIO()
    events.configure(form="json", level="info", addresses="plain", stream=stream, loop=asyncio.get_running_loop())
    log = structlog.get_logger()
    log.info(events.LINK_OPEN)
    thread = threading.Thread(target=log.info, args=[events.LINK_CLOSE])
    thread.start()
    thread.join()

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        events.LINK_OPEN,
        events.LINK_CLOSE,
    ]


async def test_a_turn_that_says_much_does_not_keep_it_all():
    """What waits is bounded."""
    stream = io.StringIO()
    events.configure(form="json", level="info", addresses="plain", stream=stream, loop=asyncio.get_running_loop())
    for _ in range(LINES + 1):
        structlog.get_logger().info(events.LINK_OPEN)

    assert len(stream.getvalue().splitlines()) == LINES + 1


def test_what_waits_when_the_program_ends_is_written(capfd):
    """Also where its loop never ran again."""
    program = (
        "import asyncio, structlog\n"
        "from relay.observe import log\n"
        "loop = asyncio.new_event_loop()\n"
        "log.configure(form='json', level='info', addresses='plain', loop=loop)\n"
        "structlog.get_logger().info(log.LINK_OPEN)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

    assert json.loads(capfd.readouterr().err)["event"] == events.LINK_OPEN
