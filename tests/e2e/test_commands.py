"""The small commands, as an operator runs them."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import argon2
import pytest
import yaml

from relay import doctor, is_compiled
from relay.sandbox import HttpPort, Port
from relay.sandbox.rules import Login
from relay.send import _stays_here, send_test_message
from tests.support.environment import clean
from tests.support.running import KEY, configuration, port_of, relay_to, sandbox_with
from tests.support.serving import serving, write_config
from tests.support.wire import starttls


async def run(*arguments: str, text: str = "", **environ: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `sparkpost-relay`."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", *arguments],
        env=clean(COLUMNS="200", **environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(text.encode()), 40)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def ipv6_is_there() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def config_for(sandbox, folder: Path, **keys: str) -> str:
    path = folder / "relay.yaml"
    ports = [port for _, port in sandbox.addresses]
    credentials = ", ".join(f"{name}: {{api_key: {key}}}" for name, key in ({"default": KEY} | keys).items())
    path.write_text(
        f"upstream: {{host: localhost, ports: {ports}, tls: {{ca_file: {sandbox.ca_file}}},"
        " timeouts: {banner: 1s}}\n"
        f"credentials: {{{credentials}}}\n"
    )
    path.chmod(0o600)
    return str(path)


async def test_version():
    """It says which it is, and whether it is compiled."""
    form = " (compiled)" if is_compiled() else ""
    assert (await run("--version"))[:2] == (0, f"sparkpost-relay 0.1.0{form}\n")


async def test_demo():
    """The message arrives under the right identity, and no key is shown."""
    status, out, err = await run("demo")

    assert (status, err) == (0, "")
    assert "AUTH LOGIN" in out
    assert "= SMTP_Injection:X-MSYS-SUBACCOUNT=123" in out
    assert "250 2.0.0 OK " in out
    assert "| Subject: Invoice" in out
    assert "accepted 1 = delivered 1, under the right identity" in out
    assert "demo-key" not in out


async def test_demo_leaves_nothing_behind(tmp_path):
    """Where it stays, until it is told to go."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", "demo", "--keep"],
        env=clean(TMPDIR=str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(40):
        while b"Ctrl-C ends both" not in await process.stdout.readline():
            assert not process.stdout.at_eof()
        assert list(tmp_path.iterdir())
        process.terminate()

        assert await process.wait() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("preparation", "status", "said"),
    [
        ("ip link set lo up && ip addr del 127.0.0.1/8 dev lo", 0, b"accepted 1 = delivered 1"),
        ("ip link set lo up && mount --bind /dev/null /etc/hosts", 0, b"accepted 1 = delivered 1"),
        ("true", 1, b"the demo cannot be shown here: "),
    ],
)
async def test_demo_of_an_odd_host(preparation, status, said):
    """IPv6 alone, no name `localhost`, no loopback at all."""
    prefix = ["unshare", "--net", "--mount", "sh", "-c", f"{preparation} && exec $0 $@"]
    try:
        await asyncio.to_thread(subprocess.run, [*prefix, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    process = await asyncio.create_subprocess_exec(
        *[*prefix, sys.executable, "-m", "relay", "demo"],
        env=clean(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 40)

    assert (process.returncode, b"Traceback" in err) == (status, False)
    assert said in out + err


async def test_check_config_prints_what_is_in_force():
    """Defaults included, secrets left out."""
    status, out, _ = await run("check-config", SPARKPOST_API_KEY=KEY, RELAY__UPSTREAM__CONNECTIONS="5")

    assert status == 0
    assert "connections: 5" in out
    assert "smtp.sparkpostmail.com" in out
    assert KEY not in out


async def test_check_config_with_problems():
    """Every one of them, and 78."""
    status, _, err = await run("check-config", RELAY_LISTEN="0.0.0.0:2525", RELAY__UPSTREAM__PORTS="[0]")

    assert status == 78
    assert "RELAY_LISTEN" in err
    assert "upstream.ports" in err
    assert "SPARKPOST_API_KEY" in err


async def test_hash_password():
    """One line in, its argon2id hash out."""
    status, out, _ = await run("hash-password", text="correct horse\n")

    assert status == 0
    assert out.startswith("$argon2id$")
    assert argon2.PasswordHasher().verify(out.strip(), "correct horse")
    assert (await run("hash-password", text="\n"))[0] == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (r"printf 'p\344ss\n' | python -m relay hash-password", "the password is not text in UTF-8"),
        (r"printf 'p\344ss\n' | PYTHONIOENCODING=utf-8:strict python -m relay hash-password", "is not text in UTF-8"),
        (r"printf 'p\344ss\n' | python -m relay send --to b@example.net --login app", "is not text in UTF-8"),
        ("python -m relay hash-password <&-", "an empty password protects nothing"),
        ("python -m relay send --to b@example.net --login app <&-", "Aborted"),
    ],
)
async def test_a_password_that_cannot_be_read(command, said):
    """Octets of another encoding, or no stdin at all: said, and not a traceback."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        command.replace("python", sys.executable),
        env=clean(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 40)

    assert process.returncode == 1
    assert said in err.decode()
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize("command", ["--version", "--help", "check-config", "explain", "hash-password", "demo"])
async def test_output_that_cannot_be_written_is_one_line(command):
    """A full disk behind stdout is said on stderr, with 1; a reader who has seen enough is not told of it."""
    program = f"printf 'secret\\n' | sparkpost-relay {command}"
    full = await shell(f"{program} > /dev/full", SPARKPOST_API_KEY=KEY)
    closed = await shell(f"{program} >&-", SPARKPOST_API_KEY=KEY)
    gone = await shell(f"{program} | true", SPARKPOST_API_KEY=KEY)

    assert full == (1, "the output cannot be written: No space left on device\n")
    assert closed == (0, "")
    assert gone == (0, "")


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "<&- >&- 2>&-"])
async def test_a_warning_for_which_there_is_no_room_stops_nothing(tmp_path, stderr):
    """The status tells of problems all the same; and a relay starts and ends as it should."""
    settings = {"SPARKPOST_API_KEY": KEY, "RELAY_LISTEN": "127.0.0.1:0", "RELAY__ADMIN__ADDRESS": "127.0.0.1:0"}
    settings |= {"RELAY__SPOOL__URL": f"sqlite:{tmp_path}/spool.db", "RELAY__LIMITS__MESSAGE_SIZE": "30MB"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        relay = await asyncio.create_subprocess_exec(
            *["sh", "-c", f"exec {sys.executable} -m relay serve {stderr}"],
            env=clean(NOTIFY_SOCKET=str(tmp_path / "notify"), **settings),
        )
        ready = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd, 1000), 20)
        relay.terminate()
        status = await asyncio.wait_for(relay.wait(), 20)

    assert (await shell(f"sparkpost-relay check-config {stderr}"))[0] == 78
    assert b"READY=1" in ready
    assert status == 0


async def test_a_character_that_the_terminal_does_not_know_is_shown_escaped():
    """As a login beyond Latin-1 in an old locale."""
    status, err = await shell(
        "sparkpost-relay explain --login f\u00fcr-3", SPARKPOST_API_KEY=KEY, PYTHONIOENCODING="ascii"
    )

    assert (status, err) == (1, "")


async def shell(script: str, **environ: str) -> tuple[int, str]:
    """Exit status and stderr of a script."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        script.replace("sparkpost-relay", f"{sys.executable} -m relay"),
        env=clean(**environ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode is not None
    return process.returncode, err.decode()


async def test_explain_names_rule_and_login(tmp_path):
    """Exit 0 for what passes, 1 for what does not, and why."""
    path = tmp_path / "relay.yaml"
    path.write_text(
        f"credentials: {{default: {{api_key: {KEY}}}}}\n"
        "identities:\n"
        '  - {name: shop, match: {mail_from: "*@shop.example"}, subaccount: 5, senders: ["*@shop.example"],\n'
        "     sparkpost: {campaign_id: news, accept: [tags, options.ip_pool]}}\n"
    )
    path.chmod(0o600)
    passes = await run("explain", "--config", str(path), "--from", "a@shop.example")
    refused = await run("explain", "--config", str(path), "--from", "a@other.example")
    strange = await run("explain", "--config", str(path), "--from", "a@shop.example", "--client", "192.0.2.1")
    author = await run("explain", "--config", str(path), "--from", "a@shop.example", "--header-from", "x@y.example")

    assert passes[0] == 0
    assert "AUTH as SMTP_Injection:X-MSYS-SUBACCOUNT=5" in passes[1]
    assert 'X-MSYS-API  {"campaign_id": "news"}\n' in passes[1]
    assert "accepts     tags, options.ip_pool in the application's own X-MSYS-API\n" in passes[1]
    assert [answer[0] for answer in (refused, strange, author)] == [1, 1, 1]
    assert "the reverse-path is not *@shop.example" in refused[1]
    assert "192.0.2.1 is in none of" in strange[1]
    assert "header From x@y.example" in author[1]


async def test_doctor_of_a_healthy_set_up(tmp_path):
    """Every step is ok, nothing is sent."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        status, out, _ = await run("doctor", "--config", config_for(sandbox, tmp_path))

    assert status == 0, out
    assert "AUTH default accepted as SMTP_Injection" in out
    assert "mail would flow" in out
    assert sandbox.accepted == []


async def test_doctor_finds_what_is_wrong(tmp_path):
    """One blocked port is a warning, a bad key a fault, each with its remedy; no key is shown."""
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="silent"), Port()]) as sandbox:
        config = config_for(sandbox, tmp_path, billing="wrong-key-0123456789")
        status, out, _ = await run("doctor", "--config", config)

    assert status == 1
    assert "warning  port" in out
    assert "no greeting within 1 s" in out
    assert "FAULT    AUTH billing 535 5.7.8" in out
    assert "Send via SMTP" in out
    assert KEY not in out
    assert "wrong-key" not in out


async def test_doctor_waits_for_no_port_longer_than_an_operator_would(tmp_path, monkeypatch, capsys):
    """Whatever the time-outs of the relay itself: a silent port is reported soon."""
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    async with sandbox_with(tmp_path, ports=[Port(mode="silent"), Port()]) as sandbox:
        status = await asyncio.wait_for(doctor.examine(configuration(sandbox)), 10)

    assert status == 0
    assert "127.0.0.1: no greeting within 0.2 s" in capsys.readouterr().out


async def test_doctor_waits_for_silent_name_servers_no_longer(tmp_path, monkeypatch, capsys):
    """They are named as what is silent; a library that asks each of them again and again is not waited for."""

    answered = threading.Event()
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    async with sandbox_with(tmp_path) as sandbox:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30) and [])
        status = await asyncio.wait_for(doctor.examine(configuration(sandbox)), 10)
    answered.set()

    assert status == 1
    assert "localhost cannot be resolved: the name servers are silent" in capsys.readouterr().out


async def test_no_greeting_reaches_the_terminal_as_it_is(tmp_path):
    """Before TLS anybody may be what answers: `doctor` and `send` show what controls a terminal, and do not do it."""

    async def greet(reader, writer):
        writer.write(b"554 \x1b[31mno\x1b]0;owned\x07\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = write_config(
            tmp_path / "relay.yaml",
            upstream={"host": "127.0.0.1", "ports": [port]},
            credentials={"default": {"api_key": KEY}},
        )
        diagnosis = await run("doctor", "--config", config)
        sent = await run("send", "--to", "b@example.net", "--via", f"127.0.0.1:{port}")

    for status, out, err in (diagnosis, sent):
        assert status == 1
        assert r"554 \x1b[31mno\x1b]0;owned\x07" in out
        assert "\x1b" not in out + err


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("no-starttls", "STARTTLS is not offered"),
        ("wrong-name", "certificate does not verify"),
        ("expired", "clock is right"),
    ],
)
async def test_doctor_with_every_port_bad(tmp_path, mode, words):
    """Which port, and why."""
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode=mode), Port(mode="drop")]) as sandbox:
        status, out, _ = await run("doctor", "--config", config_for(sandbox, tmp_path))

    assert status == 1
    assert words in out
    assert "closed before the greeting" in out
    assert "mail would not flow" in out


def with_https(sandbox, tmp_path, api: str = "api/v1", **credentials) -> str:
    """The configuration file of a relay that may use HTTPS."""
    path = config_for(sandbox, tmp_path, **credentials)
    url = f"https://localhost:{sandbox.http_address[1]}/{api}"
    config = yaml.safe_load(Path(path).read_text())
    config["upstream"]["http"] = {"enabled": True, "url": url}
    return write_config(Path(path), **config)


async def test_doctor_proves_the_logins_that_mail_travels_under(tmp_path, capsys):
    """A key that is good for one subaccount alone is no fault; a subaccount that is none is one."""
    fixed = [{"name": f"s{number}", "match": {"login": f"s{number}"}, "subaccount": number} for number in (5, 6)]
    async with sandbox_with(tmp_path) as sandbox:
        sandbox.login = lambda user, key: Login(user, key, 5) if user.endswith("=5") else None
        good = await doctor.examine(configuration(sandbox, identities=fixed[:1]))
        good_out = capsys.readouterr().out
        both_bad = await doctor.examine(configuration(sandbox, identities=fixed[1:]))
        both_bad_out = capsys.readouterr().out
        sandbox.login = lambda user, key: None if user.endswith("=6") else Login(user, key, None)
        bad = await doctor.examine(configuration(sandbox, identities=[*fixed, {"name": "default"}]))
        bad_out = capsys.readouterr().out

    assert (good, both_bad, bad) == (0, 1, 1)
    assert "ok       AUTH default accepted as SMTP_Injection:X-MSYS-SUBACCOUNT=5 on port" in good_out
    assert "accepted as SMTP_Injection on" not in good_out
    assert "Send via SMTP" in both_bad_out
    assert "accepted as SMTP_Injection on" in bad_out
    assert "FAULT    AUTH default as SMTP_Injection:X-MSYS-SUBACCOUNT=6: 535 5.7.8" in bad_out
    assert "the key itself is good: is 6 a subaccount of its account" in bad_out


async def test_doctor_tries_few_of_many_logins(tmp_path, capsys):
    many = [{"name": f"s{number}", "match": {"login": f"s{number}"}, "subaccount": number} for number in range(1, 26)]
    async with sandbox_with(tmp_path) as sandbox:
        status = await doctor.examine(configuration(sandbox, identities=many))

    out = capsys.readouterr().out
    assert status == 0
    assert (out.count("accepted as"), "AUTH default 15 more logins of it are not tried" in out) == (10, True)


async def test_doctor_of_a_starttls_that_is_refused(tmp_path, capsys):
    """SparkPost has TLS always: who answers 454 is somebody else."""
    async with sandbox_with(tmp_path, ports=[Port(mode="refuse-starttls")]) as sandbox:
        status = await doctor.examine(configuration(sandbox))

    out = capsys.readouterr().out
    assert status == 1
    assert "454" in out
    assert "a mail proxy or an antivirus between here and SparkPost may refuse it" in out
    assert "asks to be left alone" not in out


@pytest.mark.parametrize(
    ("status_line", "body", "of_a_proxy"),
    [
        ("200 OK", "<html>Log in to the guest network</html>", True),
        ("302 Found", "", True),
        ("403 Forbidden", "<html>blocked by policy</html>", True),
        ("407 Proxy Authentication Required", '{"errors": [{"message": "who are you?"}]}', True),
        ("511 Network Authentication Required", "<html></html>", True),
        ("429 Too Many Requests", "", False),
        ("502 Bad Gateway", "<html></html>", False),
        ("401 Unauthorized", '{"errors": [{"message": "Unauthorized."}]}', False),
    ],
)
async def test_doctor_knows_who_answers_in_the_place_of_the_api(tmp_path, capsys, status_line, body, of_a_proxy):
    """Neither the key nor SparkPost is to blame for what a login page or a filter says."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status_line}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    tls = starttls(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls["certificate"], tls["key"])
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server,
    ):
        both = tmp_path / "both.pem"
        both.write_text(sandbox.ca_file.read_text() + (tmp_path / "issuer.pem").read_text())
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/api/v1"
        upstream = {"tls": {"ca_file": str(both)}, "http": {"enabled": True, "url": url}}
        await doctor.examine(configuration(sandbox, upstream=upstream))

    out = capsys.readouterr().out
    assert f"HTTP {status_line[:3]}" in out
    assert ("a proxy, a filter or a login page of this network in its place?" in out) is of_a_proxy


async def test_doctor_asks_over_https_and_sends_nothing(tmp_path):
    """Each key is shown to its API too: what it says is only a warning while SMTP works; no key is shown."""
    second = "f" * 40
    rules = {"api_keys": {KEY: None, second: None}, "smtp_only_keys": [second]}
    async with sandbox_with(tmp_path / "tls", http=HttpPort(), **rules) as sandbox:
        config = with_https(sandbox, tmp_path, billing=second)
        status, out, _ = await run("doctor", "--config", config)
        api = f"https://localhost:{sandbox.http_address[1]}"

    assert status == 0, out
    assert f"ok       HTTPS default {api}: the key may send" in out
    assert f"warning  HTTPS billing {api}: HTTP 403 1100 permission denied" in out
    assert "Transmissions: Read/Write" in out
    assert sandbox.accepted == []
    assert KEY not in out
    assert second not in out


async def test_doctor_of_a_host_where_only_https_works(tmp_path):
    """Mail would flow for the key that may; where it is the only way, what it refuses is a fault."""
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")], http=HttpPort()) as sandbox:
        good, good_out, _ = await run("doctor", "--config", with_https(sandbox, tmp_path))
        config = with_https(sandbox, tmp_path, billing="wrong-key-0123456789")
        bad, bad_out, _ = await run("doctor", "--config", config)

    assert good == 0, good_out
    assert "warning  port" in good_out
    assert "warning  AUTH default not tried: no port of SparkPost's can be used; its mail goes by HTTPS" in good_out
    assert "mail would flow" in good_out
    assert bad == 1
    assert "FAULT    AUTH billing not tried" in bad_out
    assert "FAULT    HTTPS billing" in bad_out
    assert "another region than upstream.http.url" in bad_out
    assert "wrong-key" not in bad_out


async def test_doctor_knows_that_not_now_is_not_gone_round(tmp_path):
    """A 421 greeting: the relay does not use HTTPS then, however good it is."""
    async with sandbox_with(tmp_path / "tls", ports=[Port(mode="tempfail-banner")], http=HttpPort()) as sandbox:
        status, out, _ = await run("doctor", "--config", with_https(sandbox, tmp_path))

    assert status == 1
    assert "FAULT    AUTH default not tried" in out
    assert "ok       HTTPS default" in out


async def test_doctor_finds_a_wrong_path(tmp_path):
    """The host is right, and its API is elsewhere."""
    async with sandbox_with(tmp_path / "tls", http=HttpPort()) as sandbox:
        status, out, _ = await run("doctor", "--config", with_https(sandbox, tmp_path, "api/v2"))

    assert status == 0, out
    assert "HTTP 404 1600" in out
    assert "check the path of upstream.http.url" in out


async def test_doctor_finds_an_api_that_is_not_there(tmp_path):
    """Neither connection nor certificate is taken on trust."""
    async with sandbox_with(tmp_path / "tls", http=HttpPort(mode="wrong-name")) as sandbox:
        status, out, _ = await run("doctor", "--config", with_https(sandbox, tmp_path))

    assert status == 0, out
    assert "warning  HTTPS default" in out
    assert "certificate of localhost does not verify" in out
    assert "check upstream.http.url" in out


async def test_send_shows_the_dialogue(tmp_path):
    """0 when it was accepted, 1 with the reason when not."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        via = f"127.0.0.1:{port_of(relay)}"
        good = await run("send", "--to", "b@example.net", "--from", "a@example.com", "--via", via)
        bad = await run("send", "--to", "550-5.1.1@example.net", "--from", "a@example.com", "--via", via)
    with socket.socket() as held:  # a port that nobody listens on, and nobody else gets
        held.bind(("127.0.0.1", 0))
        nobody = await run("send", "--to", "b@example.net", "--via", f"127.0.0.1:{held.getsockname()[1]}")

    assert good[0] == 0
    assert f"<- 250 2.0.0 OK {sandbox.accepted[0].token}" in good[1]
    assert bad[0] == 1
    assert "not accepted: 550 5.1.1" in bad[1]
    assert nobody[0] == 1
    assert "Does the relay listen there?" in nobody[1]


async def test_send_to_a_port_that_hangs_up():
    """As a listener with implicit TLS does in the end: what it may be is said."""

    async def hang_up(_reader, writer):
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        via = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        status, out, _ = await run("send", "--to", "b@example.net", "--via", via)

    assert status == 1
    assert f"{via}: no greeting came" in out
    assert "tls.mode: implicit" in out


def test_send_to_a_port_that_says_nothing(capsys, monkeypatch):
    """It is not waited for as long as SparkPost may take for a message, and not said to have hung up."""
    monkeypatch.setattr("relay.send.GREETING_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel alone takes the connection
        via = f"127.0.0.1:{server.getsockname()[1]}"
        status = send_test_message(to="b@example.net", mail_from="a@example.com", via=via, login=None, password=None)

    assert status == 1
    assert capsys.readouterr().out.startswith(f"{via}: connecting\n{via}: no greeting came. ")


def test_send_waits_longer_once_it_is_greeted(capsys, monkeypatch):
    """What is waited for then may be SparkPost's answer."""
    monkeypatch.setattr("relay.send.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        via = f"127.0.0.1:{server.getsockname()[1]}"

        def greet():
            with server.accept()[0] as client:
                client.sendall(b"220 relay\r\n")
                while client.recv(1024):
                    pass

        with ThreadPoolExecutor() as pool:
            greeted = pool.submit(greet)
            status = send_test_message(
                to="b@example.net", mail_from="a@example.com", via=via, login=None, password=None
            )
            greeted.result(10)

    assert status == 1
    assert "-> ehlo" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["a@example.com, b@example.com", "a@example.com\r\nBcc: b@example.com", " ", "(c)"])
@pytest.mark.parametrize("option", ["to", "mail_from"])
def test_send_wants_one_address(capsys, option, address):
    """Else `accepted` might be said of one of two recipients; what is no header is no traceback."""
    given = {"to": "b@example.net", "mail_from": "a@example.com"} | {option: address}

    assert send_test_message(**given, via="192.0.2.1:25", login=None, password=None) == 1
    assert capsys.readouterr().out.endswith(f"{address!r}: one address is expected, for example you@example.com\n")


@pytest.mark.parametrize(
    "via", ["localhost", ":25", "unix:", "a..b:25", f"{'x' * 64}.test:25", f"h:{'1' * 5000}", "h:٢٥"]
)
def test_send_to_what_is_no_place(capsys, via):
    """The form is said, and there is no traceback."""
    assert send_test_message(to="b@example.net", mail_from="a@example.com", via=via, login=None, password=None) == 1
    assert capsys.readouterr().out.endswith(
        f"--via {via}: HOST:PORT is expected, for example localhost:2525, or unix:/path\n"
    )


def test_send_by_a_path_that_is_no_text(capsys):
    """Octets outside UTF-8 are shown, and are no traceback."""
    via = os.fsdecode(b"unix:/nowhere/\xff.sock")

    assert send_test_message(to="b@example.net", mail_from="a@example.com", via=via, login=None, password=None) == 1
    assert r"unix:/nowhere/\udcff.sock: No such file or directory. " in capsys.readouterr().out


async def test_send_to_a_port_whose_starttls_is_none():
    """That is not a question of who listens."""

    async def converse(reader, writer):
        writer.write(b"220 relay\r\n")
        await reader.readline()
        writer.write(b"250-relay\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        await reader.read(1)
        writer.write(b"500 what?\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        via = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        status, out, _ = await run("send", "--to", "b@example.net", "--via", via)

    assert status == 1
    assert f"{via}: no TLS could be agreed on: " in out
    assert "Does the relay listen there?" not in out


@pytest.mark.parametrize(("sender", "domain"), [("App <a@example.com>", "example.com"), ("<>", socket.gethostname())])
async def test_send_names_its_message_well(tmp_path, sender, domain):
    """The Message-ID is one whatever form the sender is given in."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        via = f"127.0.0.1:{port_of(relay)}"
        status, _, _ = await run("send", "--to", "You <b@example.net>", "--from", sender, "--via", via)

    assert status == 0
    assert f"@{domain}>\r\n".encode() in sandbox.accepted[0].content.partition(b"Message-ID: <")[2]
    assert sandbox.accepted[0].recipients == ("b@example.net",)


async def test_send_never_shows_the_password():
    """Nor where it goes in a line of its own, after a 334: smtplib tries AUTH LOGIN when AUTH PLAIN has failed."""
    replies = {"EHLO": "250-relay\r\n250 AUTH LOGIN", "AUTH": "334 UGFzc3dvcmQ6", "QUIT": "221 bye"}

    async def converse(reader, writer):
        writer.write(b"220 relay\r\n")
        while line := await reader.readline():
            reply = replies.get(line.decode().split()[0].upper(), "535 5.7.8 user name or password is wrong")
            writer.write(f"{reply}\r\n".encode())
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        via = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        status, out, _ = await run(
            "send", "--to", "b@example.net", "--via", via, "--login", "app", text="correct-horse\n"
        )

    assert status == 1
    assert "not accepted: 535 5.7.8" in out
    assert base64.b64encode(b"correct-horse").decode() not in out
    assert "correct-horse" not in out
    assert out.count("-> AUTH ********") == out.count("-> ********") == 1


async def test_send_logs_in_with_what_is_not_ascii(tmp_path):
    """As the relay takes it: in UTF-8."""
    app = {"name": "app", "match": {"login": "jürgen"}, "password": "pässwort"}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, identities=[app]) as relay:
        via = f"127.0.0.1:{port_of(relay)}"
        status, out, err = await run(
            "send", "--to", "b@example.net", "--via", via, "--login", "jürgen", text="pässwort\n"
        )

    assert (status, "Traceback" in err) == (0, False)
    assert "<- 235 2.7.0" in out


@pytest.mark.parametrize("trusted", [True, False])
async def test_send_off_this_host_logs_in_where_the_certificate_verifies(tmp_path, monkeypatch, capsys, trusted):
    """Loopback passes for another host here."""
    monkeypatch.setattr("relay.send._stays_here", lambda _: False)
    app = {"name": "app", "match": {"login": "app"}, "password": "correct-horse"}
    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with (
        sandbox_with(tmp_path / "sandbox") as sandbox,
        relay_to(sandbox, identities=[app], listeners=listeners) as relay,
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "issuer.pem" if trusted else sandbox.ca_file))
        via = f"localhost:{port_of(relay)}"
        parameters = {"to": "b@example.net", "mail_from": "a@example.com", "login": "app", "password": "correct-horse"}
        status = await asyncio.to_thread(send_test_message, via=via, **parameters)

    out = capsys.readouterr().out
    assert (status, len(sandbox.accepted)) == ((0, 1) if trusted else (1, 0))
    assert ("-> AUTH" in out) is trusted
    refusal = f"{via}: the password was not sent: its certificate does not verify ("
    assert (refusal in out, "SSL_CERT_FILE=" in out) == (not trusted, not trusted)


async def test_send_off_this_host_without_starttls_keeps_the_password(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("relay.send._stays_here", lambda _: False)
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        via = f"127.0.0.1:{port_of(relay)}"
        parameters = {"to": "b@example.net", "mail_from": "a@example.com", "via": via}
        kept = await asyncio.to_thread(send_test_message, login="app", password="correct-horse", **parameters)
        kept_out = capsys.readouterr().out
        sent = await asyncio.to_thread(send_test_message, login=None, password=None, **parameters)

    assert (kept, sent) == (1, 0)
    assert f"{via}: the password was not sent: it offers no STARTTLS" in kept_out
    assert "-> AUTH" not in kept_out


def test_send_knows_what_stays_on_this_host():
    def seen_from(address: str) -> socket.socket:
        return SimpleNamespace(family=socket.AF_INET6, getpeername=lambda: (address, 25))

    near, far = socket.socketpair()
    with near, far:
        assert _stays_here(near)
    assert all(map(_stays_here, map(seen_from, ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])))
    assert not any(map(_stays_here, map(seen_from, ["10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "2001:db8::1"])))


@contextlib.asynccontextmanager
async def sandbox_process(tmp_path, *arguments: str) -> AsyncIterator[dict[str, str]]:
    """The stand-in alone, as a process, and what it says when it has started: the last line of each kind."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", "sandbox", "--smtp", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        *["--api-key", KEY, "--tls-dir", str(tmp_path / "tls"), *arguments],
        stdout=asyncio.subprocess.PIPE,
        env=clean(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None
    said: dict[str, str] = {}
    try:
        while "stop" not in said:
            name, _, value = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().partition(" ")
            said[name] = value.strip()
        yield said
    finally:
        process.terminate()
        await process.wait()


def transmit(said: dict[str, str], content: dict) -> tuple[int, dict]:
    """What the stand-in's API answers to a transmission."""
    request = urllib.request.Request(
        f"{said['HTTPS']}/transmissions",
        json.dumps({"recipients": [{"address": "b@example.net"}], "content": content}).encode(),
        {"Authorization": KEY, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=said["CA"])) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_sandbox_knows_its_sending_domains(tmp_path):
    """And refuses others in SparkPost's words, over SMTP and HTTPS."""
    domains = ["--sending-domain", "shop.example.com", "--sending-domain", "Example.org"]
    async with sandbox_process(tmp_path, *domains) as said:
        port = int(said["listening"].rpartition(":")[2])
        elsewhere = SimpleNamespace(addresses=[("127.0.0.1", port)], ca_file=said["CA"])
        answers, statuses = [], []
        async with relay_to(elsewhere) as relay:
            for sender in ("a@shop.example.com", "a@example.org", "a@example.com"):
                to = ["--to", "b@example.net", "--via", f"127.0.0.1:{port_of(relay)}"]
                answers.append(await run("send", "--from", sender, *to))
                mime = f"From: {sender}\n\nx"
                statuses.append(await asyncio.to_thread(transmit, said, {"email_rfc822": mime}))

    assert said["domains"] == "shop.example.com, Example.org"
    assert [status for status, *_ in answers] == [0, 0, 1]
    assert "550 5.7.1 Unconfigured Sending Domain <example.com>" in answers[2][1]
    assert [status for status, _ in statuses] == [200, 200, 400]
    assert statuses[2][1]["errors"][0]["code"] == "7001"


@pytest.mark.parametrize("domain", ["", "a@example.com", "*.example.com", "a.example, b.example", "example.com."])
async def test_sandbox_wants_domains_that_are_some(domain):
    status, out, _ = await run("sandbox", "--smtp", "127.0.0.1:0", "--sending-domain", domain)

    assert (status, out) == (
        64,
        f"--sending-domain {domain!r}: one domain is expected, for example shop.example.com; may repeat\n",
    )


async def test_sandbox_stores_messages(tmp_path):
    """The stand-in alone, as a process: it says where it listens, and writes what it accepts."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", "sandbox", "--smtp", "127.0.0.1:0", "--api-key", KEY],
        *["--tls-dir", str(tmp_path / "tls"), "--store", str(tmp_path / "store")],
        stdout=asyncio.subprocess.PIPE,
        env=clean(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None
    said = []
    while not said or not said[-1].startswith("stop with"):
        said.append((await asyncio.wait_for(process.stdout.readline(), 20)).decode())
    port = int(said[0].rpartition(":")[2])

    elsewhere = SimpleNamespace(addresses=[("127.0.0.1", port)], ca_file=tmp_path / "tls" / "ca.pem")
    async with relay_to(elsewhere) as relay:
        await run("send", "--to", "b@example.net", "--from", "a@example.com", "--via", f"127.0.0.1:{port_of(relay)}")
    process.terminate()
    await process.wait()
    facts = [json.loads(path.read_text()) for path in sorted((tmp_path / "store").glob("*.json"))]

    assert process.returncode == 0
    assert [(one["auth_user"], one["recipients"]) for one in facts] == [("SMTP_Injection", ["b@example.net"])]
    assert b"Subject: Test message" in (tmp_path / "store" / facts[0]["content"]).read_bytes()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_sandbox_speaks_https_too(tmp_path, host):
    """It says where, and takes a transmission there."""
    if host == "[::1]" and not ipv6_is_there():
        pytest.skip("no IPv6 here")
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", "sandbox", "--smtp", f"{host}:0", "--http", f"{host}:0"],
        *["--api-key", KEY, "--tls-dir", str(tmp_path / "tls"), "--store", str(tmp_path / "store")],
        stdout=asyncio.subprocess.PIPE,
        env=clean(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None
    said = []
    while not said or not said[-1].startswith("stop with"):
        said.append((await asyncio.wait_for(process.stdout.readline(), 20)).decode())
    url = next(line.split()[1] for line in said if line.startswith("HTTPS"))
    assert said[0].startswith(f"listening   {host}:")

    document = {"recipients": [{"address": "b@example.net"}], "content": {"email_rfc822": "From: a@example.com\n\nx"}}
    request = urllib.request.Request(
        f"{url}/transmissions",
        json.dumps(document).encode(),
        {"Authorization": KEY, "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=tmp_path / "tls" / "ca.pem")

    def post() -> int:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return answer.status

    status = await asyncio.to_thread(post)
    process.terminate()
    await process.wait()

    assert status == 200
    assert json.loads((tmp_path / "store" / "00000001.json").read_text())["via"] == "http"


async def test_sandbox_refuses_a_mode_that_it_does_not_have(tmp_path):
    """And names those that there are."""
    status, out, _ = await run("sandbox", "--smtp", "127.0.0.1:0", "--http", "127.0.0.1:0=oops")

    assert status == 64
    assert "there is no HTTP mode 'oops'; there are:" in out


async def test_sandbox_wants_a_key_that_is_one():
    """What is empty is a variable that nobody has set."""
    status, out, _ = await run("sandbox", "--smtp", "127.0.0.1:0", "--api-key", KEY, "--api-key", "")

    assert (status, out) == (64, "--api-key: an empty key is none; without the option one is made up\n")


@pytest.mark.parametrize("host", ["a..b", "sandbox.invalid", f"{'x' * 64}.test"])
async def test_sandbox_names_a_host_that_is_none(host):
    """Among several ports that matters."""
    status, out, _ = await run("sandbox", "--smtp", "127.0.0.1:0", "--smtp", f"{host}:0")

    assert status == 69
    assert f"cannot start: {host} is no address of this host" in out


async def test_explain_and_send_know_unix_sockets(tmp_path):
    """A user there has an identity and no address; what cannot be is said."""
    path = tmp_path / "smtp.sock"
    listeners = [{"address": f"unix:{path}"}, {"name": "tcp", "address": "127.0.0.1:0"}]
    identities = [{"name": "web", "match": {"uid": os.geteuid()}}, {"name": "rest", "match": {"listener": "tcp"}}]
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = write_config(
            tmp_path / "relay.yaml",
            listeners=listeners,
            identities=identities,
            upstream={
                "host": "localhost",
                "ports": [sandbox.addresses[0][1]],
                "tls": {"ca_file": str(sandbox.ca_file)},
            },
            credentials={"default": {"api_key": KEY}},
            spool={"url": "none"},
            admin={"address": None},
        )
        explained = [
            await run("explain", "--config", config, *arguments)
            for arguments in (
                ["--uid", str(os.geteuid())],
                ["--uid", "4711"],
                [],
                ["--uid", "0", "--listener", "tcp"],
                ["--client", "127.0.0.1"],
                ["--client", "::ffff:127.0.0.1", "--listener", "tcp"],
            )
        ]
        async with serving(config):
            sent = await run("send", "--to", "b@example.net", "--via", f"unix:{path}")
        gone = await run("send", "--to", "b@example.net", "--via", f"unix:{path}")

    assert [status for status, _, _ in explained] == [0, 1, 1, 1, 1, 0]
    said = [out for _, out, _ in explained]
    assert f"from uid {os.geteuid()} on listener local" in said[0]
    assert "identity    web" in said[0]
    assert f"the client's user id is not {os.geteuid()}" in said[1]
    assert "a user who is not named (--uid)" in said[2]
    assert "listener tcp is on TCP" in said[3]
    assert "who comes by a Unix socket has no address" in said[4]
    assert "from 127.0.0.1 on listener tcp" in said[5]
    assert sent[0] == 0
    assert "accepted" in sent[1]
    assert (gone[0], "Does the relay listen there?" in gone[1]) == (1, True)
