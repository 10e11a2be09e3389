"""The dialogue of the published transcript, and what may not be said in it."""

import asyncio
import re
import smtplib
import ssl
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sandbox import MODES, Direction, Rules, Session
from relay.sandbox.dialogue import Dialogue


def extensions(reply: str) -> list[str]:
    return [line[4:] for line in reply.split("\n")[1:]]


async def test_the_published_transcript(sandbox, connect):
    """Every reply of an ordinary delivery is the one that SparkPost's documentation shows."""
    async with sandbox() as box, connect(box) as client:
        assert re.match(r"220 2\.0\.0 smtp\.sparkpostmail\.com ESMTP ecelerity \S+ r\(\S+\) \S", await client.reply())
        clear = await client.say("EHLO client.example")
        assert re.match(r"250-\S+ says EHLO to 127\.0\.0\.1:\d+\n", clear)
        assert "smtp.sparkpostmail.com" not in clear
        assert sorted(extensions(clear)) == ["8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING", "STARTTLS"]
        assert await client.say("STARTTLS") == "220 2.0.0 continue"
        await client.shake_hands()
        secured = extensions(await client.say("EHLO client.example"))
        assert sorted(secured) == [
            "8BITMIME",
            "AUTH LOGIN PLAIN",
            "AUTH=LOGIN PLAIN",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
        ]
        assert await client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        assert await client.say("U01UUF9JbmplY3Rpb24=") == "334 UGFzc3dvcmQ6"
        assert await client.say("c2VjcmV0") == "235 2.0.0 Authed. Go on."
        assert await client.say("MAIL FROM:<a@example.com> BODY=8BITMIME") == "250 2.0.0 MAIL FROM accepted"
        assert await client.say("RCPT TO:<b@example.org>") == "250 2.0.0 RCPT TO accepted"
        assert await client.say("DATA") == r'354 3.0.0 continue.  finished with "\r\n.\r\n"'
        done = await client.say("Subject: x\r\n\r\n..dot\r\n.")
        assert re.fullmatch(r"250 2\.0\.0 OK [0-9A-F]{2}/[0-9A-F]{2}-\d{5}-[0-9A-F]{8}", done)
        assert re.fullmatch(r"221 2\.3\.0 \S+ closing connection", await client.say("QUIT"))
        assert await client.ended()

    (message,) = box.accepted
    assert message.content == b"Subject: x\r\n\r\n.dot\r\n"
    assert (message.reverse_path, message.recipients) == ("a@example.com", ("b@example.org",))
    assert message.mail_parameters == {"BODY": "8BITMIME"}
    assert (message.auth_user, message.api_key, message.subaccount) == ("SMTP_Injection", "secret", None)
    assert (message.port, message.connection) == (box.addresses[0][1], 1)
    assert done.endswith(message.token)
    assert not message.ambiguous


async def test_a_standard_client_delivers(sandbox):
    """smtplib, with a verifying context, needs no special care; the 250s of two messages differ."""

    def deliver() -> None:
        with smtplib.SMTP(*box.addresses[0], timeout=5) as smtp:
            smtp.starttls(context=ssl.create_default_context(cafile=box.ca_file))
            smtp.login("SMTP_Injection", "secret")
            for _ in range(2):
                smtp.sendmail("a@example.com", ["b@example.org", "c@example.org"], "Subject: x\n\nx\n")

    async with sandbox() as box:
        await asyncio.to_thread(deliver)
        messages = await box.wait_for(2)

    assert [message.recipients for message in messages] == [("b@example.org", "c@example.org")] * 2
    assert messages[0].token != messages[1].token
    assert box.sessions[0].messages == 2


async def test_extensions_come_in_any_order(sandbox, connect):
    """Two connections seldom see the extensions in the same order."""
    orders = set()
    async with sandbox(max_connections=20) as box:
        for _ in range(15):
            async with connect(box) as client:
                orders.add(tuple(extensions(await client.starttls())))

    assert len(orders) > 1


async def test_pipelined_commands_are_answered_in_order(sandbox, connect):
    """A whole session in one packet is answered in one flight, command by command."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.send(
            b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
            b"Subject: 1\r\n\r\nx\r\n.\r\nMAIL FROM:<c@example.com>\r\nRCPT TO:<d@example.org>\r\nDATA\r\n.\r\nQUIT\r\n"
        )
        codes = [(await client.reply())[:3] for _ in range(11)]

    assert codes == ["250", "250", "501", "250", "354", "250", "250", "250", "354", "250", "221"]
    assert [message.recipients for message in box.accepted] == [
        ("a@example.org", "b@example.org"),
        ("d@example.org",),
    ]
    assert box.accepted[0].reverse_path == ""
    assert box.accepted[1].content == b""
    assert len([e for e in box.sessions[0].transcript if b"MAIL" in e.octets and e.direction is Direction.CLIENT]) == 1


async def test_one_octet_at_a_time(sandbox, connect):
    """Chunks do not matter: the same octets one by one are the same message."""
    octets = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nS: x\r\n\r\n..\r\n..x\r\n.\r\n"
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        for octet in octets:
            await client.send(bytes([octet]))
        codes = [(await client.reply())[:3] for _ in range(4)]

    assert codes == ["250", "250", "354", "250"]
    assert box.accepted[0].content == b"S: x\r\n\r\n.\r\n.x\r\n"


@pytest.mark.parametrize(
    "variant", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n.\0\r\n", b"\n\n.\r\n", b"\r\n. \r\n"]
)
async def test_only_one_thing_ends_content(sandbox, connect, variant):
    """What looks like an end of data but is not CRLF.CRLF is content: nothing behind it is taken for a command."""
    async with sandbox(check_line_ends=False) as box, connect(box) as client:
        await client.ready()
        reply = await client.mail(content=b"Subject: x\r\n\r\nx" + variant + b"MAIL FROM:<evil@example.com>\r\n")

    assert reply.startswith("250 ")
    assert b"MAIL FROM:<evil@example.com>\r\n" in box.accepted[0].content


@pytest.mark.parametrize(
    "argument",
    [
        "MAIL FROM: <a@example.com>",
        "MAIL FROM:<a@example.com",
        "MAIL FROM:a@example.com",
        "MAIL FROM:<Ann <a@example.com>>",
        "MAIL FROM:<a b@example.com>",
        "MAIL FROM:<a>",
        "MAIL TO:<a@example.com>",
        "MAIL",
        "MAIL FROM:<ä@example.com>",
    ],
)
async def test_malformed_reverse_path(sandbox, connect, argument):
    """A reverse-path that is not exactly one is refused with the text seen in users' logs."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()

        assert await client.say(argument) == "501 5.5.2 syntax error MAIL FROM"


@pytest.mark.parametrize(
    "argument", ["RCPT TO: <a@example.com>", "RCPT TO:<>", "RCPT TO:<a@>", "RCPT TO:<a@b c>", "RCPT"]
)
async def test_malformed_forward_path(sandbox, connect, argument):
    """The same for a forward-path, which may not be null either."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<a@example.com>")

        assert await client.say(argument) == "501 5.5.2 RCPT TO syntax error"


async def test_delivery_reports_are_not_offered(sandbox, connect):
    """A recipient's DSN parameters are refused, unless DSN is among the extensions."""
    for extensions, code in (((), "555 5.5.4 "), (("DSN",), "250 2.0.0 ")):
        async with sandbox(extensions=extensions) as box, connect(box) as client:
            await client.ready()
            await client.say("MAIL FROM:<>")
            assert (await client.say("RCPT TO:<a@example.org> NOTIFY=NEVER")).startswith(code)


@pytest.mark.parametrize("address", ['"a b"@example.com', "a@[127.0.0.1]", "a+b=c!d@example.com", "a..b@example.com"])
async def test_unusual_addresses(sandbox, connect, address):
    """Addresses that are legal, or common, pass as they came."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.mail(sender=address, to=address)

    assert (box.accepted[0].reverse_path, box.accepted[0].recipients) == (address, (address,))


@pytest.mark.parametrize(
    ("commands", "reply"),
    [
        (["MAIL FROM:<a@example.com>"], "550 5.5.1 RFC2821 HELO/EHLO needed"),
        (["EHLO"], "501 5.5.4 EHLO/HELO needs a name"),
        (["EHLO x", "DATA"], "503 5.5.1 DATA without RCPT TO"),
        (["EHLO x", "RCPT TO:<a@example.org>"], "503 5.5.1 RCPT TO without MAIL FROM"),
        (["EHLO x", "MAIL FROM:<>", "MAIL FROM:<>"], "503 5.5.1 MAIL FROM already given"),
        (["EHLO x", "MAIL FROM:<>", "RSET", "RCPT TO:<a@example.org>"], "503 5.5.1 RCPT TO without MAIL FROM"),
        (["EHLO x", "MAIL FROM:<> SIZE=1"], "555 5.5.4 unrecognized parameter SIZE"),
        (["HELO x", "MAIL FROM:<> BODY=8BITMIME"], "555 5.5.4 unrecognized parameter BODY"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<a@example.org>"], "550 5.7.1 relaying denied"),
        (["EHLO x", "AUTH LOGIN"], "530 5.7.0 Must issue a STARTTLS command first"),
        (["HELO "], "501 5.5.4 EHLO/HELO needs a name"),
        (["NOOP"], "250 2.0.0 OK"),
        (["BDAT 5 LAST"], "500 5.5.2 unrecognized command"),
        (["x" * 12_289], "500 5.5.2 line too long"),
    ],
)
async def test_out_of_order(sandbox, connect, commands, reply):
    """What may not be said here and now is refused, in clear text as in any other state."""
    async with sandbox() as box, connect(box) as client:
        await client.reply()
        replies = [await client.say(command) for command in commands]

    assert replies[-1] == reply


async def test_tls_begins_anew(sandbox, connect):
    """After the handshake the client must say EHLO again, and may not say STARTTLS again."""
    async with sandbox() as box, connect(box) as client:
        await client.reply()
        await client.say("EHLO x")
        await client.say("STARTTLS")
        await client.shake_hands()

        assert (await client.say("MAIL FROM:<>")).startswith("550 5.5.1 ")
        assert (await client.say("STARTTLS")) == "503 5.5.1 TLS already active"
    assert box.handshakes == 1
    assert box.sessions[0].tls in ("TLSv1.2", "TLSv1.3")


WHOLE_SESSION = (
    b"HELO x\r\nAUTH PLAIN AFNNVFBfSW5qZWN0aW9uAHNlY3JldA==\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
    b"RCPT TO:<>\r\nDATA\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<quota@example.org>\r\nDATA\r\n\r\n..\r\n...x\r\n.\r\n"
    b"NOOP\r\nQUIT\r\n"
)


@given(cuts=st.lists(st.integers(0, len(WHOLE_SESSION)), max_size=12))
def test_chunks_do_not_matter(cuts):
    """However a session is cut into packets, the replies and the messages are the same."""

    def converse(pieces):
        accepted = []
        session = Session(1, 587, tls="TLSv1.3")
        rules = Rules(api_keys={"secret": None})
        dialogue = Dialogue(rules, MODES["normal"], session, "[::1]:9", lambda: "token", accepted.append)
        replies = b""
        for piece in pieces:
            dialogue.receive(piece)
            while (answer := dialogue.next_answer()) is not None:
                replies += answer.reply
        return replies, [message.content for message in accepted]

    edges = [0, *sorted(cuts), len(WHOLE_SESSION)]
    whole = converse([WHOLE_SESSION])

    assert converse([WHOLE_SESSION[a:b] for a, b in pairwise(edges)]) == whole
    assert [line[:3] for line in whole[0].splitlines()] == [
        *(b"250", b"235", b"250", b"250", b"501", b"354", b"250"),
        *(b"250", b"250", b"354", b"550", b"250", b"221"),
    ]
    assert whole[1] == [b""]


async def test_nothing_is_pipelined_after_starttls(sandbox, connect):
    """A command in the packet of STARTTLS is an injection: it is refused and the connection ends."""
    async with sandbox() as box, connect(box) as client:
        await client.reply()
        await client.say("EHLO x")
        await client.send(b"STARTTLS\r\nEHLO evil\r\n")

        assert (await client.reply()).startswith("554 5.5.1 ")
        assert await client.ended()


@pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning")  # asking for TLS 1.1 is the point
async def test_old_tls_is_refused(sandbox, connect):
    """TLS 1.1 ends in the handshake, and the session says why."""
    async with sandbox() as box, connect(box) as client:
        await client.reply()
        await client.say("EHLO x")
        await client.say("STARTTLS")
        context = ssl.create_default_context(cafile=box.ca_file)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(OSError):
            await client.writer.start_tls(context, server_hostname="localhost")
        client.writer.transport.abort()
        await box.wait_closed()

    assert box.sessions[0].tls is None
    assert box.sessions[0].tls_failure
