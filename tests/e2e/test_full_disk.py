"""The disk is full of other people's files, and the relay is killed and started again: its mail goes on."""

import contextlib
import signal
import sqlite3

import pytest

from relay.spool.room import free
from tests.spool.driven import small_disk
from tests.support.client import CONTENT, send
from tests.support.ledger import until
from tests.support.program import Program, free_port
from tests.support.running import KEY, sandbox_with

WAITING = 40
LARGE = CONTENT + (b"x" * 76 + b"\r\n") * 3000


async def bulk(port, recipient, content=CONTENT):
    """Mail that is stored before it is sent: the code it hears."""
    code, _ = await send(port, recipient, mail_from="bulk@example.com", content=content)
    return code


def write_config(disk, sandbox, port):
    path = disk / "relay.yaml"
    path.write_text(f"""
listeners: [{{address: "127.0.0.1:{port}"}}]
upstream:
  {{host: localhost, ports: {[number for _, number in sandbox.addresses]}, tls: {{ca_file: {sandbox.ca_file}}}}}
credentials: {{default: {{api_key: "{KEY}"}}}}
identities: [{{name: bulk, match: {{mail_from: "bulk@*"}}, delivery: queue}}, {{name: direct}}]
delivery: {{retry: {{first: 100ms, max: 500ms}}}}
spool: {{url: "sqlite:{disk}/spool.db", reserve: 10MB}}
admin: {{address: null}}
log: {{format: json}}
""")
    path.chmod(0o600)
    return path


@contextlib.asynccontextmanager
async def running(config, ended_by=signal.SIGTERM):
    """A relay in a process of its own, ended by a signal."""
    program = await Program.start("serve", "--config", str(config))
    try:
        await program.until("relay.started")
        yield program
        program.process.send_signal(ended_by)
        status, _ = await program.end()
        assert status == (0 if ended_by is signal.SIGTERM else -ended_by)
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.process.kill()


def states(disk):
    """Of all stored messages."""
    with contextlib.closing(sqlite3.connect(disk / "spool.db")) as connection:
        return [state for (state,) in connection.execute("SELECT state FROM message")]


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_mail_that_waits_is_sent_and_settled_though_the_disk_is_full(tmp_path, ended_by):
    """Nothing is lost or doubled. New mail that needs the disk hears 452, all other SparkPost's own answer."""
    port = free_port()
    with small_disk(tmp_path / "disk", "64m") as disk:
        async with sandbox_with(tmp_path / "tls") as sandbox:
            config = write_config(disk, sandbox, port)
            sandbox.set_mode("421-at-mail")
            async with running(config, ended_by):
                for number in range(WAITING):
                    content = LARGE if number % 10 == 0 else CONTENT
                    assert await bulk(port, f"b{number}@example.net", content) == 250

            others = disk / "others"
            others.write_bytes(bytes(free(disk)))
            sandbox.set_mode("normal")
            async with running(config) as relay:
                await until(lambda: states(disk) == ["delivered"] * WAITING)
                assert await bulk(port, "new@example.net") == 452
                code, text = await send(port, "direct@example.net")
                assert code == 250
                assert sandbox.accepted[-1].token in text

                others.unlink()
                assert await bulk(port, "late@example.net") == 250
                await until(lambda: states(disk) == ["delivered"] * (WAITING + 1))

    assert [one["event"] for one in relay.events if one["event"].startswith("spool.")] == ["spool.ballast"]
    assert sorted(one.recipients[0] for one in sandbox.accepted) == sorted(
        [*(f"b{number}@example.net" for number in range(WAITING)), "direct@example.net", "late@example.net"]
    )
