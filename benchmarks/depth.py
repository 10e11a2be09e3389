"""What a long queue does to the spool: the price of a claim, of the numbers and of a new message at growing depths."""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.lifecycle import State
from relay.core.login import Assignment
from relay.core.message import Content, MemoryBody, Message
from relay.core.spooled import Claimed, Deposit
from relay.spool.opening import open_spool
from relay.spool.sqlite import SqliteSpool

LANES = 10
BATCH = 20  # messages in a claim, as many as a relay with ten connections takes
ROUNDS = 40
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
class Prices:
    """Milliseconds: of a claim of 20 messages with all its reading, of the numbers, of one more message, of a page of
    the list."""

    claim: float
    stats: float
    put: float
    page: float


@dataclass(frozen=True, slots=True)
class Row:
    """One depth: medians over the rounds of its prices, and of how many times the prices of the shortest queue they
    were in the same round."""

    depth: int
    prices: Prices
    ratios: Prices


async def measure(directory: Path, depths: Sequence[int]) -> list[Row]:
    """A spool for each depth, all measured in each round: what the disk does meanwhile falls on all alike."""
    async with contextlib.AsyncExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-depth-benchmark-", dir=directory))
        spools = []
        for depth in depths:
            path = Path(scratch, f"{depth}.db")
            await (await open_spool(path, BenchmarkClock(), reserve=0)).close()
            fill(path, 0, depth)
            spools.append(await open_spool(path, BenchmarkClock(), reserve=0))
            stack.push_async_callback(spools[-1].close)
        rounds = [[await _prices(spool, number) for spool in spools] for number in range(ROUNDS + 1)]
    return [
        Row(
            depth,
            prices=_medians([prices[place] for prices in rounds[1:]]),  # the first one warms up
            ratios=_medians([_ratios(prices[place], prices[0]) for prices in rounds[1:]]),
        )
        for place, depth in enumerate(depths)
    ]


def _ratios(mine: Prices, first: Prices) -> Prices:
    return Prices(*(one / other for one, other in zip(astuple(mine), astuple(first), strict=True)))


def _medians(rounds: Sequence[Prices]) -> Prices:
    return Prices(*(median(column) for column in zip(*map(astuple, rounds), strict=True)))


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


async def _prices(spool: SqliteSpool, number: int) -> Prices:
    claimed: list[Claimed] = []

    async def claim() -> None:
        claimed.append(await spool.claim(BATCH))

    claiming = await _timed(claim)
    assert len(claimed[0].claims) == BATCH
    await spool.give_back([claim.message.queue_id for claim in claimed[0].claims])
    new = deposits(2_000)(number)
    return Prices(
        claiming,
        await _timed(spool.stats),
        await _timed(lambda: spool.put(new)),
        await _timed(lambda: spool.page(state=State.QUEUED)),
    )


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - began)


def table(rows: Sequence[Row]) -> str:
    """Milliseconds, and how many times that is of the shortest queue."""
    lines = ["messages waiting     claim of 20         numbers           a put          a page   ms (times the first)"]
    for row in rows:
        cells = zip(astuple(row.prices), astuple(row.ratios), strict=True)
        lines.append(f"{row.depth:>16,}" + "".join(f"{f'{price:.2f} ({ratio:.2f})':>16}" for price, ratio in cells))
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
