"""The program on a host whose name servers are silent: a network of its own, and a socket there that nobody reads."""

import asyncio
import subprocess
import sys
import time

import pytest

from tests.support.environment import clean
from tests.support.program import Program
from tests.support.running import KEY
from tests.support.serving import run, write_config

SILENCE = """
import os, socket, sys
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
server.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-m", "relay", *sys.argv[1:]])
"""
LOOKUP_SECONDS = 30  # that the C library waits for an answer, at least
END_SECONDS = 5.0  # far less, and enough on a busy machine


async def silently(folder, *arguments: str) -> Program:
    """The program where nobody answers the C library."""
    settings = folder / "resolv.conf"
    settings.write_text(f"nameserver 127.0.0.1\noptions timeout:{LOOKUP_SECONDS} attempts:1\n")
    prepared = f'ip link set lo up && mount --bind {settings} /etc/resolv.conf && exec "$0" "$@"'
    prefix = ["unshare", "--net", "--mount", "sh", "-c", prepared]
    try:
        await asyncio.to_thread(subprocess.run, [*prefix, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    process = await asyncio.create_subprocess_exec(
        *[*prefix, sys.executable, "-c", SILENCE, *arguments],
        env=clean(PATH="/usr/sbin:/usr/bin:/sbin:/bin"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return Program(process)


async def hand_in(path) -> bytes:
    """One message over the Unix socket, which is the same in every network; the last reply."""
    reader, writer = await asyncio.open_unix_connection(path)
    reply = await reader.readline()
    for line in (b"HELO c", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.net>", b"DATA", b"\r\nhello\r\n."):
        writer.write(line + b"\r\n")
        reply = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return reply


@pytest.mark.timeout(60)
async def test_no_lookup_is_waited_for_at_the_end(tmp_path):
    """The C library goes on asking; the service manager, which would kill the relay, does not wait for that."""
    config = write_config(
        tmp_path / "relay.yaml",
        listeners=[{"address": f"unix:{tmp_path}/smtp"}],
        upstream={"host": "smtp.example"},
        credentials={"default": {"api_key": KEY}},
        delivery={"cut_through_deadline": "100ms"},
        spool={"url": f"sqlite:{tmp_path}/spool.db", "reserve": 0},
        admin={"address": None},
        drain_timeout="100ms",
    )
    program = await silently(tmp_path, "serve", "--config", config)
    await program.until("relay.started")
    reply = await hand_in(f"{tmp_path}/smtp")
    program.process.terminate()
    await program.until("relay.stopped")
    stopped = time.monotonic()
    status, rest = await program.end()
    took = time.monotonic() - stopped
    queued = await run("queue", "list", "--json", "--config", config)

    assert reply.startswith(b"250 2.0.0 queued as ")
    assert (status, rest) == (0, "")
    assert took < END_SECONDS
    assert [(one["id"].encode() in reply, one["state"]) for one in queued.json] == [(True, "queued")]
