"""The admin server of the real program: found by `health` and curl, made and gone with it, and always quick."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin import TOKEN, WITH_TOKEN, ask, fill, keeping
from tests.support.client import send
from tests.support.running import KEY, sandbox_with
from tests.support.serving import run, serving, write_config

MANY = 100_000
QUICK = 0.5  # seconds for a page; a loaded test machine is given ten times what is promised for ten times the messages


def relay_config(folder: Path, upstream: int = 1, **sections: Any) -> str:
    """The configuration file of a whole relay; `upstream` is the sandbox's port."""
    return write_config(
        folder / "relay.yaml",
        **{
            "listeners": [{"address": "127.0.0.1:0"}],
            "upstream": {"host": "localhost", "ports": [upstream], "tls": {"ca_file": str(folder / "tls" / "ca.pem")}},
            "credentials": {"default": {"api_key": KEY}},
            "log": {"format": "json"},
        }
        | keeping(folder)
        | sections,
    )


def mode_of(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)


async def test_health_from_start_to_stop(tmp_path):
    """Not ready while no relay runs, ready while one does, each with its exit status and in words."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = relay_config(tmp_path, sandbox.addresses[0][1])
        before = await run("health", "--config", config)
        async with serving(config) as relay:
            during = await run("health", "--config", config)
            mode = mode_of(tmp_path / "spool.db.sock")
        after = await run("health", "--config", config)

    assert (before.status, during.status, after.status) == (1, 0, 1)
    assert during.out == "ready\n"
    assert "no relay runs: nobody has the spool" in after.out
    assert relay.unix == f"unix:{tmp_path}/spool.db.sock"
    assert mode == "srw-------"
    assert "spool.db.sock" not in os.listdir(tmp_path)


async def test_health_says_why_not(tmp_path):
    """A spool without room: 1, and the reason as the relay tells it."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        spool = keeping(tmp_path)["spool"] | {"reserve": "4000000GB"}
        config = relay_config(tmp_path, sandbox.addresses[0][1], spool=spool)
        async with serving(config):
            ran = await run("health", "--config", config)

    assert ran.status == 1
    assert ran.out.startswith("not ready: spool: ")
    assert "are kept in reserve" in ran.out


async def test_health_of_a_sidecar(tmp_path):
    """No spool, no file, the environment alone, as in the image: it is asked by TCP, and the key need not be good."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    environ = {
        "SPARKPOST_API_KEY": KEY,
        "RELAY_LISTEN": "127.0.0.1:0",
        "RELAY__SPOOL__URL": "none",
        "RELAY__ADMIN__ADDRESS": admin,
        "RELAY__LOG__FORMAT": "json",
    }
    before = await run("health", **environ)
    async with serving(os.devnull, **environ) as relay:
        during = await run("health", **environ)

    assert (before.status, during.status) == (1, 0)
    assert f"{admin} does not answer: Connection refused" in before.out
    assert relay.started["admin"] == [admin]


async def test_systemds_runtime_directory_has_the_socket(tmp_path):
    """RUNTIME_DIRECTORY says where; the commands find it by the note in the lock, without that variable."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = relay_config(tmp_path, sandbox.addresses[0][1])
        async with serving(config, RUNTIME_DIRECTORY=str(runtime)) as relay:
            stats = await run("queue", "stats", "--json", "--config", config)
            health = await run("health", "--config", config)

    assert relay.unix == f"unix:{runtime}/admin.sock"
    assert stats.json["messages"]["queued"] == 0
    assert health.out == "ready\n"


async def test_a_killed_relays_socket_is_in_nobodys_way(tmp_path):
    """kill -9 leaves it; the next relay replaces it, and until then commands open the spool themselves."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = relay_config(tmp_path, sandbox.addresses[0][1])
        async with serving(config) as relay:
            relay.process.send_signal(signal.SIGKILL)
            await relay.process.wait()
        left = "spool.db.sock" in os.listdir(tmp_path)
        offline = await run("queue", "stats", "--json", "--config", config)
        async with serving(config) as relay:
            answer = await ask(relay.unix, "/livez")

    assert left
    assert offline.status == 0
    assert answer.status == 200


async def test_an_address_that_is_taken_is_69(tmp_path):
    """It was asked for by name: the relay does not start, and says what would help."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "tls").mkdir()
        config = relay_config(tmp_path, admin={"address": f"127.0.0.1:{port}"}, upstream=1)
        ran = await run("serve", "--config", _without_ca(config))

    assert ran.status == 69
    assert f"admin.address: cannot bind 127.0.0.1 port {port}: Address already in use" in ran.err


def _without_ca(config: str) -> str:
    path = Path(config)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "ca_file" not in line))
    return config


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_as_the_documentation_shows_it(tmp_path):
    """A list by token, a message held over the socket."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = relay_config(tmp_path, sandbox.addresses[0][1])
        async with serving(config) as relay:
            await send(relay.smtp_port, "tempfail@example.net")
            listed = await curl("-H", f"Authorization: Bearer {TOKEN}", f"http://{relay.tcp}/api/v1/messages")
            queue_id = listed.split('"id": "')[1][:14]
            hold = f"http://localhost/api/v1/messages/{queue_id}/hold"
            held = await curl("--unix-socket", relay.unix.removeprefix("unix:"), "-X", "POST", hold)

    assert '"state": "queued"' in listed
    assert '"state": "held"' in held


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("curl", "-sS", *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    return out.decode()


async def test_a_large_queue_makes_no_page_wait(tmp_path):
    """100,000 messages that wait: health, metrics, status and lists answer at once; a search finds the last one."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = relay_config(tmp_path, sandbox.addresses[0][1])
        async with serving(config):
            pass
        fill(tmp_path / "spool.db", MANY)
        async with serving(config) as relay:
            took = {}
            for path in ("/livez", "/readyz", "/healthz", "/metrics", "/api/v1/status", "/api/v1/messages?limit=20"):
                started = time.monotonic()
                answer = await ask(relay.unix, path)
                took[path] = time.monotonic() - started
                assert answer.status == 200
            metrics = await ask(relay.unix, "/metrics")
            last = f"customer-{MANY}@"
            found = await run("queue", "list", "--search", last, "--json", "--config", config)

    assert max(took.values()) < QUICK, took
    assert f'queue_messages{{state="queued"}} {float(MANY)}' in metrics.body.decode()
    assert [one["recipients"][0]["address"] for one in found.json] == [f"customer-{MANY}@example.net"]


async def test_what_an_operator_releases_is_sent(tmp_path):
    """Held, then the relay restarted, then released: it is at SparkPost, and the ledger says so."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = relay_config(
            tmp_path, sandbox.addresses[0][1], delivery={"cut_through_deadline": "300ms", "retry": {"first": "30m"}}
        )
        async with serving(config) as relay:
            await send(relay.smtp_port, "tempfail@example.net", "b@example.net")
            queue_id = (await run("queue", "list", "--json", "--config", config)).json[0]["id"]
            await run("queue", "hold", queue_id, "--config", config)
        async with serving(config) as relay:
            held = await run("queue", "show", queue_id, "--json", "--config", config)
            released = await run("queue", "release", queue_id, "--config", config)
            async with asyncio.timeout(10):
                while True:
                    shown = await ask(relay.tcp, f"/api/v1/messages/{queue_id}", headers=WITH_TOKEN)
                    if shown.json["history"][-1]["attempt"] == 2:
                        break

    assert held.json["state"] == "held"
    assert released.out == f"{queue_id} released\n"
    assert shown.json["recipients"][1]["state"] == "delivered"
