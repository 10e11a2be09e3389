"""What the application hears, fault by fault, and that the ledger is right: accepted = delivered, or nothing was."""

import pytest

from relay.sandbox import Port
from tests.support.client import send
from tests.support.running import port_of, relay_to, sandbox_with


@pytest.mark.parametrize(
    ("recipient", "code", "text"),
    [
        ("b@example.net", 250, "2.0.0 OK "),
        ("550-5.1.1@example.net", 550, "5.1.1 "),
        ("451-4.3.0@example.net", 451, "4.3.0 "),
        ("tempfail@example.net", 451, "4."),
        ("permfail@example.net", 550, "5."),
        ("421-4.3.2@example.net", 451, "4."),
        ("550-5.7.1-after-dot@example.net", 550, "5.7.1 "),
        ("452-4.3.1-after-dot@example.net", 452, "4.3.1 "),
        ("503-5.5.1@example.net", 451, "4.3.5 "),
        ("530-5.7.0@example.net", 451, "4.3.5 "),
        ("quota@example.net", 451, "4.7.1 "),
        ("disconnect@example.net", 451, "4.4.1 "),
        ("disconnect-in-data@example.net", 451, "4.4.2 "),  # so short a content has left with its dot
        ("disconnect-after-dot@example.net", 451, "4.4.2 "),
        ("gibberish@example.net", 451, "4.4.1 "),
        ("endless-reply@example.net", 451, "4.4.1 "),
        ("huge-reply@example.net", 451, "4.4.1 "),
    ],
)
async def test_one_recipient(tmp_path, recipient, code, text):
    """SparkPost's own reply where it is about the message, ours where it is not; one try, never two."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard, words = await send(port_of(relay), recipient)

    assert (heard, words[: len(text)]) == (code, text), words
    certain = [one for one in sandbox.accepted if not one.ambiguous]
    assert len(certain) == (1 if code == 250 else 0)
    assert len(sandbox.accepted) <= 1


async def test_silence_after_the_dot_is_named(tmp_path):
    """451 4.4.2 says that a retry may make a second copy."""
    timeouts = {"timeouts": {"final_dot": "500ms"}}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, upstream=timeouts) as relay:
        code, text = await send(port_of(relay), "silent-after-dot@example.net")

    assert code == 451
    assert text.startswith("4.4.2 ")
    assert "may be delivered" in text


async def test_several_recipients_all_or_nothing(tmp_path):
    """Without a spool one refusal refuses the message: nothing is sent, and the answer names the address."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        mixed = await send(port_of(relay), "b@example.net", "550-5.1.1@example.net", "c@example.net")
        later = await send(port_of(relay), "550-5.1.1@example.net", "451-4.3.0@example.net")
        assert sandbox.accepted == []
        good = await send(port_of(relay), "b@example.net", "c@example.net")

    assert mixed[0] == 550
    assert "550-5.1.1@example.net" in mixed[1]
    assert later[0] == 451
    assert good[0] == 250
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net", "c@example.net")]


async def test_many_recipients_in_one_transaction(tmp_path):
    """250 recipients of one message: every one of them, once."""
    recipients = [f"r{number}@example.net" for number in range(250)]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        code, _ = await send(port_of(relay), *recipients)

    assert code == 250
    assert [recipient for one in sandbox.accepted for recipient in one.recipients] == recipients


async def test_who_is_named_twice_gets_one_copy(tmp_path):
    """SparkPost would make a message of each RCPT. The local part is its host's own affair, capitals included."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        code, _ = await send(
            port_of(relay), "b@example.net", "c@example.net", "b@EXAMPLE.net", "B@example.net", "c@example.net"
        )

    assert code == 250
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net", "c@example.net", "B@example.net")]


async def test_an_unconfigured_domain_gets_a_hint(tmp_path):
    """SparkPost's words, and what to do about them."""
    async with sandbox_with(tmp_path, sending_domains={"verified.example"}) as sandbox, relay_to(sandbox) as relay:
        code, text = await send(port_of(relay))

    assert code == 550
    assert text.startswith("5.7.1 Unconfigured Sending Domain <example.com>")
    assert "verified sending domain" in text


@pytest.mark.parametrize(
    "mode", ["421-at-ehlo", "421-at-auth", "421-at-mail", "421-at-rcpt", "421-at-data", "421-at-dot", "auth-454"]
)
async def test_421_at_each_phase_is_451(tmp_path, mode):
    """Not now, whenever it is said; and the next message finds a working relay."""
    async with sandbox_with(tmp_path, ports=[Port(mode=mode)]) as sandbox, relay_to(sandbox) as relay:
        code, text = await send(port_of(relay))

    assert code == 451, text
    assert sandbox.accepted == []


@pytest.mark.parametrize("mode", ["normal", "no-pipelining", "no-8bitmime"])
async def test_eight_bit_content(tmp_path, mode):
    """8-bit text passes as it is where 8BITMIME is offered, and readable where it is not."""
    text = "Grüße aus Köln\r\n"
    content = (
        "From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n\r\n{text}"
    ).encode()
    async with sandbox_with(tmp_path, ports=[Port(mode=mode)]) as sandbox, relay_to(sandbox) as relay:
        code, _ = await send(port_of(relay), content=content)

    import email

    assert code == 250
    received = sandbox.accepted[0].content
    assert received.isascii() == (mode == "no-8bitmime")
    assert email.message_from_bytes(received).get_payload(decode=True).decode() == text


async def test_a_dropped_idle_session_costs_nothing(tmp_path):
    """SparkPost closes an idle session; the next message goes out once, on a new one."""
    async with sandbox_with(tmp_path, idle_timeout=0.2) as sandbox, relay_to(sandbox) as relay:
        first = await send(port_of(relay))
        await sandbox.wait_closed()
        second = await send(port_of(relay))

    assert (first[0], second[0]) == (250, 250)
    assert len(sandbox.accepted) == 2


async def test_a_hundred_messages_a_connection(tmp_path):
    """No connection carries more, its successor is there in time, and SparkPost never has to say so."""
    async with sandbox_with(tmp_path, transcripts=False) as sandbox, relay_to(sandbox) as relay:
        for _ in range(105):
            assert (await send(port_of(relay)))[0] == 250

    carried = [session.messages for session in sandbox.sessions]
    assert (len(carried), sum(carried)) == (2, 105)
    assert max(carried) <= 100
