"""An hour without SparkPost: all mail is taken, nothing is tried in vain, and all goes out when SparkPost is back."""

import asyncio
import re
from pathlib import Path

import pytest

from relay.core.lifecycle import State
from relay.observe import log as events
from relay.sandbox import Port
from tests.support.client import send
from tests.support.clock import LaterClock
from tests.support.running import port_of, relay_to, sandbox_with

MESSAGES = 10_000
CLIENTS = 8
BODY = b"y" * 78 + b"\r\n"

_NUMBER = re.compile(rb"^X-Number: (\d+)\r$", re.MULTILINE)


def resident() -> int:
    """Memory of this process in octets."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def send_many(port: int, numbers: range) -> None:
    """Messages over one connection, each answered 250 before the next."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readuntil(b"\r\n")
    writer.write(b"EHLO client.test\r\n")
    while not (await reader.readuntil(b"\r\n")).startswith(b"250 "):
        pass
    for number in numbers:
        writer.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
        for _ in range(3):
            await reader.readuntil(b"\r\n")
        writer.write(b"Subject: outage\r\nX-Number: %d\r\n\r\n" % number + BODY * 20 + b".\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"250 2.0.0 queued")
    writer.close()
    await writer.wait_closed()


@pytest.fixture
def quiet():
    """A log that would fill memory is no part of what is measured."""
    events.configure(form="json", level="error", addresses="plain")


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("quiet")
async def test_an_hour_of_outage(tmp_path, capsys):
    """Memory stays flat, no attempt is wasted; then all is delivered once, the oldest first, with new mail between."""
    clock = LaterClock()
    spool = {"spool": {"url": f"sqlite:{tmp_path}/spool.db", "reserve": 0}, "log": {"level": "error"}}
    limits = {"upstream": {"messages_per_connection": 100}}
    async with (
        sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")], transcripts=False) as sandbox,
        relay_to(sandbox, clock=clock, **spool, **limits) as relay,
    ):
        await send(port_of(relay))
        await send_many(port_of(relay), range(1000))
        early = resident()
        share = (MESSAGES - 1000) // CLIENTS
        await asyncio.gather(
            *(send_many(port_of(relay), range(1000 + n * share, 1000 + (n + 1) * share)) for n in range(CLIENTS))
        )
        grown = resident() - early
        clock.later = 3600.0
        stats = await relay.spool.stats()
        wasted = [entry.attempts for entry in (await relay.spool.page(limit=1000)).entries]

        sandbox.set_mode("normal")
        loop = asyncio.get_running_loop()
        await sandbox.wait_for(MESSAGES // 10, timeout=60)
        started, before = loop.time(), sandbox.accepted_total
        code, text = await send(port_of(relay), "new@example.net")
        waited = sandbox.accepted_total - before
        accepted = await sandbox.wait_for(MESSAGES + 2, timeout=120)
        speed = (sandbox.accepted_total - before) / (loop.time() - started)

    order = [int(found[1]) for one in accepted if (found := _NUMBER.search(one.content))]
    late = max(abs(place - number) for place, number in enumerate(order[:900]))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{MESSAGES} spooled: memory grew by {grown / 1e6:.1f} MB; back: {speed:.0f} messages/s on"
            f" {sandbox.max_open} connections, at most {late} places out of order, new mail waited for {waited}"
        )

    assert stats.messages[State.QUEUED] == MESSAGES + 1
    assert set(wasted) == {0}
    assert grown < 15e6
    assert sorted(order) == list(range(MESSAGES))
    assert late <= 60
    assert (code, text[:5]) == (250, "2.0.0")
    assert waited < 100
    assert sandbox.max_open == 10
