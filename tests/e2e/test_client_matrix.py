"""Clients that people really use, each message over each door, compared octet by octet at SparkPost's side.

What a client has produced is known from a server that only records (`reference`). What has arrived must be the same,
but for what the relay says it changes: its `Received` line on top, `Bcc` lines out.
"""

import asyncio
import re

import pytest

from tests.e2e.clients.catalogue import CLIENTS, Client
from tests.e2e.clients.job import MESSAGES, REFERENCE, WAYS, Message
from tests.e2e.clients.stage import Played, play
from tests.support.running import KEY

PROTOCOLS = {"plain": "ESMTP", "starttls": "ESMTPS", "implicit": "ESMTPS"}  # RFC 3848; with a login, and an A


@pytest.fixture(scope="module", params=enumerate(CLIENTS), ids=[client.name for client in CLIENTS])
def played(request) -> tuple[Client, int, Played]:
    """A client that has done its whole job, and the subaccount that was its own."""
    index, client = request.param
    reason = client.missing()
    if reason is not None:
        pytest.skip(reason)
    subaccount = 101 + index
    wanted = [message for message in MESSAGES if message.name not in client.refuses]
    return client, subaccount, asyncio.run(play(client.run, subaccount, client.ways, wanted))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
@pytest.mark.parametrize("way", WAYS)
def test_a_client_sends(played, way: str, message: Message):
    """It hears 250, and SparkPost's side has its content, its envelope and its identity, once and exactly."""
    client, subaccount, came = played
    if message.name in client.refuses:
        pytest.skip(client.refuses[message.name])
    if way not in client.ways:
        pytest.skip("it is for the relay's own host, and speaks neither TLS nor AUTH")
    door, login = WAYS[way]
    assert came.said.get((message.name, REFERENCE)) == "ok", came.output
    assert came.said.get((message.name, way)) == "ok", came.output
    [reference] = came.references[message.sender(REFERENCE)]
    [arrived] = came.arrived[message.sender(way)]

    assert not client.verbatim or reference.content == came.given[message.name]
    assert sorted(reference.recipients) == sorted(message.recipients)
    assert arrived.recipients == reference.recipients
    assert message.announced in (None, "BODY=8BITMIME" in reference.mail.upper())
    assert arrived.mail_parameters == ({"BODY": "8BITMIME"} if re.search(rb"[\x80-\xff]", reference.content) else {})

    assert arrived.auth_user == "SMTP_Injection" + f":X-MSYS-SUBACCOUNT={subaccount}" * login
    assert (arrived.subaccount, arrived.api_key) == (subaccount if login else None, KEY)

    trace, content = without_received(arrived.content)
    protocol = PROTOCOLS[door] + "A" * login if reference.extended or door != "plain" or login else "SMTP"
    assert f" with {protocol} id ".encode() in trace
    assert client.alike(content) == client.alike(without_bcc(reference.content))


def without_received(content: bytes) -> tuple[bytes, bytes]:
    """The first field, and all that follows it."""
    field = re.match(rb"Received: from .*\r\n(?:[ \t].*\r\n)*", content)
    assert field, content[:200]
    return field[0], content[field.end() :]


def without_bcc(content: bytes) -> bytes:
    """As the documentation says: without its Bcc fields."""
    header, separator, body = content.partition(b"\r\n\r\n")
    return re.sub(rb"(?im)^bcc:.*\r\n(?:[ \t].*\r\n)*", b"", header + b"\r\n") + separator[2:] + body
