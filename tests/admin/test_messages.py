"""Stored messages over the admin server: listed, shown, read and moved."""

import asyncio
from datetime import UTC, datetime

import pytest

from tests.support.admin import ask, fill, keeping, unix_of
from tests.support.client import send
from tests.support.running import KEY, port_of, relay_to, sandbox_with

MESSAGES = "/api/v1/messages"


async def the_only(where: str) -> dict:
    """The message that is there; the ledger's line of one that was delivered comes a moment after the reply."""
    async with asyncio.timeout(10):
        while not (messages := (await ask(where, MESSAGES)).json["messages"]):
            pass
    (message,) = messages
    return message


async def test_a_deferred_message_is_listed_as_the_contract_says(tmp_path):
    """Every field, times in ISO 8601 and UTC, the login complete."""
    sections = keeping(tmp_path) | {"identities": [{"name": "shop", "match": {}, "subaccount": 5}]}
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        _, text = await send(port_of(relay), "tempfail@example.net", "550-5.1.1@example.net", "b@example.net")
        message = await the_only(unix_of(relay))

    accepted, due = (datetime.fromisoformat(message.pop(name)) for name in ("accepted", "due"))
    assert message == {
        "id": text.split("queue show ")[1][:14],
        "state": "queued",
        "identity": "shop",
        "login": "SMTP_Injection:X-MSYS-SUBACCOUNT=5",
        "reverse_path": "a@example.com",
        "size": message["size"],
        "attempts": 1,
        "recipients": [
            {"address": "tempfail@example.net", "state": "pending", "reply": "451 4.3.0 temporary failure"},
            {"address": "550-5.1.1@example.net", "state": "bounced", "reply": "550 5.1.1 as the address asked"},
            {"address": "b@example.net", "state": "delivered", "reply": message["recipients"][2]["reply"]},
        ],
    }
    assert accepted.tzinfo == due.tzinfo == UTC
    assert 0 < (due - accepted).total_seconds() < 10


async def test_one_message_is_shown_with_history_and_header(tmp_path):
    """What each attempt came to, by recipient, and the header as it will be sent."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        await send(port_of(relay), "tempfail@example.net")
        message = await the_only(unix_of(relay))
        shown = (await ask(unix_of(relay), f"{MESSAGES}/{message['id']}")).json
        endpoint = f"localhost:{sandbox.addresses[0][1]}"

    (line,) = shown["history"]
    assert (line["attempt"], line["outcome"], line["endpoint"]) == (1, "deferred", endpoint)
    assert line["recipients"] == ["tempfail@example.net"]
    assert shown["header"].startswith("Received: ")
    assert shown["header"].endswith("\r\nSubject: test\r\n")
    assert shown["credential"] == "default"


async def test_large_content_is_streamed_octet_by_octet(tmp_path):
    """A body that has a file of its own comes back as it came in, and HEAD tells its length."""
    body = b"".join(b"%06d " % number + b"x" * 60 + b"\r\n" for number in range(8000))
    content = b"From: a@example.com\r\nSubject: large\r\n\r\n" + body
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        await send(port_of(relay), "tempfail@example.net", content=content)
        message = await the_only(unix_of(relay))
        path = f"{MESSAGES}/{message['id']}/content"
        read, head = await ask(unix_of(relay), path), await ask(unix_of(relay), path, "HEAD")

    assert read.body.endswith(b"\r\n" + content)
    assert read.headers["content-type"] == "message/rfc822"
    assert len(read.body) == message["size"]
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(message["size"]))


async def test_a_delivered_message_has_no_content_any_more(tmp_path):
    """410 with the reason; its line in the ledger is there."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        await send(port_of(relay))
        message = await the_only(unix_of(relay))
        content = await ask(unix_of(relay), f"{MESSAGES}/{message['id']}/content")
        shown = await ask(unix_of(relay), f"{MESSAGES}/{message['id']}")

    assert message["state"] == "delivered"
    assert (content.status, content.json["error"]) == (
        410,
        f"the content of {message['id']} is not kept, as it is delivered",
    )
    assert shown.json["header"] is None
    assert shown.json["recipients"][0]["message_id"] == sandbox.accepted[0].token


async def test_hold_release_retry_delete(tmp_path):
    """Each moves the message, tells its state, and what does not apply is 409 and says what does."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        where = unix_of(relay)
        await send(port_of(relay), "tempfail@example.net")
        queue_id = (await the_only(where))["id"]
        held = await ask(where, f"{MESSAGES}/{queue_id}/hold", "POST")
        again = await ask(where, f"{MESSAGES}/{queue_id}/hold", "POST")
        released = await ask(where, f"{MESSAGES}/{queue_id}/release", "POST")
        unknown = await ask(where, f"{MESSAGES}/NOSUCHMESSAGE/hold", "POST")
        await until_tried(where, queue_id, 2)
        retried = await ask(where, f"{MESSAGES}/{queue_id}/retry", "POST")
        await until_tried(where, queue_id, 3)
        deleted = await ask(where, f"{MESSAGES}/{queue_id}/delete", "POST")

    assert [one.json["state"] for one in (held, released, retried, deleted)] == ["held", "queued", "queued", "deleted"]
    assert (again.status, unknown.status) == (409, 404)
    assert "what does: delete, release" in again.json["error"]


async def until_tried(where: str, queue_id: str, times: int) -> None:
    """Until it waits again after so many attempts."""
    async with asyncio.timeout(10):
        while True:
            shown = (await ask(where, f"{MESSAGES}/{queue_id}")).json
            if len(shown["history"]) == times and shown["state"] == "queued":
                return


async def test_retry_wakes_the_relay(tmp_path):
    """A message that is due in half an hour gets its next attempt at once."""
    sections = keeping(tmp_path) | {"delivery": {"retry": {"first": "30m"}}}
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        await send(port_of(relay), "tempfail@example.net")
        queue_id = (await the_only(unix_of(relay)))["id"]
        await ask(unix_of(relay), f"{MESSAGES}/{queue_id}/retry", "POST")
        await until_tried(unix_of(relay), queue_id, 2)

    assert len(sandbox.accepted) == 0


async def test_many_are_moved_at_once(tmp_path):
    """What became of each, in order; one that cannot be moved does not stand in the way of the others."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        where = unix_of(relay)
        for _ in range(3):
            await send(port_of(relay), "tempfail@example.net")
        ids = [one["id"] for one in (await ask(where, MESSAGES)).json["messages"]]
        wish = {"command": "hold", "ids": [ids[0], "NOSUCHMESSAGE", *ids[1:]]}
        moved = (await ask(where, MESSAGES, "POST", body=wish)).json["messages"]

    assert [one.get("state") for one in moved] == ["held", None, "held", "held"]
    assert moved[1]["error"] == "there is no message NOSUCHMESSAGE in the spool"


@pytest.mark.parametrize(
    "wish",
    [
        None,
        [],
        {},
        {"command": "claim", "ids": []},
        {"command": "hold"},
        {"command": "hold", "ids": [1]},
        {"command": "hold", "ids": ["X"] * 501},
        {"command": "hold", "ids": ["\ud800"]},
        b"\xff",
        pytest.param(b"[" * 60_000, id="deep"),
    ],
    ids=str,
)
async def test_a_wish_that_makes_no_sense_is_400(tmp_path, wish):
    """And the answer says how to write one."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        answer = await ask(unix_of(relay), MESSAGES, "POST", body=wish)

    assert answer.status == 400
    assert '"command"' in answer.json["remedy"]


async def test_a_wish_is_json_whatever_character_set_it_claims(tmp_path):
    """JSON has one (RFC 8259 §8.1)."""
    wish = {"command": "hold", "ids": []}
    claimed = {"Content-Type": "application/json; charset=nonsense"}
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        answer = await ask(unix_of(relay), MESSAGES, "POST", claimed, wish)

    assert (answer.status, answer.json) == (200, {"messages": []})


@pytest.mark.parametrize(
    "query",
    [
        "state=nonsense",
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e2",
        "limit=%D9%A3",
        "cursor=x",
        "cursor=-1",
        "cursor=9223372036854775808",
        "cursor=%C2%B2",
        f"q={'x' * 201}",
    ],
)
async def test_a_query_that_makes_no_sense_is_400(tmp_path, query):
    """With the remedy; nothing reaches the database."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        answer = await ask(unix_of(relay), f"{MESSAGES}?{query}")

    assert answer.status == 400
    assert answer.json["remedy"]


async def test_pages_follow_each_other(tmp_path):
    """Each message once, the oldest first, with a cursor that ends; a search finds by recipient."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        async with relay_to(sandbox, **keeping(tmp_path)):
            pass
        fill(tmp_path / "spool.db", 250)
        async with relay_to(sandbox, **keeping(tmp_path)) as relay:
            where, cursor, seen = unix_of(relay), "", []
            while cursor is not None:
                page = (await ask(where, f"{MESSAGES}?limit=100&cursor={cursor}")).json
                seen.append([one["id"] for one in page["messages"]])
                cursor = page["cursor"]
            found = (await ask(where, f"{MESSAGES}?q=CUSTOMER-7@")).json["messages"]
            failed = (await ask(where, f"{MESSAGES}?state=failed")).json

    assert [len(ids) for ids in seen] == [100, 100, 50]
    assert [one for ids in seen for one in ids] == [f"Q{number:013}" for number in range(1, 251)]
    assert [one["id"] for one in found] == [f"Q{7:013}"]
    assert failed == {"messages": [], "cursor": None}


async def test_a_mapping_that_has_gone_is_told(tmp_path):
    """A message of an identity that is not configured any more cannot be released: 409, and what to do."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        sections = keeping(tmp_path) | {"identities": [{"name": "shop", "match": {}}]}
        async with relay_to(sandbox, **sections) as relay:
            await send(port_of(relay), "tempfail@example.net")
            queue_id = (await the_only(unix_of(relay)))["id"]
            await ask(unix_of(relay), f"{MESSAGES}/{queue_id}/hold", "POST")
        async with relay_to(sandbox, **keeping(tmp_path)) as relay:
            answer = await ask(unix_of(relay), f"{MESSAGES}/{queue_id}/release", "POST")

    assert answer.status == 409
    assert "there is no identity shop any more: configure it, then queue release" in answer.json["error"]


async def test_without_a_spool_there_are_no_messages(tmp_path):
    """404 that names the key, and a status without a spool."""
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, admin={"address": "127.0.0.1:0", "socket": str(tmp_path / "admin.sock")}) as relay,
    ):
        listed = await ask(unix_of(relay), MESSAGES)
        status = await ask(unix_of(relay), "/api/v1/status")

    assert listed.status == 404
    assert "spool.url" in listed.json["error"]
    assert status.json["spool"] is None


async def test_no_page_shows_a_secret(tmp_path):
    """Neither key nor token nor password is on any page, whatever is asked and whatever goes wrong."""
    password, token, key = "correct-horse-battery", "open-sesame-0123456789", KEY
    sections = keeping(tmp_path) | {
        "identities": [
            {"name": "app", "match": {"login": "app"}, "password": password},
            {"name": "default", "match": {}},
        ]
    }
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
        await send(port_of(relay), "tempfail@example.net")
        queue_id = (await the_only(unix_of(relay)))["id"]
        paths = ["/livez", "/readyz", "/healthz", "/metrics", "/api/v1/status", "/api/v1/endpoints"]
        paths += ["/api/v1/credentials", MESSAGES, f"{MESSAGES}/{queue_id}", f"{MESSAGES}/{queue_id}/content", "/x"]
        pages = [await ask(unix_of(relay), path) for path in paths]
        pages.append(await ask(relay.admin.addresses[0], MESSAGES, headers={"Authorization": f"Bearer {token}x"}))
    shown = b"".join(page.body + str(page.headers).encode() for page in pages).decode()

    assert queue_id in shown
    for secret in (password, token, key):
        assert secret not in shown
