"""A hostile afternoon: everything at once, and a good client goes on beside it, in bounded memory."""

import asyncio
import json
import smtplib
import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import KEY, sandbox_with
from tests.support.serving import serving, write_config

SECONDS = 20.0
PAUSE = 0.02  # between the messages of the good client
FLOOR = 0.2  # seconds; below it a p99 on a busy machine says nothing
MEMORY = 200_000_000  # octets that the relay may have in all; two verifications of a password take 40 of them


def resident(pid: int) -> int:
    """Octets of memory that a process has."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def send_for(port: int, seconds: float) -> list[float]:
    """Messages on a kept connection, one after the other; how long each took."""
    took = []
    with smtplib.SMTP("127.0.0.1", port, "good.example.com", timeout=30, source_address=("127.0.5.1", 0)) as client:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.monotonic()
            assert client.sendmail("a@example.com", "b@example.net", b"From: a@example.com\r\n\r\nhello\r\n") == {}
            took.append(time.monotonic() - began)
            time.sleep(PAUSE)
    return took


def p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is asked, and all of 127.0.0.0/8 is this host")
@pytest.mark.timeout(120)
async def test_a_good_client_goes_on_through_a_hostile_afternoon(tmp_path, capsys):
    """Its p99 stays within three times its quiet value, nobody keeps it out, and memory is bounded."""
    async with sandbox_with(tmp_path / "ca") as sandbox:
        config = write_config(
            tmp_path / "relay.yaml",
            listeners=[{"address": "127.0.0.1:0"}],
            upstream={
                "host": "localhost",
                "ports": [port for _, port in sandbox.addresses],
                "tls": {"ca_file": str(sandbox.ca_file)},
            },
            credentials={"default": {"api_key": KEY}},
            identities=[{"name": "app", "match": {"login": "app"}, "password": "correct-horse"}, {"name": "default"}],
            spool={"url": "none"},
            admin={"address": None},
            limits={"command_timeout": "2s", "connections": 1000},
        )
        async with serving(config) as served:
            port, pid = served.smtp_port, served.process.pid
            await asyncio.to_thread(send_for, port, 1.0)
            quiet, idle = await asyncio.to_thread(send_for, port, 5.0), resident(pid)
            hostile = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "tests.support.hostile", str(port), str(SECONDS)],
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[2],
            )
            sending = asyncio.create_task(asyncio.to_thread(send_for, port, SECONDS))
            most = idle
            while not sending.done():
                most = max(most, resident(pid))
                await asyncio.wait([sending], timeout=0.1)
            bad = sending.result()
            shown, _ = await hostile.communicate()

    did = json.loads(shown)
    with capsys.disabled():
        print(  # noqa: T201
            f"\nhostile afternoon: {did}; good client p99 {p99(quiet) * 1000:.1f} ms quiet, {p99(bad) * 1000:.1f} ms "
            f"in it ({len(bad)} messages); memory {idle / 1e6:.0f} MB idle, {most / 1e6:.0f} MB at most"
        )
    assert did["connections"] > 1000
    assert did["loris sessions"] >= 100
    assert did["octets without a line end"] > 10_000_000
    assert p99(bad) <= max(3 * p99(quiet), FLOOR)
    assert most <= MEMORY
