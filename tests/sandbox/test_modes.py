"""Every mode of a port, and fixed replies."""

import asyncio
import smtplib
import ssl
import time
from contextlib import asynccontextmanager

import pytest

from relay.sandbox import MODES, Direction, LoginAttempt, Port

TESTED = set()


@pytest.fixture
def on_port(sandbox, connect):
    """A function that starts a sandbox with one port of that mode, and connects to it."""

    @asynccontextmanager
    async def started(mode, **options):
        TESTED.add(mode)
        async with sandbox(ports=[Port(mode=mode)], **options) as box, connect(box) as client:
            yield client

    return started


async def test_silent(on_port):
    """The connection opens, and that is all."""
    async with on_port("silent") as client:
        await client.send(b"EHLO x\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.reader.read(1)


async def test_drop(on_port):
    """The connection ends before a word."""
    async with on_port("drop") as client:
        assert await client.ended()


async def test_gibberish(on_port):
    """The first line is no reply."""
    async with on_port("gibberish") as client:
        assert (await client.reader.readline()).startswith(b"\x00\xff")


async def test_endless_banner(on_port):
    """The banner goes on for as long as it is read."""
    async with on_port("endless-banner") as client:
        for _ in range(5_000):
            assert (await client.reader.readline()).startswith(b"250-")


@pytest.mark.parametrize(("mode", "code"), [("tempfail-banner", "421 4.3.2 "), ("permfail-banner", "554 5.3.2 ")])
async def test_refusing_banners(on_port, mode, code):
    """The banner refuses, and the connection ends."""
    async with on_port(mode) as client:
        assert (await client.reply()).startswith(code)
        assert await client.ended()


async def test_slow(on_port, sandbox, connect):
    """Every flight of replies is late, but a flight is only late once; the port may say how late."""
    async with sandbox(ports=[Port(mode="slow", delay=0.1)]) as box, connect(box) as client:
        began = time.monotonic()
        await client.reply()
        await client.send(b"EHLO x\r\nNOOP\r\nNOOP\r\nNOOP\r\n")
        for _ in range(4):
            await client.reply()

        assert 0.2 <= time.monotonic() - began < 0.35
    assert MODES["slow"].delay == 1
    TESTED.add("slow")


async def test_slow_banner(on_port):
    """The banner takes five seconds; here only that it does not come at once."""
    async with on_port("slow-banner") as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.reader.read(1)
    assert MODES["slow-banner"].at["BANNER"].delay == 5


async def test_no_starttls(on_port):
    """STARTTLS is neither offered nor known, so there is no way to log in."""
    async with on_port("no-starttls") as client:
        await client.reply()

        assert "STARTTLS" not in await client.say("EHLO x")
        assert await client.say("STARTTLS") == "500 5.5.2 unrecognized command"


async def test_refuse_starttls(on_port):
    """STARTTLS is offered and then refused for now."""
    async with on_port("refuse-starttls") as client:
        await client.reply()

        assert "STARTTLS" in await client.say("EHLO x")
        assert (await client.say("STARTTLS")).startswith("454 4.7.0 ")


@pytest.mark.parametrize("mode", ["wrong-name", "expired", "untrusted"])
async def test_certificates(on_port, mode):
    """A client that verifies ends the handshake; one that does not is served as ever."""
    reasons = {"wrong-name": "Hostname mismatch", "expired": "certificate has expired", "untrusted": "unable to get"}
    async with on_port(mode) as client:
        await client.reply()
        await client.say("EHLO x")
        await client.say("STARTTLS")
        with pytest.raises(ssl.SSLCertVerificationError, match=reasons[mode]):
            await client.shake_hands()
        client.writer.transport.abort()
        await client.box.wait_closed()

    assert client.box.handshakes == 0
    assert client.box.auth_attempts == []


async def test_handshake_drop(on_port):
    """The connection drops at the ClientHello."""
    async with on_port("handshake-drop") as client:
        await client.reply()
        await client.say("EHLO x")
        await client.say("STARTTLS")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await client.shake_hands()

    assert b"localhost" in client.box.sessions[0].said(Direction.CLIENT)


async def test_handshake_hang(on_port):
    """The ClientHello is never answered."""

    def shake_hands(host, port):
        with smtplib.SMTP(host, port, timeout=0.3) as smtp:
            try:
                smtp.starttls()
            finally:
                smtp.close()

    async with on_port("handshake-hang") as client:
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(shake_hands, *client.box.addresses[0])


@pytest.mark.parametrize(
    ("mode", "reply"), [("auth-454", "454 4.7.0 Temporary authentication failure"), ("auth-535", "535 5.7.8 Sorry.")]
)
async def test_refused_logins(on_port, mode, reply):
    """A right key is refused too, at the end of the exchange; the attempt is counted."""
    async with on_port(mode) as client:
        await client.starttls()

        assert await client.login() == reply
        assert await client.mail() == "550 5.7.1 relaying denied"
    assert client.box.auth_attempts == [LoginAttempt("SMTP_Injection", "LOGIN", accepted=False)]


async def test_no_8bitmime(on_port):
    """8BITMIME is not offered, and BODY not taken."""
    async with on_port("no-8bitmime") as client:
        assert "8BITMIME" not in await client.starttls()
        await client.login()
        assert (await client.say("MAIL FROM:<> BODY=8BITMIME")).startswith("555 5.5.4 ")


async def test_no_pipelining(on_port):
    """PIPELINING is not offered; a client that waits for replies is served, one that does not is cut off."""
    async with on_port("no-pipelining") as client:
        assert "PIPELINING" not in await client.starttls()
        await client.login()
        assert (await client.mail()).startswith("250 ")
        await client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n")

        assert (await client.reply()).startswith("554 5.5.1 ")
        assert await client.ended()


@pytest.mark.parametrize("verb", ["EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT"])
async def test_421_at_each_phase(on_port, verb):
    """All goes well until that phase, and after the 421 the connection ends."""
    async with on_port(f"421-at-{verb.lower()}") as client:
        await client.reply()
        said = [await client.say("EHLO x")]
        if not said[-1].startswith("421"):
            said.append(await client.say("STARTTLS"))
        if not said[-1].startswith("421"):
            await client.shake_hands()
            said.append(await client.say("EHLO x"))
            said.append(await client.login())
        if not said[-1].startswith("421"):
            said.append(await client.mail())

        assert said[-1] == "421 4.3.2 Reconfiguration in progress"
        assert await client.ended()
    assert client.box.accepted == []


@pytest.mark.parametrize(
    ("verb", "octets"),
    [("RCPT", b"451 4.3.0 grey\r\n"), ("DATA", b"451 4.3.0 grey\r\n"), ("DOT", b"451 4.3.0 grey\r\n")],
)
async def test_fixed_refusals(sandbox, connect, verb, octets):
    """A refusal given for a verb replaces it; taken back while the sandbox runs, all is as ever."""
    async with sandbox(replies={verb: octets}) as box, connect(box) as client:
        await client.ready()
        assert await client.mail() == "451 4.3.0 grey"
        del box.replies[verb]
        await client.say("RSET")
        assert (await client.mail()).startswith("250 ")


async def test_fixed_words(sandbox, connect):
    """Any other octets replace only the reply: the message is accepted."""
    async with sandbox(replies={"BANNER": b"220 hi\r\n", "MAIL": b"251 2.1.5 odd\r\n", "DOT": b"250 fine\r\n"}) as box:
        async with connect(box) as client:
            assert await client.reply() == "220 hi"
        async with connect(box) as client:
            await client.ready()
            assert await client.mail() == "250 fine"

    assert [message.ambiguous for message in box.accepted] == [False]


def test_unknown_mode():
    """A mode that does not exist is refused, with the list of those that do."""
    with pytest.raises(ValueError, match=r"no port mode 'sleepy'; there are: 421-at-auth, .*, untrusted, wrong-name"):
        Port(mode="sleepy")


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("127.0.0.1:2587", Port("127.0.0.1", 2587)),
        ("[::1]:0=silent", Port("::1", 0, "silent")),
        ("localhost:25=no-starttls", Port("localhost", 25, "no-starttls")),
    ],
)
def test_ports_in_words(text, port):
    """HOST:PORT and HOST:PORT=MODE are read."""
    assert Port.parse(text) == port


@pytest.mark.parametrize("text", ["", "2587", "localhost:", "localhost:x", "localhost:99999", "localhost:1=odd"])
def test_bad_ports_in_words(text):
    """Anything else is refused."""
    with pytest.raises(ValueError):
        Port.parse(text)


def test_every_mode_is_tested():
    """No mode is without a test above; `normal` is what all the other tests use."""
    assert set(MODES) == TESTED | {"normal"}
