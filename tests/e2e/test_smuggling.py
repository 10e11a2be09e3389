"""SMTP smuggling and STARTTLS injection, by the lists of the public scanners (smtpsmug; SEC Consult's SMTP Smuggling
Tools), in both directions: what the relay takes for the end of a message, and what octets it lets out.
"""

import asyncio
import itertools
import re

import pytest

from relay.sandbox import Direction
from tests.support.running import port_of, relay_to, sandbox_with
from tests.support.wire import ENVELOPE, starttls, talk

# Every way to write an end of data but the right one; smtpsmug's lflf, crcr, lfcr, crlf, lfcrlf, crlflf, crcrlf,
# crlfcr, nullbefore and nullafter are among them.
_ENDS = [b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r", b"\0\n", b"\r\0\n"]
VARIANTS = [
    *[before + b"." + after for before, after in itertools.product(_ENDS, _ENDS) if (before, after) != (b"\r\n",) * 2],
    *[b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n\0.\0\r\n", b"\n\0.\n", b"\r\n.\r\0\n", b"\r\n\x1a\r\n", b"\r\n.\x1a\r\n"],
    *[b"\r\n.\x0b", b"\r\n.\x0c", b"\r\n.\x85", b"\x85.\x85", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\t\r\n"],
]
VARIANTS.remove(b"\r\r\n.\r\n")  # a lone CR, and then the end of data as it should be
EVIL = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nFrom: evil@example.com\r\n\r\nsmuggled"
PLACES = {
    "in the body": b"From: a@example.com\r\n\r\none%b" + EVIL + b"\r\n.\r\n",
    "in the header": b"From: a@example.com\r\nSubject: x%b" + EVIL + b"\r\n.\r\n",
    "at the beginning": b"%b" + EVIL + b"\r\n.\r\n",
    "beside a long line": b"From: a@example.com\r\n\r\n" + b"x" * 2000 + b"\r\none%b" + EVIL + b"\r\n.\r\n",
    "beside 8-bit text": b"From: a@example.com\r\n\r\n\xe4\r\none%b" + EVIL + b"\r\n.\r\n",
    "in a large message": b"From: a@example.com\r\n\r\n" + b"filled\r\n" * 25_000 + b"one%b" + EVIL + b"\r\n.\r\n",
}


def let_out(sandbox) -> bytes:
    """Every octet that SparkPost has heard."""
    return b"".join(session.said(Direction.CLIENT) for session in sandbox.sessions)


@pytest.mark.parametrize("place", PLACES)
async def test_nothing_is_smuggled_in_a_crlf_session(tmp_path, place):
    """One message for one final dot, and upstream no line end but CRLF and no dot that another server could mistake."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        for variant in VARIANTS:
            heard = await talk(port_of(relay), ENVELOPE + PLACES[place] % variant + b"QUIT\r\n")
            assert heard.count(b"250 2.0.0 OK ") == 1, variant

    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",)] * len(VARIANTS)
    assert all(b"smuggled" in one.content for one in sandbox.accepted)
    out = let_out(sandbox)
    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", out) is None
    assert out.count(b"\r\n.\r\n") == len(VARIANTS)


async def test_nothing_is_smuggled_in_a_bare_lf_session(tmp_path):
    """There LF.LF is the end; no other is, CRLF.CRLF neither."""
    variants = [
        b"\r\n.\r\n",
        b"\n.\r\n",
        b"\r\n.\r",
        b"\r.\r",
        b"\r.\r\n",
        b"\n.\r",
        b"\n\0.\n",
        b"\n.\0\n",
        b"\r\n\0.\n",
    ]
    message = PLACES["in the body"].replace(b"\r\n", b"\n")
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        for variant in variants:
            heard = await talk(port_of(relay), ENVELOPE.replace(b"\r\n", b"\n") + message % variant + b"QUIT\n")
            assert heard.count(b"250 2.0.0 OK ") == 1, variant

    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",)] * len(variants)
    out = let_out(sandbox)
    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", out) is None
    assert out.count(b"\r\n.\r\n") == len(variants)


async def test_however_the_octets_are_cut(tmp_path):
    """A variant torn over several packets is no other."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        for variant in VARIANTS:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(ENVELOPE + b"From: a@example.com\r\n\r\none")
            await reader.readuntil(b"354 ")
            for octet in variant:
                writer.write(bytes([octet]))
                await asyncio.sleep(0)
            writer.write(EVIL + b"\r\n.\r\nQUIT\r\n")
            assert (await asyncio.wait_for(reader.read(), 20)).count(b"250 2.0.0 OK ") == 1
            writer.close()

    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", let_out(sandbox)) is None


async def test_pipelining_is_no_smuggling(tmp_path):
    """smtpsmug's pipelining: what follows the right end of data is commands, as was offered (RFC 2920)."""
    octets = ENVELOPE + b"From: a@example.com\r\n\r\none\r\n.\r\n" + EVIL + b"\r\n.\r\nQUIT\r\n"
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), octets)

    assert heard.count(b"250 2.0.0 OK ") == 2
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",), ("victim@example.com",)]


@pytest.mark.parametrize(
    "behind",
    [
        b"RSET\r\n",
        b"EHLO evil\r\nMAIL FROM:<evil@example.com>\r\n",
        b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\n",
        b"AUTH PLAIN AGFwcABwdw==\r\n",
        b"NOOP",
        b"\n",
        b"\0",
        b"\x16\x03\x01",
    ],
)
@pytest.mark.parametrize("command", [b"STARTTLS\r\n", b"starttls \r\n", b" STARTTLS\r\n"])
async def test_nothing_sent_behind_starttls_survives(tmp_path, command, behind):
    """CVE-2011-0411: the session ends, and the commands in clear are neither answered nor remembered."""
    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        heard = await talk(port_of(relay), b"EHLO client.example.com\r\n" + command + behind)

    assert heard.splitlines()[-1].startswith(b"501 5.5.2 nothing may follow STARTTLS")
    assert b"220 2.0.0 ready" not in heard


async def test_clear_text_in_place_of_the_handshake_ends_the_session(tmp_path):
    """Between the 220 and TLS nothing is read as a command."""
    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(b"EHLO client.example.com\r\nSTARTTLS\r\n")
        await reader.readuntil(b"220 2.0.0 ready to start TLS\r\n")
        writer.write(b"EHLO evil\r\nMAIL FROM:<evil@example.com>\r\n")
        heard = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert b"250" not in heard
