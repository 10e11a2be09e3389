"""A program with a spool, for faults that befall a whole process: `python -m tests.spool.driver DATABASE`.

It does what it is told on its standard input, a JSON object a line, and answers each with one.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from relay.clock import SystemClock
from relay.core.lifecycle import Event
from relay.core.spooled import SpoolUnavailable
from relay.spool import health, writer
from relay.spool.opening import open_spool
from relay.spool.sqlite import SqliteSpool
from tests.support.mail import LARGE, SMALL, deferred, delivered, deposit, in_draft

RECOVERY = 0.02  # seconds; nobody wants to wait
LOG_LIMIT = 1_000_000  # octets; nor to write much


async def _obey(
    spool: SqliteSpool,
    do: str,
    queue_id: str = "",
    large: bool = False,
    claimed: bool = False,
    size: int = 0,
    drafted: bool = False,
) -> Any:
    match do:
        case "put":
            body = LARGE if large else SMALL + bytes(size)
            new = deposit(queue_id, body=body, claimed=claimed)
            return await spool.put(in_draft(new, spool) if drafted else new)
        case "claim":
            claimed_now = await spool.claim(100)
            return {
                "claims": [claim.message.queue_id for claim in claimed_now.claims],
                "damaged": {damaged.queue_id: damaged.reason for damaged in claimed_now.damaged},
            }
        case "deliver":
            return await spool.record(queue_id, delivered())
        case "defer":
            return await spool.record(queue_id, deferred(delay=0))
        case "release":
            return await spool.act(queue_id, Event.RELEASE)
        case "entries":
            entries = (await spool.page(limit=1000)).entries
            return {entry.queue_id: [entry.state, entry.maybe_twice] for entry in entries}
        case "intact":
            content = await spool.content(queue_id)
            return b"".join(content.body.chunks()) == (LARGE if content.body.size > len(SMALL) else SMALL)
        case "problem":
            return spool.problem
        case "heal":
            async with asyncio.timeout(10):
                while spool.problem is not None:  # noqa: ASYNC110 - it is asked, as load balancers ask
                    await asyncio.sleep(RECOVERY)
            return None
    raise ValueError(do)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _main(path: Path) -> None:
    health.RECOVERY_SECONDS = RECOVERY  # type: ignore[misc]
    writer.LOG_LIMIT = LOG_LIMIT  # type: ignore[misc]
    spool = await open_spool(path, SystemClock(), reserve=0)
    _say({"done": "open"})
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"done": await _obey(spool, **json.loads(line))}
        except SpoolUnavailable as error:
            answer = {"unavailable": str(error), "full": error.full}
        _say(answer)
    await spool.close()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
