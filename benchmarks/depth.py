"""What a long queue does to the spool: the price of a claim, of the numbers and of a new message at growing depths."""

import asyncio
import os
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.lifecycle import State
from relay.core.login import Assignment
from relay.core.message import Content, MemoryBody, Message
from relay.core.spooled import Deposit
from relay.spool.sqlite import SqliteSpool

LANES = 10
BATCH = 20  # messages in a claim, as many as a relay with ten connections takes
REPEATS = 40
HEADER = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: benchmark\r\n"


class BenchmarkClock:
    """The host's own."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds, medians: of a claim of 20 messages with all its reading, of the numbers, of one more message, of a
    page of the list."""

    depth: int
    claim_ms: float
    stats_ms: float
    put_ms: float
    page_ms: float


async def measure(directory: Path, depths: Sequence[int]) -> list[Row]:
    """One spool that grows from depth to depth."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="relay-depth-benchmark-", dir=directory) as scratch:
        path = Path(scratch, "spool.db")
        filled = 0
        for depth in depths:
            await (await SqliteSpool.open(path, BenchmarkClock(), reserve=0)).close()
            fill(path, filled, depth)
            filled = depth
            rows.append(await _at(path, depth))
    return rows


def fill(path: Path, first: int, end: int) -> None:
    """Messages number `first` to `end`, written as the spool would write them, but all at once."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"""
        PRAGMA synchronous = OFF;
        PRAGMA cache_size = -262144;
        BEGIN;
        INSERT OR IGNORE INTO lane (id, credential, subaccount)
            WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LANES}) SELECT i, 'default', i FROM n;
        CREATE TEMP TABLE fresh AS
            WITH n(i) AS (SELECT {first} + 1 UNION ALL SELECT i + 1 FROM n WHERE i < {end}) SELECT i FROM n;
        INSERT INTO message (queue_id, state, lane, identity, reverse_path, size, longest_line, eight_bit, received,
                             expires, max_age, due)
            SELECT printf('Q%013d', i), 'queued', 1 + i % {LANES}, 'default', 'a@example.com', 500, 76, 0,
                   unixepoch(), 1e9, 259200, i * 1e-9 FROM fresh;
        INSERT INTO recipient (message, number, address)
            SELECT id, 0, 'b@example.net' FROM message JOIN fresh ON queue_id = printf('Q%013d', i);
        INSERT INTO content (message, header, body, length, crc)
            SELECT id, x'', zeroblob(500), 500, {zlib.crc32(bytes(500))}
            FROM message JOIN fresh ON queue_id = printf('Q%013d', i);
        DROP TABLE fresh;
        COMMIT;
        PRAGMA wal_checkpoint(TRUNCATE);
    """)
    connection.close()


async def _at(path: Path, depth: int) -> Row:
    spool = await SqliteSpool.open(path, BenchmarkClock(), reserve=0)
    make = deposits(2_000)
    claims, puts = [], []
    for number in range(REPEATS):
        began = time.perf_counter()
        claimed = await spool.claim(BATCH)
        claims.append(time.perf_counter() - began)
        assert len(claimed.claims) == BATCH
        await spool.give_back([claim.message.queue_id for claim in claimed.claims])
        puts.append(await _timed(lambda number=number: spool.put(make(depth + number))))  # type: ignore[misc]
    stats = [await _timed(spool.stats) for _ in range(REPEATS)]
    pages = [await _timed(lambda: spool.page(state=State.QUEUED)) for _ in range(REPEATS)]
    await spool.close()
    return Row(depth, *(1000 * median(times) for times in (claims, stats, puts, pages)))


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def table(rows: Sequence[Row]) -> str:
    """Milliseconds, and how many times that is of the shortest queue."""
    lines = ["messages waiting      claim of 20         numbers           a put          a page   ms (times the first)"]
    for row in rows:
        ratios = [
            f"{mine:.2f} ({mine / least:.2f})"
            for mine, least in (
                (row.claim_ms, rows[0].claim_ms),
                (row.stats_ms, rows[0].stats_ms),
                (row.put_ms, rows[0].put_ms),
                (row.page_ms, rows[0].page_ms),
            )
        ]
        lines.append(f"{row.depth:>16,} " + "".join(f"{ratio:>16}" for ratio in ratios))
    return "\n".join(lines)


def deposits(size: int) -> Callable[[int], Deposit]:
    """Makes messages of a size, numbered."""
    body = b"\r\n" + os.urandom(size // 2).hex().encode()
    envelope = Envelope(ReversePath(Address("a", "example.com")), (Recipient(Address("b", "example.net")),))
    content = Content(HEADER, MemoryBody(body[: size - len(HEADER)]), 998, eight_bit=False)
    promise = Assignment("default", "default", None)

    def make(number: int) -> Deposit:
        return Deposit(Message(f"P{number:013}", envelope, content), promise, time.time(), 259_200.0)

    return make
