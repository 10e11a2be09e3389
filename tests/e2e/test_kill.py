"""What a 250 is worth: the relay is killed again and again, and every message it has answered for is accounted for."""

import asyncio
import contextlib
import random
import re
import signal
import smtplib
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.sandbox import Port, Sandbox
from tests.support.program import Program, free_port
from tests.support.running import KEY, sandbox_with

KILLS = 30
CLIENTS = 12
BETWEEN_KILLS = (5, 40)  # messages that are answered between two kills
LARGE = b"x" * 78 + b"\r\n"

# Most mail goes through at once; the rest meets every way in which SparkPost can fail it.
RECIPIENTS = (
    ["b@example.net"] * 14
    + [
        "tempfail@example.net",
        "451-4.3.0-after-dot@example.net",
        "disconnect@example.net",
        "slow-dot-300ms@example.net",
    ]
    + ["silent-after-dot@example.net", "disconnect-after-dot@example.net", "disconnect-in-data@example.net"]
)
WEATHER = ["normal", "normal", "normal", "drop", "421-at-mail", "silent", "no-starttls"]

_NUMBER = re.compile(rb"^X-Number: (\d+)\r$", re.MULTILINE)
_QUEUE_ID = re.compile(rb"\bid ([0-9A-Z]{14})\b")


@dataclass
class Sent:
    """What the clients know: which numbers were answered 250, and to whom each was addressed."""

    answered: set[int] = field(default_factory=set)
    to: dict[int, str] = field(default_factory=dict)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    listening: asyncio.Event = field(default_factory=asyncio.Event)


def write_config(folder: Path, sandbox: Sandbox, port: int) -> Path:
    path = folder / "relay.yaml"
    ports = [number for _, number in sandbox.addresses]
    path.write_text(f"""
listeners: [{{address: "127.0.0.1:{port}"}}]
upstream:
  {{host: localhost, ports: {ports}, fallback_after: 100ms, tls: {{ca_file: {sandbox.ca_file}}},
    timeouts: {{final_dot: 700ms}}}}
credentials: {{default: {{api_key: "{KEY}"}}}}
identities: [{{name: bulk, match: {{mail_from: "bulk@*"}}, delivery: queue}}, {{name: direct}}]
delivery: {{cut_through_deadline: 400ms, retry: {{first: 100ms, max: 500ms}}}}
spool: {{url: "sqlite:{folder}/spool.db", reserve: 0}}
admin: {{address: null}}
log: {{format: json, level: error}}
""")
    path.chmod(0o600)
    return path


def send_one(port: int, number: int, recipient: str) -> bool:
    """One message; True only for a 250 after its final dot."""
    large = LARGE * 2500 if number % 17 == 0 else b""
    content = b"Subject: kill\r\nX-Number: %d\r\n\r\nnumber %d\r\n" % (number, number) + large
    sender = "bulk@example.com" if number % 2 else "direct@example.com"
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("client.test")
            client.mail(sender)
            client.rcpt(recipient)
            return client.data(content)[0] == 250
    except (OSError, smtplib.SMTPException):
        return False


async def keep_sending(port: int, numbers, sent: Sent, stop: asyncio.Event, pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        await sent.listening.wait()
        number = next(numbers)
        sent.to[number] = random.choice(RECIPIENTS)
        if await loop.run_in_executor(pool, send_one, port, number, sent.to[number]):
            sent.answered.add(number)
            sent.more.set()


async def change_the_weather(sandbox: Sandbox, stop: asyncio.Event) -> None:
    """Ports go and come back, for half a second or so at a time."""
    while not stop.is_set():
        for index in range(len(sandbox.addresses)):
            sandbox.set_mode(random.choice(WEATHER), index)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.1, 0.8)):
                await stop.wait()
    for index in range(len(sandbox.addresses)):
        sandbox.set_mode("normal", index)


async def start(config: Path, port: int) -> Program:
    program = await Program.start("serve", "--config", str(config))
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return program
            assert program.process.returncode is None, (await program.process.stderr.read()).decode()
            await asyncio.sleep(0.02)


def ledger(folder: Path) -> dict[str, tuple[str, bool]]:
    """State and mark of every stored message, by queue id."""
    with contextlib.closing(sqlite3.connect(folder / "spool.db")) as connection:
        rows = connection.execute("SELECT queue_id, state, maybe_twice FROM message").fetchall()
    return {queue_id: (state, bool(twice)) for queue_id, state, twice in rows}


def spooled_numbers(folder: Path) -> set[int]:
    """The numbers of the messages whose content is still in the spool."""
    with contextlib.closing(sqlite3.connect(folder / "spool.db")) as connection:
        return {int(_NUMBER.search(header)[1]) for (header,) in connection.execute("SELECT header FROM content")}


@pytest.mark.timeout(300)
async def test_killed_again_and_again_nothing_answered_is_lost(tmp_path, capsys):
    """Every message that was answered 250 is with SparkPost or still in the spool; a second copy is always marked."""
    port, sent, stop = free_port(), Sent(), asyncio.Event()
    ports = [Port(), Port()]
    async with sandbox_with(tmp_path / "tls", ports=ports, transcripts=False, max_connections=100) as sandbox:
        config = write_config(tmp_path, sandbox, port)
        program = await start(config, port)
        sent.listening.set()
        numbers = iter(range(1, 1_000_000))
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [asyncio.create_task(keep_sending(port, numbers, sent, stop, pool)) for _ in range(CLIENTS)]
            weather = asyncio.create_task(change_the_weather(sandbox, stop))
            for _ in range(KILLS):
                goal = len(sent.answered) + random.randint(*BETWEEN_KILLS)
                async with asyncio.timeout(30):
                    while len(sent.answered) < goal:
                        sent.more.clear()
                        await sent.more.wait()
                program.process.send_signal(signal.SIGKILL)
                sent.listening.clear()
                await program.process.wait()
                program = await start(config, port)
                sent.listening.set()
            stop.set()
            await asyncio.gather(weather, *clients)
        await until_quiet(tmp_path)
        program.process.terminate()
        status, log = await program.end()

    copies = Counter(int(_NUMBER.search(one.content)[1]) for one in sandbox.accepted)
    queue_ids = {}
    for one in sandbox.accepted:
        queue_ids.setdefault(int(_NUMBER.search(one.content)[1]), set()).add(_QUEUE_ID.search(one.content)[1].decode())
    known = ledger(tmp_path)
    spooled = spooled_numbers(tmp_path)
    lost = sent.answered - set(copies) - spooled
    doubled = {number for number, count in copies.items() if count > 1}
    unmarked = {number for number in doubled if not any(known.get(one, ("", False))[1] for one in queue_ids[number])}
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{KILLS} kills: {len(sent.to)} sent, {len(sent.answered)} answered 250, {len(copies)} at SparkPost,"
            f" {len(sent.answered & spooled - set(copies))} of the answered only in the spool, {len(lost)} lost,"
            f" {len(doubled)} more than once, {len(unmarked)} of these unmarked"
        )

    assert lost == set()
    assert unmarked == set()
    assert status == 0, log
    assert "active" not in {state for state, _ in known.values()}


async def until_quiet(folder: Path) -> None:
    """Until all that can go out has gone: what is left is addressed to somebody who always fails."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.closing(sqlite3.connect(folder / "spool.db")) as connection:
                waiting = connection.execute(
                    "SELECT count(*) FROM message JOIN recipient ON message = id"
                    " WHERE state IN ('queued', 'active') AND address LIKE 'b@%'"
                ).fetchone()[0]
            if not waiting:
                return
            await asyncio.sleep(0.1)
