"""What SparkPost says to content at the final dot."""

import json

import pytest

from relay.sandbox import msys

HEAD = b"From: App <app@shop.example.com>\r\nSubject: x\r\n"


async def reply_to(box, connect, content: bytes) -> str:
    async with connect(box) as client:
        await client.ready()
        return await client.mail(content=content)


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (HEAD + b"\r\nx\r\n", "250 "),
        (b"from: x@SHOP.example.com\r\n\r\n", "250 "),
        (b"From: =?utf-8?q?A=2C_B?=\r\n <x@shop.example.com>\r\n\r\n", "250 "),
        (b"From: x@example.com\r\n\r\n", "550 5.7.1 Unconfigured Sending Domain <example.com>"),
        (b"From: x@a.shop.example.com\r\n\r\n", "550 5.7.1 Unconfigured Sending Domain <a.shop.example.com>"),
        (b"Subject: x\r\n\r\nFrom: x@shop.example.com\r\n", "550 5.7.1 No sending domain specified"),
        (b"From: a@shop.example.com, b@shop.example.com\r\n\r\n", "550 5.7.1 No sending domain specified"),
        (b"From: nobody\r\n\r\n", "550 5.7.1 No sending domain specified"),
        (b"\r\nFrom: x@shop.example.com\r\n", "550 5.7.1 No sending domain specified"),
    ],
)
async def test_sending_domain(sandbox, connect, content, reply):
    """The header From decides, by exactly its domain; a parent and a subdomain are others."""
    async with sandbox(sending_domains=["shop.Example.com"]) as box:
        assert (await reply_to(box, connect, content)).startswith(reply)
    assert len(box.accepted) == (reply == "250 ")


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: x\nTo: y\r\n\r\nx\r\n", "550 5.6.0 Lone CR or LF in headers"),
        (b"Subject: x\rTo: y\r\n\r\nx\r\n", "550 5.6.0 Lone CR or LF in headers"),
        (b"Subject: x\n\nx\n\r\n", "550 5.6.0 Lone CR or LF in headers"),
        (b"Subject: x\r\n\r\nx\ny\r\n", "550 5.6.0 Lone CR or LF in body"),
        (b"Subject: x\r\n\r\nx\ry\r\n", "550 5.6.0 Lone CR or LF in body"),
        (b"\r\nx\ry\n", "550 5.6.0 Lone CR or LF in body"),
        (HEAD + b"\r\n" + b"x" * 998 + b"\r\n", "250 "),
        (HEAD + b"\r\n" + b"x" * 999 + b"\r\n", "550 5.6.0 Body line too long"),
        (HEAD + b"\r\nshort\r\n" + b"x" * 5000 + b"\r\nshort\r\n", "550 5.6.0 Body line too long"),
        (HEAD + b"\r\n" + (b"x" * 998 + b"\r\n") * 5, "250 "),
        (HEAD + b"X-Long: " + b"x" * 2000 + b"\r\n\r\nx\r\n", "250 "),
    ],
)
async def test_form(sandbox, connect, content, reply):
    """Lone line ends and overlong body lines are refused, as the engine can; a relay has to repair them."""
    async with sandbox() as box:
        assert (await reply_to(box, connect, content + b"\r\n")).startswith(reply)


async def test_form_may_be_ignored(sandbox, connect):
    """Both checks can be switched off; the octets then arrive as they came."""
    content = b"Subject: x\nTo: y\r\n\r\n" + b"x" * 2000 + b"\ry\r\n"
    async with sandbox(check_line_ends=False, check_line_length=False) as box:
        assert (await reply_to(box, connect, content)).startswith("250 ")
    assert box.accepted[0].content == content


@pytest.mark.parametrize(("excess", "reply"), [(0, "250 "), (1, "552 5.3.4 message size limit exceeded")])
async def test_size(sandbox, connect, excess, reply):
    """The limit is on the octets un-stuffed; one more is too many."""
    content = b"S: x\r\n\r\n" + b"." * 91 + b"\r\n"
    async with sandbox(message_size=len(content) - excess) as box:
        assert (await reply_to(box, connect, content)).startswith(reply)


async def test_a_message_far_over_the_limit(sandbox, connect):
    """It is read to its end without being kept, then refused; the connection goes on."""
    async with sandbox(message_size=1000) as box, connect(box) as client:
        await client.ready()
        assert (await client.mail(content=b"S: x\r\n\r\n" + b"0123456789\r\n" * 100_000)).startswith("552 5.3.4 ")
        assert (await client.mail()).startswith("250 ")
    assert len(box.accepted) == 1


async def test_twenty_megabytes(sandbox, connect):
    """The largest message SparkPost takes arrives whole."""
    content = b"S: x\r\n\r\n" + b".0123456789abcdef\r\n" * 1_100_000
    async with sandbox(transcripts=False) as box:
        assert (await reply_to(box, connect, content)).startswith("250 ")
    assert box.accepted[0].content == content
    assert box.sessions[0].transcript == []


async def test_announced_size(sandbox, connect):
    """Where SIZE is among the extensions, it is offered under TLS, and heeded at MAIL."""
    async with sandbox(extensions=["SIZE 1000"], message_size=1000) as box, connect(box) as client:
        assert "SIZE 1000" in await client.starttls()
        await client.login()

        assert (await client.say("MAIL FROM:<> SIZE=1001")).startswith("552 5.3.4 ")
        assert (await client.say("MAIL FROM:<> SIZE=lots")).startswith("501 5.5.2 ")
        assert (await client.say(f"MAIL FROM:<> SIZE={'9' * 5000}")).startswith("501 5.5.2 ")
        assert (await client.say("MAIL FROM:<> SIZE=1000")).startswith("250 ")


async def test_msys_api_is_judged_at_the_final_dot(sandbox, connect):
    """The header's objection is the reply; a good header passes, however it is written or folded."""
    async with sandbox() as box:
        bad = await reply_to(box, connect, HEAD + b'X-MSYS-API: {"metadata": []}\r\n\r\nx\r\n')
        broken = await reply_to(box, connect, HEAD + b'x-msys-api:\r\n {"tags": ["a",\r\n\r\nx\r\n')
        good = await reply_to(box, connect, HEAD + b'x-Msys-Api: {"tags":\r\n\t["a"]}\r\n\r\nx\r\n')
        in_body = await reply_to(box, connect, HEAD + b"\r\nX-MSYS-API: {\r\n")

    assert bad == "550 5.6.0 X-MSYS-API 'metadata' must be of type 'json object'"
    assert broken.startswith("550 5.6.0 JSON parsing error in X-MSYS-API")
    assert good.startswith("250 ")
    assert in_body.startswith("250 ")


GOOD = {
    "campaign_id": "c" * 64,
    "metadata": {"any": [1, None, {"thing": True}]},
    "tags": ["a", "b"],
    "cc": ["a@example.org", {"email": "b@example.org", "name": "B"}],
    "bcc": [{"email": "c@example.org"}],
    "archive": [],
    "options": {
        "open_tracking": True,
        "click_tracking": False,
        "transactional": True,
        "skip_suppression": False,
        "inline_css": True,
        "ip_pool": "shared",
        "dkim_key": "k1",
        "unheard_of": 1,
    },
    "substitution_data": "ignored",
}


def test_every_documented_field():
    """A header with every documented field, rightly typed, is taken; unknown fields are ignored."""
    assert msys.objection(json.dumps(GOOD).encode()) is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("campaign_id", "c" * 65, "smtpapi_campaign_id context is limited to 64 bytes"),
        ("campaign_id", "é" * 33, "smtpapi_campaign_id context is limited to 64 bytes"),
        ("campaign_id", 1, "X-MSYS-API 'campaign_id' must be of type 'string'"),
        ("metadata", "x", "X-MSYS-API 'metadata' must be of type 'json object'"),
        ("metadata", None, "X-MSYS-API 'metadata' must be of type 'json object'"),
        ("tags", "a", "X-MSYS-API 'tags' must be of type 'json array'"),
        ("tags", ["a", 1], "X-MSYS-API 'tags' must be an array of strings"),
        ("cc", {"email": "a@example.org"}, "X-MSYS-API 'cc' must be of type 'json array'"),
        ("cc", [{"name": "a"}], "X-MSYS-API 'cc' must be an array of addresses"),
        ("bcc", ["nobody"], "X-MSYS-API 'bcc' must be an array of addresses"),
        ("bcc", ["@"], "X-MSYS-API 'bcc' must be an array of addresses"),
        ("archive", [{"email": "a@example.org", "name": 1}], "X-MSYS-API 'archive' must be an array of addresses"),
        ("archive", ["a@example.org"] * 998, "X-MSYS-API 'cc', 'bcc' and 'archive' are limited to 1000 recipients"),
        ("options", [], "X-MSYS-API 'options' must be of type 'json object'"),
        ("options", {"transactional": "true"}, "X-MSYS-API 'options.transactional' must be of type 'boolean'"),
        ("options", {"open_tracking": 1}, "X-MSYS-API 'options.open_tracking' must be of type 'boolean'"),
        ("options", {"ip_pool": 3}, "X-MSYS-API 'options.ip_pool' must be of type 'string'"),
    ],
)
def test_wrong_fields(field, value, words):
    """A field of the wrong type or length is named in the objection."""
    assert msys.objection(json.dumps(GOOD | {field: value}).encode()) == words


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"{}x",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": "\n"}',
        '{"tags": ["é"]}'.encode(),
        b"[" * 99_999,
    ],
)
def test_broken_json(value):
    """What is not JSON in ASCII is a parsing error."""
    assert msys.objection(value).startswith("JSON parsing error in X-MSYS-API")


def test_not_an_object():
    """JSON that is no object is refused as such."""
    assert msys.objection(b'["a"]') == "X-MSYS-API header must be of type 'json object'"


def test_a_fold_becomes_one_space():
    """However deep a fold is indented, it unfolds to one space: inside a string, it corrupts it."""
    assert msys.unfold(b' {"campaign_id": "my_awes\r\n   ome_campaign"}') == b'{"campaign_id": "my_awes ome_campaign"}'
    assert msys.objection(b'{"campaign_id": "' + b"c" * 32 + b"\r\n\t" + b"c" * 32 + b'"}') is not None
