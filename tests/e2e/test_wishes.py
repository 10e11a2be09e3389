"""What SparkPost is asked to do with the mail of an identity, as SparkPost gets it; and what nobody may ask for."""

import json

from relay.core.headers import field_values
from relay.core.lifecycle import Fate, State
from relay.sandbox import Accepted, HttpPort, Port, msys
from tests.support.admin import keeping
from tests.support.client import CONTENT, send
from tests.support.ledger import read, settled
from tests.support.running import port_of, relay_to, sandbox_with

INVOICES = {"transactional": True, "campaign_id": "invoices", "tags": ["invoice"], "metadata": {"app": "erp", "n": 1}}
IDENTITIES = [{"name": "erp", "match": {"mail_from": "erp@*"}, "sparkpost": INVOICES}, {"name": "default"}]


def asking(document: object) -> bytes:
    return b"X-MSYS-API: " + json.dumps(document).encode() + b"\r\n" + CONTENT


def asked(message: Accepted) -> dict | None:
    """The one document that SparkPost reads in a message."""
    values = field_values(message.content.partition(b"\r\n\r\n")[0] + b"\r\n", b"X-MSYS-API")
    assert len(values) <= 1
    return json.loads(msys.unfold(values[0])) if values else None


async def test_an_identity_and_its_application_ask_with_one_header(tmp_path):
    """The identity's mail has it, other mail has none, and an application's own header is laid over it."""
    own = {"campaign_id": "reminders", "metadata": {"n": 2}, "options": {"open_tracking": True}}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, identities=IDENTITIES) as relay:
        answers = [
            await send(port_of(relay), mail_from="erp@example.com"),
            await send(port_of(relay)),
            await send(port_of(relay), mail_from="erp@example.com", content=asking(own)),
            await send(port_of(relay), content=asking(own)),
        ]

    assert [code for code, _ in answers] == [250] * 4
    tracked = {"open_tracking": True}
    assert [asked(one) for one in sandbox.accepted] == [
        {
            "campaign_id": "invoices",
            "metadata": {"app": "erp", "n": 1},
            "tags": ["invoice"],
            "options": {"transactional": True},
        },
        None,
        {
            "campaign_id": "reminders",
            "metadata": {"app": "erp", "n": 2},
            "tags": ["invoice"],
            "options": {"transactional": True, **tracked},
        },
        own,
    ]
    assert all(one.content.endswith(CONTENT) for one in sandbox.accepted)


async def test_nothing_of_a_message_that_asks_for_too_much_is_sent(tmp_path):
    """Blind copies and another pool are refused with what to do about it; nothing is kept, nobody gets anything."""
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, identities=IDENTITIES, **keeping(tmp_path)) as relay,
    ):
        copies = await send(port_of(relay), content=asking({"bcc": ["x@example.org"]}))
        pool = await send(port_of(relay), mail_from="erp@example.com", content=asking({"options": {"ip_pool": "b"}}))
        broken = await send(port_of(relay), content=b"X-MSYS-API: {broken\r\n" + CONTENT)
        entries = await read(relay)

    assert copies == (
        550,
        "5.7.1 identity default does not let applications set bcc in X-MSYS-API: see its sparkpost.accept",
    )
    assert pool[0] == 550
    assert "identity erp does not let applications set options.ip_pool in X-MSYS-API" in pool[1]
    assert broken[0] == 550
    assert broken[1].startswith("5.6.0 JSON parsing error in X-MSYS-API: ")
    assert (entries, sandbox.accepted) == ([], [])


async def test_what_sparkpost_says_of_it_is_passed_on_with_a_hint(tmp_path):
    """What the relay cannot know, SparkPost says."""
    identities = [{"name": "default", "sparkpost": {"accept": ["cc"]}}]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, identities=identities) as relay:
        code, text = await send(port_of(relay), content=asking({"cc": ["nobody"]}))

    assert code == 550
    assert text.startswith("5.6.0 X-MSYS-API 'cc' must be an array of addresses")
    assert "the X-MSYS-API header of the message is not valid" in text


async def test_what_is_stored_asks_for_what_was_promised(tmp_path):
    """Mail that waits leaves as it was accepted, each recipient in a transaction of its own, and each once."""
    recipients = ["b@example.net", "tempfail-after-dot@example.net", "permfail@example.net", "c@example.net"]
    delivery = {"retry": {"first": "100ms", "max": "100ms"}, "max_age": "1s"}
    async with (
        sandbox_with(tmp_path / "tls", ports=[Port(mode="drop")]) as sandbox,
        relay_to(sandbox, identities=IDENTITIES, **keeping(tmp_path) | {"delivery": delivery}) as relay,
    ):
        code, _ = await send(port_of(relay), *recipients, mail_from="erp@example.com")
        sandbox.set_mode("normal")
        (entry,) = await settled(relay, lambda found: found[0].state is State.FAILED)

    assert code == 250
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",), ("c@example.net",)]
    assert [asked(one)["campaign_id"] for one in sandbox.accepted] == ["invoices"] * 2
    fates = [one.fate for one in entry.recipients]
    assert fates == [Fate.DELIVERED, Fate.EXPIRED, Fate.BOUNCED, Fate.DELIVERED]


async def test_over_https_it_goes_beside_the_message(tmp_path):
    """Fields of the request, and no X-MSYS header."""
    ports = [Port(mode="drop")]
    async with sandbox_with(tmp_path / "tls", ports=ports, http=HttpPort()) as sandbox:
        upstream = {"http": {"enabled": True, "url": f"https://localhost:{sandbox.http_address[1]}/api/v1"}}
        async with relay_to(sandbox, upstream=upstream, identities=IDENTITIES) as relay:
            code, _ = await send(port_of(relay), mail_from="erp@example.com")

    (message,) = sandbox.accepted
    assert (code, message.via) == (250, "http")
    assert b"X-MSYS" not in message.content
    assert message.transmission["campaign_id"] == "invoices"
    assert message.transmission["metadata"] == {"app": "erp", "n": 1}
    assert message.transmission["recipients"][0]["tags"] == ["invoice"]
    assert message.transmission["options"]["transactional"] is True
