"""Sockets that were there before the relay: the protocol of sd_listen_fds(3), spoken by a parent that is no systemd."""

import asyncio
import json
import os
import smtplib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import clean
from tests.support.running import KEY, sandbox_with

# What systemd does between fork and exec: the sockets at 3 and up, and the number of the process that they are for.
LAUNCHER = """
import os, sys
given, command = list(map(int, sys.argv[1].split(","))), sys.argv[2:]
spare = [os.dup(descriptor) for descriptor in given]  # beyond 3 and up, so that none is overwritten before its turn
while min(spare) < 3 + len(spare):
    spare = [os.dup(descriptor) for descriptor in spare]
for number, descriptor in enumerate(spare):
    os.dup2(descriptor, 3 + number, inheritable=True)
os.closerange(3 + len(spare), 256)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(command[0], command)
"""


def config_for(folder: Path, ports: Sequence[int], ca_file: Path | None, *listeners: dict[str, Any]) -> str:
    path = folder / "relay.json"
    sections = {
        "hostname": "relay.test",
        "listeners": list(listeners),
        "upstream": {"host": "localhost", "ports": list(ports), "tls": {"ca_file": ca_file and str(ca_file)}},
        "credentials": {"default": {"api_key": KEY}},
        "spool": {"url": "none"},
        "admin": {"address": None},
        "log": {"format": "json"},
    }
    path.write_text(json.dumps(sections))
    path.chmod(0o600)
    return str(path)


async def start(config: str, sockets: Sequence[socket.socket | int], **environ: str) -> asyncio.subprocess.Process:
    """`serve` with these sockets (or other descriptors) passed to it."""
    descriptors = [one if isinstance(one, int) else one.fileno() for one in sockets]
    arguments = [sys.executable, "-m", "relay", "serve", "--config", config]
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", LAUNCHER, ",".join(map(str, descriptors)), *arguments],
        env=clean(**{"LISTEN_FDS": str(len(descriptors))} | environ),
        pass_fds=descriptors,
        stderr=asyncio.subprocess.PIPE,
    )


async def until(process: asyncio.subprocess.Process, event: str) -> list[dict]:
    """Every event up to this one."""
    assert process.stderr is not None
    found: list[dict] = []
    async with asyncio.timeout(30):
        while not found or found[-1]["event"] != event:
            line = await process.stderr.readline()
            assert line, f"it has ended with {await process.wait()}: {found}"
            found.append(json.loads(line))
    return found


async def stop(process: asyncio.subprocess.Process) -> str:
    """Terminate it; what was left to say."""
    process.terminate()
    _, rest = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, rest
    return rest.decode()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Exit status and last words of one that does not start."""
    _, rest = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, rest.decode()


def flags_of(pid: int, descriptor: int) -> int:
    """The flags of another process's descriptor (proc(5))."""
    return int(Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0], 8)


def on_tcp(host: str = "127.0.0.1") -> socket.socket:
    if ":" in host:
        return socket.create_server((host, 0), family=socket.AF_INET6, dualstack_ipv6=host == "::")
    return socket.create_server((host, 0))


def on_a_path(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


async def test_mail_sent_while_the_relay_restarts_is_not_refused(tmp_path):
    """Clients connect while no relay is there, on TCP and on a path: they wait, and the next relay serves them."""
    content = b"Subject: restart\r\n\r\nx\r\n"

    def send(place: tuple[str, int] | str) -> int:
        with smtplib.SMTP(timeout=50) as client:
            client._get_socket = lambda *_: connect(place)  # type: ignore[method-assign]
            client.connect("relay", 1)
            client.sendmail("a@example.com", "b@example.net", content)
        return 250

    def connect(place: tuple[str, int] | str) -> socket.socket:
        sock = socket.socket(socket.AF_INET if isinstance(place, tuple) else socket.AF_UNIX)
        sock.settimeout(50)
        sock.connect(place)
        return sock

    path = tmp_path / "smtp.sock"
    with on_tcp() as tcp, on_a_path(path) as unix:
        places = [tcp.getsockname(), str(path)]
        async with sandbox_with(tmp_path / "tls") as sandbox:
            config = config_for(tmp_path, [sandbox.addresses[0][1]], sandbox.ca_file, {"address": "fd:smtp"})
            first = await start(config, [tcp, unix], LISTEN_FDNAMES="smtp:smtp")
            started = (await until(first, "relay.started"))[-1]
            before = await asyncio.gather(*(asyncio.to_thread(send, place) for place in places))
            await stop(first)
            meanwhile = [asyncio.create_task(asyncio.to_thread(send, place)) for place in places * 5]
            done, _ = await asyncio.wait(meanwhile, timeout=0.3)
            still_there = path.is_socket()
            second = await start(config, [tcp, unix], LISTEN_FDNAMES="smtp:smtp")
            answers = await asyncio.gather(*meanwhile)
            await until(second, "relay.started")
            await stop(second)

    assert started["listeners"] == {"local": [f"127.0.0.1:{places[0][1]}", f"unix:{path}"]}
    assert (before, done, still_there) == ([250, 250], set(), True)
    assert answers == [250] * 10
    assert len(sandbox.accepted) == 12


async def test_every_listener_takes_the_sockets_of_its_name(tmp_path):
    """Those of one name are one listener's. What nobody takes is in the log, and no child would inherit any."""
    with on_tcp() as one, on_tcp() as two, on_tcp() as three, on_tcp() as four:
        config = config_for(
            tmp_path, [9], None, {"name": "a", "address": "fd:in"}, {"name": "b", "address": "fd:submission"}
        )
        process = await start(config, [one, two, three, four], LISTEN_FDNAMES="in:submission:in:spare")
        said = await until(process, "relay.started")
        flags = [flags_of(process.pid, number) for number in (3, 4, 5, 6)]
        await stop(process)

    assert len(said[-1]["listeners"]["a"]) == 2
    assert len(said[-1]["listeners"]["b"]) == 1
    (unclaimed,) = [event for event in said if event["event"] == "listener.unclaimed"]
    assert (unclaimed["name"], unclaimed["remedy"]) == ("spare", "listen on fd:spare, or stop its socket unit")
    assert all(flag & os.O_CLOEXEC for flag in flags)


async def test_an_ipv4_client_of_a_dual_stack_socket_is_an_ipv4_client(tmp_path):
    """For the networks, the log and the limits."""
    with on_tcp("::") as sock:
        port = sock.getsockname()[1]
        config = config_for(tmp_path, [9], None, {"address": "fd:smtp", "networks": ["127.0.0.0/8"]})
        process = await start(config, [sock], LISTEN_FDNAMES="smtp")
        await until(process, "relay.started")
        heard = []
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, port)
            heard.append((await reader.readline())[:4])
            writer.close()
            await writer.wait_closed()
        opened = [event["peer"] for event in map(json.loads, (await stop(process)).splitlines()) if "peer" in event]

    assert heard == [b"220 ", b"554 "]
    assert opened == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LISTEN_FDNAMES": "other"}, "systemd passes no socket named smtp; passed are: other"),
        ({}, "systemd passes no socket named smtp; passed are: unknown"),
        ({"LISTEN_PID": "1", "LISTEN_FDNAMES": "smtp"}, "they were passed to process 1: have the script"),
        ({"LISTEN_FDS": "x", "LISTEN_FDNAMES": "smtp"}, "LISTEN_FDS is no number"),
        ({"LISTEN_FDS": "200", "LISTEN_FDNAMES": "other" + ":" * 198 + "smtp"}, "passed are: other"),
        ({"LISTEN_FDS": ""}, "none is passed: start it by a socket unit with this FileDescriptorName="),
    ],
)
async def test_a_socket_that_is_not_passed_is_69(tmp_path, environ, words):
    """What was passed instead, or why nothing was."""
    config = config_for(tmp_path, [9], None, {"address": "fd:smtp"})
    with on_tcp() as sock:
        status, said = await ended(await start(config, [sock], **environ))

    assert status == 69
    assert said.startswith("listener local: ")
    assert words in said


@pytest.mark.parametrize("kind", ["file", "datagram", "connected"])
async def test_what_takes_no_connections_is_69(tmp_path, kind):
    """A file, ListenDatagram=, Accept=yes."""
    config = config_for(tmp_path, [9], None, {"address": "fd:smtp"})
    one, other = socket.socketpair()
    file = os.open(os.devnull, os.O_RDONLY)
    with one, other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        passed = {"file": file, "datagram": datagram.fileno(), "connected": one.fileno()}[kind]
        status, said = await ended(await start(config, [passed], LISTEN_FDNAMES="smtp"))
    os.close(file)

    assert status == 69
    assert ("is no socket" if kind == "file" else "takes no connections") in said
