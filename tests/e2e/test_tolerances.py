"""What old and odd clients are forgiven: their mail arrives; each leniency is counted, and named once a day."""

import asyncio
import re
import smtplib
import ssl
import warnings

import pytest
from structlog.testing import capture_logs

from relay.explain import explain
from tests.support.running import configuration, port_of, relay_to, sandbox_with
from tests.support.wire import MESSAGE, starttls, talk

ODD = (
    b" ehlo localhost\r\nHELO old\r\nMAIL FROM : a@example.com\r\nRCPT TO: <b@example.net>\r\nDATA\r\n"
    b"From: a@example.com\r\n\r\nnul\0 \xe4 lone\rcr bare\nlf\r\n" + b"x" * 1200 + b"\r\n.\r\nQUIT\r\n"
)
KINDS = {
    *[
        "command-spacing",
        "helo-name",
        "helo-only",
        "no-brackets",
        "path-spacing",
        "nul",
        "eight-bit",
        "lone-cr",
        "bare-lf",
    ],
    *["long-line", "no-date", "no-message-id"],
}


def counted(relay) -> dict[str, float]:
    """tolerances_total, by kind."""
    samples = next(metric.samples for metric in relay.metrics.tolerances.collect())
    return {sample.labels["kind"]: sample.value for sample in samples}


async def test_everything_at_once(tmp_path):
    """One message with all that can be wrong: it arrives, and the log says what its sender should mend."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        with capture_logs() as events:
            heard = await talk(port_of(relay), ODD)
            again = await talk(port_of(relay), ODD)
            elsewhere = await talk(port_of(relay), ODD, source="127.0.0.2")

    assert all(b"250 2.0.0 OK " in one for one in (heard, again, elsewhere))
    assert set(counted(relay)) == KINDS
    assert all(count >= 3 for count in counted(relay).values())
    named = [(event["peer"], event["kind"]) for event in events if event["event"] == "tolerance"]
    assert sorted(named) == sorted((peer, kind) for peer in ("127.0.0.1", "127.0.0.2") for kind in KINDS)
    content = sandbox.accepted[0].content
    assert b"\0" not in content
    assert re.search(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000\r\n", content)
    assert re.search(rb"\r\nMessage-ID: <[0-9A-Z]{14}@relay\.test>\r\n", content)


async def test_an_orderly_client_is_forgiven_nothing(tmp_path):
    """There is nothing to forgive: verbs in small letters and trailing space are within the rules."""
    octets = (
        b"ehlo client.example.com \r\nmail from:<a@example.com> BODY=8BITMIME\r\nRcpt To:<b@example.net>\r\nDATA\r\n"
        b"DATE: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-Id : <1@example.com>\r\nFrom: a@example.com\r\n\r\n"
        b"\xe4\r\n.\r\nQUIT\r\n"
    )
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), octets)

    assert b"250 2.0.0 OK " in heard
    assert counted(relay) == {}
    assert b"Message-ID" not in sandbox.accepted[0].content


def _old_client(port: int, version: ssl.TLSVersion) -> str:
    """Send a message by STARTTLS with one version of TLS; which it was."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with smtplib.SMTP("127.0.0.1", port, "client.example.com", timeout=20) as client:
        client.starttls(context=context)
        client.sendmail("a@example.com", "b@example.net", b"From: a@example.com\r\n\r\nhello\r\n")
        return client.sock.version()


OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]


def _has(version: ssl.TLSVersion) -> bool:
    """Can this host's OpenSSL speak it at all, with both sides as lenient as they can be?"""
    return ssl.HAS_TLSv1 if version is ssl.TLSVersion.TLSv1 else ssl.HAS_TLSv1_1


@pytest.mark.parametrize("version", OLD)
async def test_old_tls_is_taken_where_a_listener_asks_for_it(tmp_path, version):
    """And counted."""
    if not _has(version):
        pytest.skip(f"this OpenSSL was built without {version.name}")
    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path) | {"legacy": True}}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        assert await asyncio.to_thread(_old_client, port_of(relay), version) in ("TLSv1", "TLSv1.1")
        modern = await asyncio.to_thread(_old_client, port_of(relay), ssl.TLSVersion.TLSv1_3)

    assert modern == "TLSv1.3"
    assert counted(relay)["old-tls"] == 1
    assert len(sandbox.accepted) == 2


@pytest.mark.parametrize("version", OLD)
async def test_old_tls_is_refused_elsewhere(tmp_path, version):
    """Without `tls.legacy` it begins with TLS 1.2."""
    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        with pytest.raises(OSError):
            await asyncio.to_thread(_old_client, port_of(relay), version)

    assert sandbox.accepted == []


async def test_a_client_hello_on_the_plain_port_is_named(tmp_path):
    """The log says what to change, and at which client."""
    hello = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        with capture_logs() as events:
            await talk(port_of(relay), hello.read(), half_close=True)

    assert counted(relay) == {"tls-on-plain-port": 1}
    refused = next(event for event in events if event["event"] == "tx.rejected")
    assert "choose STARTTLS or no encryption, or use an implicit TLS listener" in refused["reply"]


async def test_mail_without_a_header_section_gets_one_that_reads(tmp_path):
    """What is added stands above the text, and the text stays text."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        await talk(
            port_of(relay),
            b"HELO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n\r\n" + MESSAGE + b"QUIT\r\n",
        )

    assert re.search(rb"\r\nMessage-ID: <[^>]*>\r\n\r\nFrom: a@example.com\r\n", sandbox.accepted[0].content)


async def test_a_name_without_a_domain(tmp_path):
    """The postmaster is the relay's own, once, however he is written; of others nobody knows where they are."""
    sender = b"HELO c.example.com\r\nMAIL FROM:<a@example.com>\r\n"
    commands = b"RCPT TO:<root>\r\nRCPT TO:<Postmaster>\r\nRCPT TO:<postmaster>\r\nDATA\r\n"
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), sender + commands + MESSAGE + b"QUIT\r\n")

    assert b"501 5.1.3 bad recipient address: <root> has no domain" in heard
    assert b"250 2.0.0 OK " in heard
    assert [one.recipients for one in sandbox.accepted] == [("postmaster@relay.test",)]


async def test_names_get_the_domain_of_their_listener(tmp_path):
    """In the envelope and in the header, before it is asked who may send as whom; elsewhere they are refused."""
    sections = {
        "listeners": [
            {"address": "127.0.0.1:0", "origin": "example.com"},
            {"name": "strict", "address": "127.0.0.1:0"},
        ],
        "identities": [{"match": {"mail_from": "scanner@example.com"}, "senders": ["scanner@example.com"]}],
    }
    said = (
        b"EHLO c.example.com\r\nMAIL FROM:<scanner>\r\nRCPT TO:<root>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
        b"From: Scanner <scanner>\r\nTo: root, b@example.net\r\nSubject: root\r\n\r\nroot\r\n.\r\nQUIT\r\n"
    )
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, **sections) as relay:
        heard = await talk(port_of(relay), said)
        strict = await talk(port_of(relay, "strict"), said)
        asked = {"login": None, "mail_from": "scanner", "client": None, "listener": None, "header_from": "scanner"}
        text, passes = explain(configuration(sandbox, **sections), **asked)

    assert b"250 2.0.0 OK " in heard
    assert b"501 5.1.7 bad sender address: <scanner> has no domain" in strict
    (message,) = sandbox.accepted
    assert (message.reverse_path, message.recipients) == ("scanner@example.com", ("root@example.com", "b@example.net"))
    header = b"From: Scanner <scanner@example.com>\r\nTo: root@example.com, b@example.net\r\nSubject: root\r\n"
    assert header in message.content
    assert "no-domain" in counted(relay)
    assert passes
    assert "MAIL FROM:<scanner@example.com>" in text
