"""The program as an operator runs it: `serve` in a process of its own."""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from relay.serve import keep_to_one_processor
from relay.spool.lock import SpoolLock
from tests.spool.driven import small_disk
from tests.support.client import send
from tests.support.environment import clean
from tests.support.program import Program, free_port
from tests.support.running import KEY, sandbox_with


def write_config(folder: Path, sandbox, port: int) -> Path:
    path = folder / "relay.yaml"
    path.write_text(
        f"""
listeners: [{{address: "127.0.0.1:{port}"}}]
upstream: {{host: localhost, ports: [{sandbox.addresses[0][1]}], tls: {{ca_file: {sandbox.ca_file}}}}}
credentials: {{default: {{api_key: "{KEY}"}}}}
spool: {{url: "sqlite:{folder}/spool.db"}}
admin: {{address: null}}
log: {{format: json, level: debug}}
"""
    )
    path.chmod(0o600)
    return path


def program_tasks(program: Program) -> list[Path]:
    return list(Path(f"/proc/{program.process.pid}/task").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_message_then_a_signal(tmp_path, number):
    """It serves, answers with SparkPost's own words, drains at the signal and exits 0."""
    port = free_port()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        program = await Program.start("serve", "--config", str(write_config(tmp_path, sandbox, port)))
        started = await program.until("relay.started")
        code, text = await send(port)
        processors = {tuple(os.sched_getaffinity(int(task.name))) for task in program_tasks(program)}
        done = await program.until("attempt.done")
        program.process.send_signal(number)
        await program.until("relay.stopped")
        status, rest = await program.end()

    assert [len(each) for each in processors] == [1]  # all threads on one, whichever it is
    assert started["listeners"] == {"local": [f"127.0.0.1:{port}"]}
    assert code == 250
    assert sandbox.accepted[0].token in text
    assert done["queue_id"] in text
    assert done["message_id"] == sandbox.accepted[0].token
    assert (status, rest) == (0, "")
    assert KEY not in json.dumps(program.events)


async def test_a_hang_up_is_nothing_below_nohup(tmp_path):
    """Who starts it so wants it to outlive the terminal."""
    port = free_port()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        process = await asyncio.create_subprocess_exec(
            *["nohup", sys.executable, "-m", "relay", "serve"],
            *["--config", str(write_config(tmp_path, sandbox, port))],
            env=clean(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        program = Program(process)
        await program.until("relay.started")
        program.process.send_signal(signal.SIGHUP)
        code, _ = await send(port)
        program.process.terminate()
        await program.until("relay.stopped")
        status, _ = await program.end()

    assert (code, status) == (250, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="processors are chosen on Linux only")
def test_relays_that_are_all_process_1_do_not_crowd_on_one_processor(monkeypatch):
    """Which one of those that it may use is chance, and not a matter of the process id."""
    chosen: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, processors: chosen.append(processors))
    for _ in range(100):
        keep_to_one_processor()

    assert {len(each) for each in chosen} == {1}
    assert set().union(*chosen) == {2, 3, 5, 7}


@pytest.mark.skipif(sys.platform != "linux", reason="processors are chosen on Linux only")
@pytest.mark.parametrize("call", ["sched_getaffinity", "sched_setaffinity"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_it_starts_where_a_sandbox_forbids_to_choose(monkeypatch, call, number):
    """systemd's filters say EPERM, those of container runtimes ENOSYS as well; EINVAL is one that has gone."""

    def forbidden(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = os.sched_getaffinity(0)
    monkeypatch.setattr(os, call, forbidden)
    keep_to_one_processor()
    monkeypatch.undo()

    assert os.sched_getaffinity(0) == before


async def test_the_message_in_hand_is_answered_before_the_end(tmp_path):
    """SIGTERM while SparkPost thinks about the final dot: the application still gets its 250."""
    port = free_port()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        program = await Program.start("serve", "--config", str(write_config(tmp_path, sandbox, port)))
        await program.until("relay.started")
        sending = asyncio.create_task(send(port, "slow-dot-1500ms@example.net"))
        await sandbox.wait_for(1)
        program.process.send_signal(signal.SIGTERM)
        code, _ = await sending
        status, _ = await program.end()

    assert code == 250
    assert status == 0
    assert len(sandbox.accepted) == 1


async def test_nobody_reads_the_log_any_more(tmp_path):
    """What SparkPost takes is answered all the same, and the relay stops when it is told to."""
    port = free_port()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        program = await Program.start("serve", "--config", str(write_config(tmp_path, sandbox, port)))
        await program.until("relay.started")
        program.process._transport.get_pipe_transport(2).close()
        code, _ = await send(port)
        program.process.terminate()
        await program.end()

    assert (code, len(sandbox.accepted)) == (250, 1)


async def test_the_environment_suffices(tmp_path):
    """A key and an address, no file at all: it starts, listens and says where."""
    port = free_port()
    program = await Program.start(
        "serve", SPARKPOST_API_KEY=KEY, RELAY_LISTEN=f"127.0.0.1:{port}", RELAY__SPOOL__URL="none"
    )
    started = await program.until("relay.started")
    program.process.terminate()

    assert started["upstream"] == "smtp.sparkpostmail.com"
    assert (await program.end())[0] == 0


async def test_systemd_hears_when_it_is_ready_and_when_it_stops(tmp_path):
    """READY=1 once every listener is open, with their addresses as status; STOPPING=1 at the signal (sd_notify(3))."""
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        program = await Program.start(
            "serve",
            SPARKPOST_API_KEY=KEY,
            RELAY_LISTEN=f"127.0.0.1:{port}",
            RELAY__SPOOL__URL=f"sqlite:{tmp_path}/spool.db",
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        heard = [await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 1000), 20)]
        program.process.terminate()
        heard.append(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 1000), 20))
        status, _ = await program.end()

    assert heard == [f"READY=1\nSTATUS=listening on 127.0.0.1:{port}".encode(), b"STOPPING=1"]
    assert status == 0


async def test_a_bad_configuration_is_78(tmp_path):
    """Every problem with file, line and key; nothing is started."""
    path = tmp_path / "relay.yaml"
    path.write_text("listeners:\n  - address: 0.0.0.0:2525\nupstraem: {}\n")
    program = await Program.start("serve", "--config", str(path))
    status, text = await program.end()

    assert status == 78
    assert f"{path}:2: listeners[0]" in text
    assert f"{path}:3: upstraem" in text


async def test_a_full_disk_is_69(tmp_path):
    """It may have room the next time: systemd tries again."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        program = await Program.start(
            "serve",
            SPARKPOST_API_KEY=KEY,
            RELAY_LISTEN=f"127.0.0.1:{free_port()}",
            RELAY__SPOOL__URL=f"sqlite:{disk}/spool.db",
        )
        status, text = await program.end()

    assert status == 69
    assert f"{disk}/spool.db cannot be opened: the disk is full" in text


async def test_a_port_in_use_is_69(tmp_path):
    """It says which listener, which address, and what would help."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = await Program.start(
            "serve", SPARKPOST_API_KEY=KEY, RELAY_LISTEN=f"127.0.0.1:{port}", RELAY__SPOOL__URL="none"
        )
        status, text = await program.end()

    assert status == 69
    assert f"listener local: cannot bind 127.0.0.1 port {port}: another program listens there" in text


async def test_a_spool_that_another_process_is_about_to_leave_is_waited_for(tmp_path):
    """An operator's command, or the relay before this one, which has mail in hand."""
    port = free_port()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = write_config(tmp_path, sandbox, port)
        lock = await SpoolLock.take(tmp_path / "spool.db")
        program = await Program.start("serve", "--config", str(config))
        awaited = await program.until("spool.awaited")
        lock.close()
        await program.until("relay.started")
        code, _ = await send(port)
        program.process.terminate()
        status, _ = await program.end()

    assert f"in use by the process {os.getpid()}" in awaited["reason"]
    assert (code, status, len(sandbox.accepted)) == (250, 0, 1)


async def test_a_signal_ends_the_wait_for_a_spool(tmp_path):
    """Nothing has begun, and nothing is left to finish."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        lock = await SpoolLock.take(tmp_path / "spool.db")
        program = await Program.start("serve", "--config", str(write_config(tmp_path, sandbox, free_port())))
        await program.until("spool.awaited")
        program.process.terminate()
        status, rest = await program.end()
        lock.close()

    assert status == 0
    assert "Traceback" not in rest


async def test_a_spool_that_stays_in_use_is_69(tmp_path):
    """It says who has it."""
    lock = await SpoolLock.take(tmp_path / "spool.db")
    program = await Program.start(
        "serve",
        SPARKPOST_API_KEY=KEY,
        RELAY_LISTEN="127.0.0.1:0",
        RELAY__ADMIN__ADDRESS="null",
        RELAY__DRAIN_TIMEOUT="0",
        RELAY__SPOOL__URL=f"sqlite:{tmp_path}/spool.db",
    )
    status, text = await program.end()
    lock.close()

    assert status == 69
    assert f"spool.db is in use by the process {os.getpid()}" in text
