"""What the relay's ledger says, once what the test waits for has come."""

import asyncio
from collections.abc import Callable, Sequence

from relay.app import Relay
from relay.core.spooled import Entry


async def read(relay: Relay) -> list[Entry]:
    """Every entry with its history, the oldest first."""
    assert relay.spool is not None
    entries: list[Entry] = []
    cursor = None
    while True:
        page = await relay.spool.page(cursor=cursor, limit=1000)
        entries += [await relay.spool.entry(one.queue_id) for one in page.entries]
        if page.cursor is None:
            return entries
        cursor = page.cursor


async def until(ready: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def settled(relay: Relay, ready: Callable[[Sequence[Entry]], bool] = bool, seconds: float = 30) -> list[Entry]:
    """The ledger as soon as it is `ready` (and has an entry); shows what there was if that does not come."""
    entries: list[Entry] = []
    try:
        async with asyncio.timeout(seconds):
            while not (entries and ready(entries)):
                await asyncio.sleep(0.02)
                entries = await read(relay)
    except TimeoutError:
        raise AssertionError(f"still not so: {entries}") from None
    return entries
