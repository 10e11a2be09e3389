"""Who may see and do what over the admin server."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile

import pytest

from relay.sockets import peer_uid
from tests.support.admin import WITH_TOKEN, ask, keeping, tcp_of, unix_of
from tests.support.client import send
from tests.support.running import port_of, relay_to, sandbox_with

PUBLIC = ["/livez", "/readyz", "/healthz", "/metrics", "/api/v1/status"]
GUARDED = [
    ("GET", "/api/v1/messages"),
    ("GET", "/api/v1/messages/X"),
    ("GET", "/api/v1/messages/X/content"),
    ("GET", "/api/v1/endpoints"),
    ("GET", "/api/v1/credentials"),
    ("POST", "/api/v1/messages"),
    *(("POST", f"/api/v1/messages/X/{command}") for command in ("retry", "hold", "release", "delete")),
]


async def test_everybody_sees_health_metrics_and_status_and_nothing_else(tmp_path):
    """Over TCP, without a token."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        public = [await ask(tcp_of(relay), path) for path in PUBLIC]
        guarded = [await ask(tcp_of(relay), path, method) for method, path in GUARDED]

    assert [answer.status for answer in public] == [200] * len(PUBLIC)
    assert [answer.status for answer in guarded] == [401] * len(GUARDED)
    assert all(answer.headers["www-authenticate"] == "Bearer" for answer in guarded)
    assert "admin.token" in guarded[0].json["remedy"]


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        "Bearer ",
        "open-sesame-0123456789",
        "Basic open-sesame-0123456789",
        "Bearer OPEN-SESAME-0123456789",
        b"Bearer \xff\xfe",
    ],
)
async def test_a_wrong_token_opens_nothing(tmp_path, given):
    """Nor does the right one in another scheme or case."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        answer = await ask(tcp_of(relay), "/api/v1/messages", headers={"Authorization": given})

    assert answer.status == 401


async def test_the_token_opens_lists_content_and_actions(tmp_path):
    """`Authorization: Bearer TOKEN`, the scheme in any case (RFC 9110 §11.1)."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        await send(port_of(relay), "tempfail@example.net")
        where = tcp_of(relay)
        listed = await ask(where, "/api/v1/messages", headers={"authorization": WITH_TOKEN["Authorization"].lower()})
        (message,) = listed.json["messages"]
        content = await ask(where, f"/api/v1/messages/{message['id']}/content", headers=WITH_TOKEN)
        held = await ask(where, f"/api/v1/messages/{message['id']}/hold", "POST", WITH_TOKEN)

    assert content.body.endswith(b"\r\n\r\nhello\r\n")
    assert held.json == {"id": message["id"], "state": "held"}


async def test_without_a_configured_token_tcp_shows_no_mail(tmp_path):
    """Whatever is presented; the answer names both remedies."""
    sections = keeping(tmp_path, token=None)
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        answer = await ask(tcp_of(relay), "/api/v1/messages", headers={"Authorization": "Bearer "})

    assert answer.status == 403
    assert "admin.token" in answer.json["remedy"]
    assert "socket" in answer.json["remedy"]


async def test_the_relays_own_user_needs_no_token_on_the_socket(tmp_path):
    """The kernel says who is at the other end; the name in Host does not matter there."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        listed = await ask(unix_of(relay), "/api/v1/messages", headers={"Host": "whatever.example"})
        posted = await ask(unix_of(relay), "/api/v1/messages/X/hold", "POST")

    assert (listed.status, posted.status) == (200, 404)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_may_not_use_the_socket(tmp_path):
    """Even where an operator has opened its mode and the way to it, SO_PEERCRED decides."""
    code = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /livez HTTP/1.0\\r\\n\\r\\n'); print(s.recv(4000).decode())"
    )
    folder = tempfile.mkdtemp()  # unlike pytest's own folders, others may be let in
    os.chmod(folder, 0o755)
    path = f"{folder}/admin.sock"
    try:
        async with (
            sandbox_with(tmp_path / "tls") as sandbox,
            relay_to(sandbox, **keeping(tmp_path, socket=path)),
        ):
            os.chmod(path, 0o666)
            told = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
            )
    finally:
        os.rmdir(folder)

    assert "403 Forbidden" in told.stdout
    assert "user 65534 may not use this socket" in told.stdout


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9025", "[::1]:9025", "localhost", "LOCALHOST:1", "relay.test", "relay.test.:9025"]
)
async def test_its_own_names_are_taken(tmp_path, host):
    """An IP address, localhost, or the configured hostname, with any port."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        assert (await ask(tcp_of(relay), "/livez", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9025", "127.0.0.1.evil.example", "relay.test.evil", "-"]
)
async def test_a_page_that_points_a_name_here_gets_nothing(tmp_path, host):
    """DNS rebinding: the browser sends the attacker's name, and even with the token it is 421."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        answers = [
            await ask(tcp_of(relay), path, headers=WITH_TOKEN | {"Host": host})
            for path in ("/livez", "/api/v1/messages")
        ]

    assert [answer.status for answer in answers] == [421, 421]
    assert "relay.test" in answers[0].json["remedy"]


async def test_a_probe_of_http_1_0_without_host_is_answered(tmp_path):
    """No browser speaks so."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        host, _, port = tcp_of(relay).partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.0 200 OK")


async def test_every_answer_says_what_is_wrong_and_what_would_help(tmp_path):
    """Unknown paths, wrong methods, HEAD, octets that are no HTTP: answered in kind, and nothing is kept by anybody."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        where = tcp_of(relay)
        unknown = await ask(where, "/api/v2/status")
        method = await ask(where, "/metrics", "DELETE")
        action = await ask(unix_of(relay), "/api/v1/messages/X/explode", "POST")
        head = await ask(where, "/api/v1/status", "HEAD")
        host, _, port = where.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"EHLO client\r\n\r\n")
        gibberish = await reader.read()
        writer.close()

    assert (unknown.status, unknown.json["error"]) == (404, "there is nothing at /api/v2/status")
    assert (method.status, method.headers["allow"]) == (405, "GET, HEAD")
    assert action.status == 404
    assert (head.status, head.body) == (200, b"")
    assert gibberish.startswith(b"HTTP/1.0 400")
    assert unknown.headers["cache-control"] == "no-store"
    assert unknown.headers["server"] == "sparkpost-relay"


async def test_without_addresses_nothing_is_served(tmp_path):
    """`admin.address: null` and no spool: no server at all."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox) as relay:
        assert relay.admin.addresses == []


async def test_a_peer_on_a_socket_pair_is_known():
    """The kernel's word on who is at the other end."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.geteuid()
