"""The load generator says truthfully what became of its messages."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from benchmarks.certificates import Certificates
from benchmarks.instruments import LoadResult, run_load
from benchmarks.rig import RigError

Answer = Callable[[bytes], str]

pytestmark = pytest.mark.usefixtures("issued")


class Receiver:
    """An aiosmtpd handler that keeps each message and answers what it is told to."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.contents: list[bytes] = []
        self.sessions: set[Any] = set()
        self.first_answer_after = 0.0

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        """Keeps the message; the first answer may be made to take its time."""
        if not self.contents:
            await asyncio.sleep(self.first_answer_after)
        self.contents.append(envelope.content)
        self.sessions.add(session.peer)
        return self.answer(envelope.content)


@asynccontextmanager
async def receiving(answer: Answer = lambda content: "250 2.0.0 OK") -> AsyncIterator[tuple[Receiver, int]]:
    """A listening server; yields the handler and the port."""
    receiver = Receiver(answer)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(receiver, hostname="test.example", loop=loop), "127.0.0.1", 0)
    async with server:
        yield receiver, server.sockets[0].getsockname()[1]


async def load(port: int, *options: str | float) -> LoadResult:
    """Runs the load generator beside the server's loop."""
    return await asyncio.to_thread(run_load, port, *options)


@pytest.mark.parametrize("option", [[], ["--pipelining"], ["--new-connections"], ["--new-connections", "--pipelining"]])
async def test_every_message_arrives_whole_and_numbered(option: list[str]) -> None:
    """Each message has the size asked for (dot-stuffing included) and a serial number of its own."""
    async with receiving() as (receiver, port):
        result = await load(port, "--messages", 30, "--clients", 3, "--size", 5000, "--first-serial", 100, *option)

    assert (result.accepted, result.refused, result.broken, result.unanswered) == (30, 0, 0, 0)
    stuffed = [len(content) + content.count(b"\r\n.") for content in receiver.contents]
    assert stuffed == [5000] * 30
    assert {int(content[16:24]) for content in receiver.contents} == set(range(100, 130))
    assert len(receiver.sessions) == (30 if "--new-connections" in option else 3)
    assert result.started < result.ended
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms


async def test_refusals_are_counted_with_their_words() -> None:
    """A reply other than 250 after the final dot is no acceptance, and the next message goes on a new connection."""
    turns = itertools.cycle(["250 2.0.0 OK", '552 5.3.4 too "large"'])
    async with receiving(lambda content: next(turns)) as (_, port):
        result = await load(port, "--messages", 10)

    assert (result.accepted, result.refused) == (5, 5)
    assert result.last_failure == "final dot: 552 5.3.4 too ?large??"


async def test_a_relay_that_is_not_there_ends_the_run() -> None:
    """After fifty failures no more is tried."""
    async with receiving() as (_, port):
        pass
    result = await load(port, "--seconds", 60)

    assert (result.accepted, result.broken) == (0, 50)
    assert "refused" in result.last_failure


async def test_a_rate_is_kept() -> None:
    """Forty messages at 200 a second take as long as that says, not less."""
    async with receiving() as (_, port):
        result = await load(port, "--messages", 40, "--rate", 200, "--clients", 4)

    assert result.accepted == 40
    assert 39 / 200 <= result.ended - result.started < 1


async def test_a_stall_is_paid_by_all_that_had_to_wait() -> None:
    """One answer that takes 0.3 s makes the messages late that fell due meanwhile, not only its own."""
    async with receiving() as (receiver, port):
        receiver.first_answer_after = 0.3
        result = await load(port, "--messages", 30, "--rate", 100)

    assert result.accepted == 30
    assert result.max_ms >= 300
    assert result.p50_ms >= 100


async def test_the_latency_of_each_message_can_be_had(tmp_path: Path) -> None:
    """A line for each accepted message: when it was due, and how long it took from then."""
    file = tmp_path / "latencies"
    async with receiving() as (_, port):
        result = await load(port, "--messages", 20, "--rate", 200, "--clients", 2, "--latencies", str(file))

    lines = [tuple(map(float, line.split())) for line in file.read_text().splitlines()]
    assert sorted(due for due, _ in lines) == pytest.approx([result.started + n / 200 for n in range(20)], abs=1e-4)
    assert max(milliseconds for _, milliseconds in lines) == pytest.approx(result.max_ms, abs=0.01)


async def test_messages_under_way_at_the_timeout_are_unanswered() -> None:
    """A relay that accepts connections and says nothing holds each client's message until the timeout."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with server:
        result = await load(server.sockets[0].getsockname()[1], "--messages", 5, "--clients", 2, "--timeout", 0.2)

    assert (result.accepted, result.unanswered) == (0, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--messages", "0"], "--messages 0"), (["--messages", "1", "--size", "9"], "--size 9"), ([], "usage")],
)
async def test_wrong_options_are_named(issued: Certificates, options: list[str], words: str) -> None:
    """The message names the option and what would be right."""
    with pytest.raises(RigError, match=words):
        await load(1, *options)
