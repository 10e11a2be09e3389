"""Every magic address does what the table says."""

import asyncio
import time
from contextlib import suppress

import pytest

from relay.sandbox import MAGIC, faults
from relay.sandbox.answers import Then
from relay.sandbox.faults import Stage, fault_of

AT_RCPT = {
    "tempfail": "451 4.3.0 temporary failure",
    "permfail": "550 5.1.1 permanent failure",
    "550-5.7.1": "550 5.7.1 as the address asked",
    "452-4.5.3": "452 4.5.3 as the address asked",
    "TempFail+17": "451 4.3.0 temporary failure",
}
AT_DOT = {
    "tempfail-after-dot": "451 4.3.0 transaction failed",
    "permfail-after-dot": "550 5.7.1 message refused",
    "421-4.3.2-after-dot": "421 4.3.2 as the address asked",
    "550-5.6.0-after-dot": "550 5.6.0 as the address asked",
    "quota": "550 5.7.1 Exceed Sending Limit (daily)",
}


@pytest.mark.parametrize(("local_part", "reply"), AT_RCPT.items())
async def test_refusals_at_rcpt(sandbox, connect, local_part, reply):
    """The refused recipient is left out, the others of the same message are not."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<a@example.com>")

        assert await client.say(f"RCPT TO:<{local_part}@example.org>") == reply
        assert await client.say("RCPT TO:<good@example.org>") == "250 2.0.0 RCPT TO accepted"
        await client.say("DATA")
        assert (await client.say("S: x\r\n\r\nx\r\n.")).startswith("250 ")
    assert box.accepted[0].recipients == ("good@example.org",)


@pytest.mark.parametrize(("local_part", "reply"), AT_RCPT.items())
async def test_refusals_at_mail(sandbox, connect, local_part, reply):
    """A reverse-path asks for faults too, and gets them at MAIL."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()

        assert await client.mail(sender=f"{local_part}@example.com") == reply
        assert (await client.mail()).startswith("250 ")


@pytest.mark.parametrize(("local_part", "reply"), AT_DOT.items())
@pytest.mark.parametrize("role", ["to", "sender"])
async def test_refusals_at_the_dot(sandbox, connect, local_part, reply, role):
    """All goes well until the final dot; nothing is accepted."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()

        assert await client.mail(**{role: f"{local_part}@example.org"}) == reply
    assert box.accepted == []


async def test_refusal_at_data(sandbox, connect):
    """A refused DATA ends the transaction."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()

        assert await client.mail(to="451-4.3.0-at-data@example.org") == "451 4.3.0 as the address asked"
        assert (await client.mail()).startswith("250 ")


@pytest.mark.parametrize("local_part", ["421-4.3.2", "421-4.3.2-at-data", "421-4.3.2-after-dot"])
async def test_421_closes(sandbox, connect, local_part):
    """Wherever a 421 is said, the connection ends after it."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()

        assert await client.mail(to=f"{local_part}@example.org") == "421 4.3.2 as the address asked"
        assert await client.ended()


@pytest.mark.parametrize(
    ("local_part", "ambiguous"), [("disconnect", 0), ("disconnect-in-data", 0), ("disconnect-after-dot", 1)]
)
async def test_disconnects(sandbox, connect, local_part, ambiguous):
    """The connection drops at RCPT, in the content or after the dot; only then is the message accepted, unheard."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        with pytest.raises((EOFError, ConnectionError)):
            await client.mail(to=f"{local_part}@example.org")

    assert [message.ambiguous for message in box.accepted] == [True] * ambiguous


async def test_a_disconnect_does_not_wait_for_content(sandbox, connect):
    """Content that came in the packet of DATA counts as its first octet."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.send(b"MAIL FROM:<>\r\nRCPT TO:<disconnect-in-data@example.org>\r\nDATA\r\nx\r\n.\r\n")
        with suppress(EOFError, ConnectionError):
            while not (await client.reply()).startswith("354 "):
                pass

        assert await client.ended()
    assert box.accepted == []


@pytest.mark.parametrize(("local_part", "ambiguous"), [("silent", 0), ("silent-after-dot", 1)])
async def test_silence(sandbox, connect, local_part, ambiguous):
    """No answer comes, not even to other commands, and the connection stays, however long it is idle."""
    async with sandbox(idle_timeout=0.05) as box, connect(box) as client:
        await client.ready()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.mail(to=f"{local_part}@example.org")
        await client.send(b"NOOP\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.reader.read(1)

    assert [message.ambiguous for message in box.accepted] == [True] * ambiguous


@pytest.mark.parametrize("local_part", ["slow-200ms", "slow-dot-200ms"])
async def test_slowness(sandbox, connect, local_part):
    """The answer is the usual one, late, and what came meanwhile is answered after it; the idle clock stands still."""
    async with sandbox(idle_timeout=0.1) as box, connect(box) as client:
        await client.ready()
        began = time.monotonic()
        await client.send(b"MAIL FROM:<>\r\nRCPT TO:<%b@example.org>\r\nDATA\r\n" % local_part.encode())
        await client.send(b"S: x\r\n\r\nx\r\n.\r\nRSET\r\n")
        codes = [(await client.reply())[:3] for _ in range(5)]

    assert codes == ["250", "250", "354", "250", "250"]
    assert time.monotonic() - began >= 0.2
    assert [message.ambiguous for message in box.accepted] == [False]


def test_slowness_has_a_default():
    """Without a time it is three seconds."""
    assert fault_of("slow-dot")[1].delay == fault_of("slow")[1].delay == 3


@pytest.mark.parametrize(("local_part", "accepted"), [("gibberish", 0), ("gibberish-after-dot", 1)])
async def test_gibberish(sandbox, connect, local_part, accepted):
    """Octets come that no client can take for a reply."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<>")
        await client.send(b"RCPT TO:<%b@example.org>\r\n" % local_part.encode())
        if accepted:
            await client.reply()
            await client.say("DATA")
            await client.send(b"x\r\n.\r\n")

        assert (await client.reader.readline()).startswith(b"\x00\xff")
    assert [message.ambiguous for message in box.accepted] == [True] * accepted


@pytest.mark.parametrize(("local_part", "accepted"), [("endless-reply", 0), ("endless-reply-after-dot", 1)])
async def test_endless_reply(sandbox, connect, local_part, accepted):
    """A multi-line reply goes on and on while it is read, and costs the sandbox little while it is not."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<>")
        await client.send(b"RCPT TO:<%b@example.org>\r\n" % local_part.encode())
        if accepted:
            await client.reply()
            await client.say("DATA")
            await client.send(b"x\r\n.\r\n")
        for _ in range(10_000):
            assert (await client.reader.readline()) == b"250-and there is more to say\r\n"

    assert [message.ambiguous for message in box.accepted] == [True] * accepted


async def test_huge_reply(sandbox, connect):
    """One line of a mebibyte, with a reply code in front."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<>")
        await client.send(b"RCPT TO:<huge-reply@example.org>\r\n")
        octets = await client.reader.readexactly(1 << 20)

        assert octets.startswith(b"450 4.3.0 xxx")
        assert b"\n" not in octets


async def test_the_first_fault_of_a_stage_wins(sandbox, connect):
    """Two recipients that ask for different replies to the same dot get that of the first."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<>")
        await client.say("RCPT TO:<quota@example.org>")
        await client.say("RCPT TO:<tempfail-after-dot@example.org>")
        await client.say("DATA")

        assert (await client.say(".")).startswith("550 5.7.1 Exceed")


@pytest.mark.parametrize("local_part", ["", "info", "tempfails", "550-5.7", "250-2.0.0", "slow-dot-ms", "550-5.7.1-x"])
def test_ordinary_addresses(local_part):
    """What only resembles a magic address is none."""
    assert fault_of(local_part) is None


def test_the_table_is_documented():
    """Each row stands in the module's own table, and each form of it leads to its row."""
    for form, magic in MAGIC.items():
        assert f"    {form}" in faults.__doc__
        assert fault_of(form.removesuffix("@").replace("NNN-X.Y.Z", "450-4.2.1"))[0] is magic.stage
        assert magic.meaning
    assert {magic.stage for magic in MAGIC.values()} == set(Stage)
    assert fault_of("disconnect")[1].then is Then.DROP
