"""Listeners by other doors than one TCP address: Unix sockets, both families at once, hosts without IPv6."""

import asyncio
import contextlib
import json
import os
import shutil
import smtplib
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.explain import explain
from relay.ingress.doors import BindError
from tests.support.client import CONTENT
from tests.support.running import KEY, configuration, port_of, relay_to, sandbox_with
from tests.support.wire import talk

ME = os.geteuid()
ROOT = pytest.mark.skipif(ME != 0, reason="only root can be somebody else")


class ByUnixSocket(smtplib.SMTP):
    """smtplib on a Unix socket; the host is its path."""

    def _get_socket(self, host, port, timeout):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(host)
        return sock


def send(path: Path | str, login: tuple[str, str] | None = None) -> tuple[int, str]:
    """The first refusal, else the last reply."""
    with ByUnixSocket(str(path), 1, timeout=30) as client:
        client.ehlo("client.test")
        if login is not None:
            client.login(*login)
        answers = [client.mail("a@example.com"), client.rcpt("b@example.net")]
        refused = next((answer for answer in answers if answer[0] >= 400), None)
        code, text = refused or client.data(CONTENT)
        return code, text.decode("ascii")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="relay-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def listener(path: Path, **more) -> dict:
    return {"listeners": [{"address": f"unix:{path}", **more}]}


# -- TCP --------------------------------------------------------------------------------------------------------------


async def test_a_connection_that_was_reset_before_it_was_accepted_is_nobodys(tmp_path):
    """Without an address it is not taken for a user of this host, whom no listener's networks concern."""
    stranger = {"listeners": [{"address": "127.0.0.1:0", "networks": ["10.0.0.0/8"]}]}
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **stranger) as relay:
        with capture_logs() as log:
            with socket.create_connection(("127.0.0.1", port_of(relay))) as early:  # the kernel's part of it
                early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            said = await talk(port_of(relay), b"")

    assert said.startswith(b"554 5.7.1 127.0.0.1 is not in")
    assert [event["peer"] for event in log if event["event"] == "link.open"] == ["127.0.0.1"]


# -- Unix sockets -----------------------------------------------------------------------------------------------------


async def test_mail_by_a_unix_socket(tmp_path):
    """It says where it listens, knows who is there, and tells the log but not the world; the socket goes with it."""
    path = tmp_path / "smtp.sock"
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **listener(path)) as relay:
        with capture_logs() as log:
            code, _ = await asyncio.to_thread(send, path)
        places = relay.listeners[0].places
        listening = relay.listeners[0].listening

    assert (places, listening, code) == ([f"unix:{path}"], True, 250)
    assert not path.exists()
    line = sandbox.accepted[0].content.split(b"\r\n\tby", 1)[0]
    assert line == b"Received: from client.test (local socket)"
    assert [event["peer"] for event in log if event["event"] == "link.open"] == [f"uid {ME}"]


@pytest.mark.parametrize(("given", "mode"), [({}, 0o660), ({"mode": "0666"}, 0o666), ({"mode": "0600"}, 0o600)])
async def test_the_mode_is_the_one_that_is_written_down(tmp_path, given, mode):
    """Whatever the umask."""
    path = tmp_path / "smtp.sock"
    before = os.umask(0o077)
    try:
        async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **listener(path, **given)):
            found = path.stat()
    finally:
        os.umask(before)

    assert stat.S_IMODE(found.st_mode) == mode
    assert found.st_uid == ME


@ROOT
@pytest.mark.parametrize("group", ["mail", "8"])
async def test_the_group_is_the_one_that_is_written_down(tmp_path, group):
    """By name or by number."""
    path = tmp_path / "smtp.sock"
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **listener(path, group=group)):
        assert path.stat().st_gid == 8


@pytest.mark.parametrize("group", ["no-such-group", "4294967295", "99999999999"])
async def test_a_group_that_cannot_be_is_named(tmp_path, group):
    """The highest number would leave the group as it is, and higher ones are none."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        with pytest.raises(BindError, match=f"there is no group {group} on this host"):
            async with relay_to(sandbox, **listener(tmp_path / "smtp.sock", group=group)):
                pass

    assert not (tmp_path / "smtp.sock").exists()


async def test_who_is_at_the_other_end_is_an_identity(tmp_path):
    """The first rule that names the client's user decides, as explain says."""
    path = tmp_path / "smtp.sock"
    sections = listener(path) | {
        "identities": [
            {"name": "somebody", "match": {"uid": ME + 1}},
            {"name": "me", "match": {"uid": [ME + 2, ME]}, "subaccount": 7},
        ]
    }
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = configuration(sandbox, **sections)
        async with relay_to(sandbox, **sections):
            code, _ = await asyncio.to_thread(send, path)

    assert code == 250
    assert sandbox.accepted[0].auth_user == "SMTP_Injection:X-MSYS-SUBACCOUNT=7"
    said = {uid: explain(config, login=None, mail_from="", client=None, listener=None, header_from=None, uid=uid)
            for uid in (ME, ME + 1, ME + 3, None)}  # fmt: skip
    assert "identity    me\n" in said[ME][0]
    assert "identity    somebody\n" in said[ME + 1][0]
    assert [passes for _, passes in said.values()] == [True, True, False, False]
    assert f"the client's user id is not {ME + 1}" in said[None][0]


@ROOT
async def test_another_user_is_another_client(tmp_path, open_folder):
    """What the kernel says counts: the same commands, said by two users, are two identities, and a third has none."""
    path = open_folder / "smtp.sock"
    sections = listener(path, mode="0666") | {
        "identities": [{"name": "web", "match": {"uid": 33}, "subaccount": 3}, {"name": "root", "match": {"uid": 0}}]
    }
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "f = s.makefile('rw', newline='')\n"
        "for line in ('EHLO x', 'MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>', 'QUIT'):\n"
        "    print(line, end='\\r\\n', file=f)\n"
        "f.flush(); print(f.read())"
    )
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections):
        said = {
            uid: await asyncio.to_thread(
                subprocess.run,
                [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-I", "-c", script, str(path)],
                user=uid,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )
            for uid in (33, 34)
        }

    assert "250 2.1.5" in said[33].stdout
    assert "550 5.7.1" in said[34].stdout


async def test_a_password_may_be_said_on_a_unix_socket_without_tls(tmp_path):
    """It does not leave the host."""
    path = tmp_path / "smtp.sock"
    sections = listener(path, auth="required") | {
        "identities": [{"name": "app", "match": {"login": "app"}, "password": "correct horse"}]
    }
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections):
        code, _ = await asyncio.to_thread(send, path, ("app", "correct horse"))
        without, _ = await asyncio.to_thread(send, path)

    assert (code, without) == (250, 530)


async def test_connections_are_counted_by_user(tmp_path):
    """One user may not take all there are."""
    path = tmp_path / "smtp.sock"
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, **listener(path), limits={"connections_per_client": 1}),
    ):
        reader, writer = await asyncio.open_unix_connection(path)
        first = await reader.readline()
        other, second = await asyncio.open_unix_connection(path)
        refusal = await other.readline()
        for one in (writer, second):
            one.close()
            await one.wait_closed()

    assert first.startswith(b"220 ")
    assert refusal.startswith(f"421 4.7.0 more than 1 connections from uid {ME}".encode())


async def test_what_a_dead_relay_left_is_replaced_and_what_is_served_is_left(tmp_path):
    """A file is left as well; each with a remedy. And nothing of ours is left when it fails."""
    path = tmp_path / "smtp.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with sandbox_with(tmp_path / "tls") as sandbox:
        async with relay_to(sandbox, **listener(path)):
            code, _ = await asyncio.to_thread(send, path)
            with pytest.raises(BindError, match=f"cannot listen on unix:{path}: another process listens there"):
                async with relay_to(sandbox, **listener(path)):
                    pass
            again, _ = await asyncio.to_thread(send, path)
        path.write_text("precious")
        with pytest.raises(BindError, match="something is there that is no socket: move it"):
            async with relay_to(sandbox, **listener(path)):
                pass

    assert (code, again) == (250, 250)
    assert path.read_text() == "precious"


async def test_a_socket_that_is_another_ones_by_now_stays(tmp_path):
    """Only what the relay has made goes with it."""
    path = tmp_path / "smtp.sock"
    with socket.socket(socket.AF_UNIX) as other:
        async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **listener(path)):
            path.unlink()
            other.bind(str(path))

        assert path.is_socket()


async def test_a_directory_that_will_not_do_is_named(tmp_path):
    """With the remedy."""
    (tmp_path / "file").touch()
    async with sandbox_with(tmp_path / "tls") as sandbox:
        for folder, words in (("nowhere", "there is no directory {}: make it"), ("file", "{} is no directory")):
            with pytest.raises(BindError, match=words.format(tmp_path / folder)):
                async with relay_to(sandbox, **listener(tmp_path / folder / "smtp.sock")):
                    pass


async def test_a_socket_deep_down(tmp_path):
    """Names of sockets end at 108 octets (unix(7)); one can be made and reached all the same."""
    folder = tmp_path / ("deep" * 20) / ("down" * 20)
    folder.mkdir(parents=True)
    path = folder / "smtp.sock"
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **listener(path)):
        directory = os.open(folder, os.O_PATH)
        code, _ = await asyncio.to_thread(send, f"/proc/self/fd/{directory}/smtp.sock")
        os.close(directory)

    assert code == 250
    assert list(folder.iterdir()) == []


# -- both families ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["localhost:0", "*:0"])
async def test_both_families_on_one_port(tmp_path, address):
    """With port 0 it is one that both have."""
    sections = {"listeners": [{"address": address, "networks": ["127.0.0.0/8", "::1/128"]}]}
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        (_, port), (_, other) = relay.listeners[0].addresses
        greetings = []
        for host in ("127.0.0.1", "::1"):
            with contextlib.closing(await asyncio.to_thread(socket.create_connection, (host, port))) as sock:
                sock.setblocking(False)
                greetings.append(await asyncio.get_running_loop().sock_recv(sock, 3))

    assert port == other
    assert greetings == [b"220", b"220"]


async def test_all_of_ipv6_is_no_ipv4(tmp_path):
    """0.0.0.0 on the same port can stand beside it."""
    with socket.socket() as beside:
        beside.bind(("0.0.0.0", 0))
        beside.listen()
        port = beside.getsockname()[1]
        sections = {"listeners": [{"address": f"[::]:{port}", "networks": ["::1/128"]}]}
        async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
            places = relay.listeners[0].places

    assert places == [f"[::]:{port}"]


@ROOT
@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("localhost:2525", 0, ""),
        ("[::1]:2525", 69, "cannot bind ::1 port 2525: this host has no such address"),
    ],
)
async def test_on_a_host_without_ipv6(tmp_path, address, status, words):
    """localhost is 127.0.0.1, and the log says so; what was asked for by its IPv6 address must be had."""
    ended, said = await served_in_a_namespace("sysctl -qw net.ipv6.conf.all.disable_ipv6=1", address)

    assert ended == status, said
    if status:
        assert f"listener local: {words}" in said[-1]
    else:
        (warning,) = [json.loads(line) for line in said if "listener.no_ipv6" in line]
        assert (warning["level"], warning["listener"], warning["address"]) == ("warning", "local", address)
        assert listening_at(said) == ["127.0.0.1:2525"]


@ROOT
@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("[fe80::5%lo]:2525", 0, ""),
        ("[fe80::5]:2525", 69, "cannot bind fe80::5 port 2525: a link-local address needs its interface"),
        ("[fe80::5%nowhere]:2525", 69, "cannot bind fe80::5%nowhere port 2525: this host has no such interface"),
    ],
)
async def test_a_link_local_address_has_its_interface(tmp_path, address, status, words):
    """The same address may be at several; which one is meant stands behind it."""
    ended, said = await served_in_a_namespace(
        "ip addr add fe80::5/64 dev lo nodad", address, RELAY_NETWORKS="fe80::/64"
    )

    assert ended == status, said
    if status:
        assert f"listener local: {words}" in said[-1]
    else:
        assert listening_at(said) == [address]


def listening_at(said: list[str]) -> list[str]:
    (started,) = [json.loads(line) for line in said if "relay.started" in line]
    return started["listeners"]["local"]


async def served_in_a_namespace(prepared_by: str, address: str, **environ: str) -> tuple[int, list[str]]:
    """`serve` in a network of its own, ended as soon as it has started: its exit status, and what it said."""
    prefix = ["unshare", "--net", "sh", "-c", f"ip link set lo up && {prepared_by} && exec $0 $@"]
    try:
        await asyncio.to_thread(subprocess.run, [*prefix, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    process = await asyncio.create_subprocess_exec(
        *[*prefix, sys.executable, "-m", "relay", "serve"],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "SPARKPOST_API_KEY": KEY,
            "RELAY_LISTEN": address,
            "RELAY__SPOOL__URL": "none",
            "RELAY__ADMIN__ADDRESS": "null",
        }
        | environ,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said: list[str] = []
    async with asyncio.timeout(30):
        while line := await process.stderr.readline():
            said.append(line.decode())
            if '"relay.started"' in said[-1]:
                process.terminate()
        return await process.wait(), said
