"""Behind a proxy: the client is who the header names, for everything; and nobody else may name anybody."""

import asyncio
import shutil
import ssl
import struct

import pytest
import trustme
from structlog.testing import capture_logs

from relay.ingress import proxied as proxied_module
from relay.ingress.proxy import SIGNATURE
from tests.support.running import port_of, relay_to, sandbox_with
from tests.support.wire import ENVELOPE, MESSAGE, starttls, talk

CLIENT = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"
STRANGER = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 25\r\n"
MAIL = ENVELOPE + MESSAGE + b"QUIT\r\n"
LISTENER = {"address": "127.0.0.1:0", "networks": ["192.0.2.0/24"], "proxy_protocol": ["127.0.0.1"]}


def version_2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


V6 = bytes.fromhex("20010db8000000000000000000000007")
HEADERS = {
    "version 1": (CLIENT, "192.0.2.7"),
    "version 1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", "2001:db8::7"),
    "version 2": (
        version_2(1, 0x11, bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 4711, 25)),
        "192.0.2.7",
    ),
    "version 2, IPv6, TLVs": (
        version_2(1, 0x21, V6 + V6 + struct.pack("!HH", 4711, 25) + b"\x03\0\x04abcd"),
        "2001:db8::7",
    ),
    "version 2, IPv4 as IPv6": (
        version_2(1, 0x21, (b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 7])) * 2 + struct.pack("!HH", 4711, 25)),
        "192.0.2.7",
    ),
}


@pytest.mark.parametrize(("header", "client"), HEADERS.values(), ids=HEADERS)
async def test_the_header_names_the_client(tmp_path, header, client):
    """For networks, identities, the log and the Received line."""
    listener = LISTENER | {"networks": ["192.0.2.0/24", "2001:db8::/32"]}
    identities = [
        {"name": "proxied", "match": {"network": "192.0.2.7"}, "subaccount": 7},
        {"name": "proxied-too", "match": {"network": "2001:db8::7"}, "subaccount": 7},
        {"name": "default"},
    ]
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, listeners=[listener], identities=identities) as relay,
    ):
        with capture_logs() as events:
            heard = await talk(port_of(relay), header + MAIL)

    assert b"250 2.0.0 OK " in heard
    assert sandbox.accepted[0].subaccount == 7
    tag = b"IPv6:" if ":" in client else b""
    assert b"Received: from c ([%b%b])\r\n" % (tag, client.encode()) in sandbox.accepted[0].content
    assert [event["peer"] for event in events if event["event"] == "link.open"] == [client]


async def test_a_header_octet_by_octet(tmp_path):
    """It may come in any pieces, and the client's commands behind it too."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER]) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        for octet in HEADERS["version 2"][0] + MAIL[:40]:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(MAIL[40:])
        heard = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert b"250 2.0.0 OK " in heard


async def test_a_client_outside_the_networks_is_refused_by_its_own_address(tmp_path):
    """That the proxy may connect says nothing about whom it brings."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER]) as relay:
        heard = await talk(port_of(relay), STRANGER)

    assert heard == b"554 5.7.1 203.0.113.9 is not in this listener's networks\r\n"
    assert sandbox.accepted == []


async def test_each_client_has_its_own_share_of_connections(tmp_path):
    """They are counted by the address in the header, not by the proxy's."""
    limits = {"connections_per_client": 1}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER], limits=limits) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(CLIENT)
        await reader.readuntil(b"220 ")
        same = await talk(port_of(relay), CLIENT)
        other = await talk(port_of(relay), CLIENT.replace(b"192.0.2.7", b"192.0.2.8") + MAIL)
        writer.close()

    assert same.startswith(b"421 4.7.0 more than 1 connections from 192.0.2.7")
    assert b"250 2.0.0 OK " in other


NOBODY = {
    "LOCAL": version_2(0, 0, b""),
    "UNSPEC": version_2(1, 0, b""),
    "UNIX": version_2(1, 0x31, b"/run/a".ljust(108, b"\0") * 2),
    "UNKNOWN": b"PROXY UNKNOWN\r\n",
}


@pytest.mark.parametrize("header", NOBODY.values(), ids=NOBODY)
async def test_a_header_that_names_nobody_leaves_the_proxys_own_address(tmp_path, header):
    """Health checks are served where the proxy is in the networks, and nowhere else."""
    serving = LISTENER | {"name": "serving", "networks": ["127.0.0.0/8"]}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER, serving]) as relay:
        refused = await talk(port_of(relay), header)
        served = await talk(port_of(relay, "serving"), header + b"QUIT\r\n")

    assert refused.startswith(b"554 5.7.1 127.0.0.1 is not in")
    assert served.splitlines()[-1] == b"221 2.0.0 bye"


@pytest.mark.parametrize(
    "octets", [MAIL, b"PROXY TCP4 nonsense\r\n" + MAIL, SIGNATURE + b"\x31\x11\x00\x00" + MAIL, b"\x16\x03\x01\x02\x00"]
)
async def test_a_listed_proxy_must_send_the_header(tmp_path, octets):
    """Without it nobody is served: whoever is behind the proxy would have its rights."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER]) as relay:
        with capture_logs() as events:
            try:
                heard = await talk(port_of(relay), octets, half_close=True)
            except ConnectionError:  # it closes with octets of ours unread
                heard = b""

    assert heard in (b"", b"421 4.3.5 a PROXY header is expected from this address\r\n")
    assert relay.metrics.registry.get_sample_value("sparkpost_relay_limits_total", {"limit": "proxy-header"}) == 1
    assert [event["peer"] for event in events if event["event"] == "link.no_header"] == ["127.0.0.1"]
    assert sandbox.accepted == []


@pytest.mark.parametrize("beginning", [b"", CLIENT[:20], SIGNATURE + b"\x21"])
async def test_a_header_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch, beginning):
    """A few seconds, however it began."""
    monkeypatch.setattr(proxied_module, "HEADER_SECONDS", 0.1)
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER]) as relay:
        heard = await talk(port_of(relay), beginning)

    assert heard == b"421 4.3.5 a PROXY header is expected from this address\r\n"


async def test_nobody_else_may_send_one(tmp_path):
    """From an address that is no proxy's it is a command that does not exist."""
    listener = LISTENER | {"networks": ["127.0.0.0/8"]}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[listener]) as relay:
        heard = await talk(port_of(relay), CLIENT + MAIL, source="127.0.0.2")

    assert heard.splitlines()[1] == b"500 5.5.2 command not recognised"
    assert b"Received: from c ([127.0.0.2])" in sandbox.accepted[0].content


async def test_a_connection_without_a_header_counts_and_ends_with_the_relay(tmp_path):
    """It takes a place of `limits.connections`, and keeps no relay from stopping."""
    limits = {"connections": 1}
    serving = {"name": "plain", "address": "127.0.0.1:0"}
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, listeners=[LISTENER, serving], limits=limits) as relay,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        async with asyncio.timeout(5):
            while not relay._connections.links:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        refused = await talk(port_of(relay, "plain"), b"")
        await asyncio.wait_for(relay.stop(), 5)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    assert refused.startswith(b"421 4.7.0 more than 1 connections")


@pytest.mark.parametrize("header", [CLIENT, HEADERS["version 2, IPv6, TLVs"][0]])
async def test_implicit_tls_comes_behind_the_header(tmp_path, header):
    """Header and ClientHello arrive in one packet, and each gets what is its own."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = {"mode": "implicit", "certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    listener = LISTENER | {"tls": tls, "networks": ["192.0.2.0/24", "2001:db8::/32"]}
    context = ssl.create_default_context()
    authority.configure_trust(context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=[listener]) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))

        async def through(act, *arguments):
            while True:
                try:
                    return act(*arguments)
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    octets = await asyncio.wait_for(reader.read(65536), 10)
                    incoming.write(octets) if octets else incoming.write_eof()

        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        writer.write(header + outgoing.read())
        await through(client.do_handshake)
        client.write(MAIL)
        writer.write(outgoing.read())
        heard = b""
        while b"221 2.0.0 bye" not in heard:
            heard += await through(client.read, 65536)
        writer.close()

    assert b"250 2.0.0 OK " in heard
    assert len(sandbox.accepted) == 1


async def test_starttls_behind_the_header(tmp_path):
    """STARTTLS is as without a proxy, and what followed it in clear still ends the session."""
    listener = LISTENER | {"tls": starttls(tmp_path)}
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=[listener]) as relay:
        heard = await talk(port_of(relay), CLIENT + b"EHLO c\r\nSTARTTLS\r\nEHLO evil\r\n")

    assert heard.splitlines()[-1].startswith(b"501 5.5.2 nothing may follow STARTTLS")


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
@pytest.mark.parametrize("version", ["1", "2"])
async def test_swaks_speaks_the_same_protocol(tmp_path, version):
    """Headers of somebody else's making."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=[LISTENER]) as relay:
        process = await asyncio.create_subprocess_exec(
            *["swaks", "--server", "127.0.0.1", "--port", str(port_of(relay)), "--from", "a@example.com"],
            *["--to", "b@example.net", "--helo", "client.example.com", "--proxy-version", version],
            *[
                "--proxy-family",
                "TCP4" if version == "1" else "AF_INET",
                "--proxy-source",
                "192.0.2.7",
                "--proxy-source-port",
                "4711",
            ],
            *["--proxy-dest", "198.51.100.1", "--proxy-dest-port", "25"],
            *(["--proxy-command", "PROXY", "--proxy-protocol", "STREAM"] if version == "2" else []),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        shown, _ = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0, shown.decode()
    assert b"([192.0.2.7])" in sandbox.accepted[0].content
