"""Clients that mean no good, some hundreds of them: mail gets through beside them, and memory stays bounded.

`python -m benchmarks.scenarios hostile` is the same with thousands, and judges what it costs in time.
"""

import contextlib
from collections import Counter

from benchmarks.processes import peak_rss, reset_peak, rss
from benchmarks.scenarios.mob import Mob
from tests.e2e.test_clients import starttls
from tests.support.client import send
from tests.support.running import KEY, sandbox_with
from tests.support.serving import serving, write_config

HELD, HANDSHAKES, SLOW = 200, 60, 20
CONNECTION = 12_000  # octets that one may take which says nothing
HANDSHAKE = 200_000  # and one that has begun TLS
PASSWORDS = 2 * 20_000_000  # two are verified at once, each in 19 MiB
REST = 20_000_000


@contextlib.asynccontextmanager
async def besieged(tmp_path, **limits):
    """A relay, its stand-in for SparkPost, and a mob at its door."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = write_config(
            tmp_path / "relay.yaml",
            listeners=[{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}],
            upstream={
                "host": "localhost",
                "ports": [sandbox.addresses[0][1]],
                "tls": {"ca_file": str(sandbox.ca_file)},
            },
            credentials={"default": {"api_key": KEY}},
            identities=[{"name": "app", "match": {"login": "app"}, "password": "correct horse"}, {"name": "default"}],
            spool={"url": "none"},
            admin={"address": None},
            log={"format": "json"},
            limits=limits,
        )
        async with serving(config) as relay:
            mob = Mob(relay.smtp_port)
            try:
                yield relay, mob
            finally:
                mob.leave()


async def test_mail_gets_through_and_memory_stays_bounded(tmp_path):
    """Each kind of mischief hears what it should, or nothing; one message after each is taken all the same."""
    async with besieged(tmp_path, connections=1000, connections_per_client=HELD // 4) as (relay, mob):
        answers = [await send(relay.smtp_port)]
        before = rss(relay.process.pid)
        reset_peak(relay.process.pid)
        heard: dict[str, Counter[str]] = {}
        for name, *numbers in (
            ("slow", SLOW),
            ("idle", HELD, 4, 1000),
            ("flood", 50),
            ("garbage", 40, 5000),
            ("starttls", HANDSHAKES),
            ("guess", 6, 1),
            ("endless", 20),
        ):
            heard[name] = await getattr(mob, name)(*numbers)
            answers.append(await send(relay.smtp_port))
        taken = peak_rss(relay.process.pid) - before

    assert [code for code, _ in answers] == [250] * len(answers)
    assert heard["idle"] == {"220": HELD}
    assert heard["flood"] == {"421": 50}
    assert heard["starttls"] == {"220": HANDSHAKES}
    assert "235" not in heard["guess"]
    assert taken < HELD * CONNECTION + HANDSHAKES * HANDSHAKE + PASSWORDS + REST


async def test_handshakes_that_are_begun_and_left_take_little_memory(tmp_path):
    """What a TLS connection holds before it has said anything is far from the 256 KB that asyncio would give it."""
    async with besieged(tmp_path) as (relay, mob):
        await mob.starttls(3)
        before = rss(relay.process.pid)
        await mob.starttls(90)
        taken = rss(relay.process.pid) - before

    assert taken < 60 * HANDSHAKE  # a third has hung up
