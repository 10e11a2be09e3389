"""The HTTP API of the stand-in, by a raw client: conventions, validation, errors on demand."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy

import pytest

from relay.sandbox import HTTP_MODES, HttpPort, Sandbox
from relay.sandbox.http import RequestReader
from relay.sandbox.transmissions import ApiError

KEY = "secret"
MIME = "From: a@example.com\r\nSubject: x\r\n\r\nx\r\n"


class HttpClient:
    """Says octets, and reads whole answers."""

    def __init__(self, box: Sandbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.box = box
        self.reader = reader
        self.writer = writer

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await self.reader.readexactly(int(fields.get("Content-Length", 0)))
        return int(head.split(" ")[1]), json.loads(body) if body else {}

    async def post(self, document: object, **headers: str) -> tuple[int, dict]:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        await self.send(request(body, **headers))
        return await self.answer()


def request(body: bytes, *, target: str = "/api/v1/transmissions", method: str = "POST", **headers: str) -> bytes:
    fields = {"authorization": KEY, "content_type": "application/json", "content_length": str(len(body))} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode() + body


def transmission(*emails: str, mime: str = MIME, **fields: object) -> dict:
    recipients = [{"address": {"email": email}} for email in emails or ["b@example.org"]]
    return {"recipients": recipients, "content": {"email_rfc822": mime}} | fields


def pieces(**content: object) -> dict:
    """A transmission whose content is no MIME."""
    plain = {"from": "a@example.com", "subject": "x", "text": "x"}
    return {"recipients": [{"address": "b@example.org"}], "content": plain | content}


@pytest.fixture
def api(sandbox):
    """A function that starts a sandbox with an HTTP port, and connects a client to it."""

    @asynccontextmanager
    async def connected(mode: str = "normal", **rules: object) -> AsyncIterator[HttpClient]:
        async with sandbox(ports=[], http=HttpPort(mode=mode), **rules) as box:
            context = ssl.create_default_context(cafile=box.ca_file)
            reader, writer = await asyncio.open_connection(
                *box.http_address, ssl=context, server_hostname="localhost", ssl_shutdown_timeout=1
            )
            try:
                yield HttpClient(box, reader, writer)
            finally:
                writer.transport.abort()

    return connected


async def test_a_transmission(api):
    """The answer of the documentation, and a memory that says how it came."""
    async with api() as client:
        status, document = await client.post(transmission(campaign_id="c", unknown=1, options={"transactional": True}))

    (accepted,) = client.box.accepted
    results = {"total_rejected_recipients": 0, "total_accepted_recipients": 1, "id": accepted.token}
    assert (status, document) == (200, {"results": results})
    assert accepted.token.isdecimal()
    assert len(accepted.token) == 17
    assert (accepted.via, accepted.port, accepted.content) == ("http", client.box.http_address[1], MIME.encode())
    assert accepted.transmission["campaign_id"] == "c"
    assert client.box.sessions[0].tls.startswith("TLSv1")


async def test_the_store_says_that_it_came_by_http(api, tmp_path):
    """With the JSON beside the message."""
    async with api(store=tmp_path) as client:
        await client.post(transmission(campaign_id="c"))

    facts = json.loads((tmp_path / "00000001.json").read_text())
    assert (facts["via"], facts["transmission"]["campaign_id"]) == ("http", "c")
    assert KEY not in (tmp_path / "00000001.json").read_text()


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"target": "/api/v1/transmissions/"}, 200, None),
        ({"target": "/api/v1/transmissions?x=1"}, 200, None),
        ({"authorization": "Basic " + base64.b64encode(b"secret:").decode()}, 200, None),
        ({"content_type": "application/json; charset=utf-8"}, 200, None),
        ({"authorization": ""}, 401, None),
        ({"x_msys_subaccount": "9" * 5000}, 422, "1300"),
        ({"x_msys_subaccount": "\u0667"}, 422, "1300"),
        ({"authorization": "Bearer secret"}, 401, None),
        ({"authorization": "Basic !"}, 401, None),
        ({"target": "/api/v1/subaccounts"}, 404, "1600"),
        ({"target": "/"}, 404, "1600"),
        ({"method": "GET"}, 405, "1102"),
        ({"content_type": "text/plain"}, 415, "1700"),
        ({"x_msys_subaccount": "x"}, 422, "1300"),
    ],
)
async def test_conventions(api, headers, status, code):
    """Of the API's introduction."""
    async with api() as client:
        answered, document = await client.post(transmission(), **headers)

    assert answered == status
    if status != 200:
        (error,) = document["errors"]
        assert (error.get("code"), set(error) <= {"message", "code", "description"}) == (code, True)


async def test_keys_and_subaccounts(api):
    """A key without the grant is 403; a key's own subaccount wins over the one that a request names."""
    keys = {KEY: None, "smtp": None, "bound": 7}
    async with api(api_keys=keys, smtp_only_keys=["smtp"]) as client:
        forbidden = await client.post(transmission(), authorization="smtp")
        await client.post(transmission(), x_msys_subaccount="5")
        await client.post(transmission(), authorization="bound", x_msys_subaccount="5")
        await client.post(transmission(), x_msys_subaccount="0")

    assert (forbidden[0], forbidden[1]["errors"][0]["code"]) == (403, "1100")
    assert [accepted.subaccount for accepted in client.box.accepted] == [5, 7, None]
    assert [attempt.accepted for attempt in client.box.auth_attempts] == [True] * 4


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        (b"{oops", 422, "1300"),
        (b"[]", 422, "1300"),
        ({}, 422, "1400"),
        ({"recipients": [], "content": {"email_rfc822": MIME}}, 422, "1400"),
        ({"recipients": ["b@example.org"], "content": {"email_rfc822": MIME}}, 422, "1300"),
        ({"recipients": [{"address": {}}], "content": {"email_rfc822": MIME}}, 422, "1300"),
        ({"recipients": [{"address": "b@example.org"}], "content": {"subject": "x"}}, 422, "1400"),
        ({"recipients": [{"address": "b@example.org"}], "content": {"email_rfc822": 1}}, 422, "1300"),
        ({"recipients": [{"address": "b@example.org"}], "content": {"email_rfc822": MIME, "text": "x"}}, 422, "1301"),
        ({"recipients": [{"address": "b@x.y", "tags": "t"}], "content": {"email_rfc822": MIME}}, 422, "1300"),
        (pieces(text=None), 422, "1400"),
        (pieces(**{"from": None}), 422, "1400"),
        (pieces(subject=None), 422, "1400"),
        (pieces(**{"from": "nobody"}), 422, "1300"),
        (pieces(**{"from": {"name": "no address"}}), 422, "1300"),
        (pieces(text="\ud800"), 422, "1300"),
        (pieces(text=1), 422, "1300"),
        (pieces(text="x" * 2000), 422, "1300"),
        (pieces(text="Dear {{name}}"), 422, "1300"),
        (pieces(subject="{{name}}"), 422, "1300"),
        (pieces(subject="x\r\nBcc: c@example.org"), 422, "1300"),
        (pieces(headers={"X-A": 1}), 422, "1300"),
        (pieces(headers={"X A": "x"}), 422, "1300"),
        (pieces(headers={"": "x"}), 422, "1300"),
        (pieces(**{"from": "a@example.com, b@example.com"}), 422, "1300"),
        (pieces() | {"recipients": [{"address": {"email": "b@example.org", "name": "B\r\nX: y"}}]}, 422, "1300"),
        (pieces(attachments=[{"name": "x"}]), 422, "1300"),
        (pieces(attachments=["x"]), 422, "1300"),
        (pieces(attachments=[{"name": "x", "type": "image/png", "data": "?"}]), 422, "1300"),
        (pieces(inline_images=[{"name": "x", "type": "image/png", "data": "eA=="}]), 422, "1300"),
        (pieces(template_id="x"), 422, "1300"),
        (transmission("nobody"), 400, "5002"),
        (transmission(options=[]), 422, "1300"),
        (transmission(options={"open_tracking": "false"}), 422, "1300"),
        (transmission(metadata=[]), 422, "1300"),
        (transmission(campaign_id="x" * 65), 422, "1300"),
        (transmission(mime="x" * 2000), 422, "1300"),
        (transmission(mime="Subject: x\r\n\r\nFrom: a@example.com\r\n"), 400, "7001"),
        (transmission(return_path="no address"), 422, "1300"),
        (transmission(metadata={"x": float("nan")}), 422, "1300"),
        (transmission(metadata={"x": "y" * 10_240}), 422, "2007"),
        (transmission(mime=MIME + ".\r\n"), 422, "3020"),
        (transmission(mime="Subject: {{open\r\n" + MIME), 422, "3000"),
    ],
)
async def test_what_is_refused(api, document, status, code):
    """Types, fields, sizes: nothing of it is accepted."""
    async with api(message_size=1000) as client:
        answered, answer = await client.post(document)

    assert (answered, answer["errors"][0]["code"]) == (status, code)
    assert client.box.accepted == []


async def test_content_in_pieces(api):
    """It is made into a message; what is null is not there."""
    attached = {
        "name": "r\u00e9sum\u00e9.pdf",
        "type": "application/pdf; name=x",
        "data": base64.b64encode(b"pdf").decode(),
    }
    document = pieces(
        **{"from": {"name": "J\u00fcrgen", "email": "a@example.com"}, "subject": "Gr\u00fc\u00dfe", "amp_html": None},
        text="f\u00fcr dich\n.\n",
        html="<p>x</p>",
        reply_to="r@example.com",
        headers={"X-Order": "42", "to": "not me"},
        attachments=[attached],
        inline_images=[],
    )
    copy = {"email": "c@example.org", "header_to": "b@example.org"}
    document |= {"recipients": [{"address": {"email": "b@example.org", "name": "B"}}, {"address": copy}]}
    document |= {"description": None, "options": {"transactional": None}}
    async with api() as client:
        status, _ = await client.post(document)

    assert status == 200
    (accepted,) = client.box.accepted
    assert accepted.content.isascii()
    assert b"\n" not in accepted.content.replace(b"\r\n", b"")
    message = message_from_bytes(accepted.content, policy=policy.default)
    assert accepted.recipients == ("b@example.org", "c@example.org")
    assert (message["From"], message["Subject"]) == ("J\u00fcrgen <a@example.com>", "Gr\u00fc\u00dfe")
    assert (message["To"], message["Reply-To"]) == ("B <b@example.org>, b@example.org", "r@example.com")
    assert (message["X-Order"], message["Message-ID"][-13:]) == ("42", "@example.com>")
    assert message.get_body(("plain",)).get_content() == "f\u00fcr dich\r\n.\r\n"
    assert message.get_body(("html",)).get_content() == "<p>x</p>\r\n"
    assert [part.get_filename() for part in message.iter_attachments()] == ["r\u00e9sum\u00e9.pdf"]
    assert [part.get_content() for part in message.iter_attachments()] == [b"pdf"]


async def test_braces_in_pieces_where_nothing_is_evaluated(api):
    async with api() as client:
        status, _ = await client.post(pieces(text="{{x}}") | {"options": {"perform_substitutions": False}})

    assert (status, b"{{x}}" in client.box.accepted[0].content) == (200, True)


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        ("a@example.org", None),
        ("a@sub.example.org", "Unconfigured Sending Domain <sub.example.org>"),
        ("a@example.org, b@example.org", "No sending domain specified"),
    ],
)
async def test_the_sending_domain(api, sender, message):
    """That of the header From, exactly."""
    async with api(sending_domains=["example.org"]) as client:
        status, document = await client.post(transmission(mime=f"From: {sender}\r\n\r\nx\r\n"))

    assert status == (400 if message else 200)
    assert message is None or document["errors"] == [{"message": message, "code": "7001"}]


async def test_a_partial_rejection_is_a_200(api):
    """With errors beside the results: clients have mis-read it."""
    async with api() as client:
        status, document = await client.post(transmission("b@example.org", "permfail@example.org", "nobody"))

    assert status == 200
    assert document["results"]["total_accepted_recipients"] == 1
    assert document["results"]["total_rejected_recipients"] == 2
    assert len(document["results"]["rcpt_to_errors"]) == 2
    assert document["errors"][0]["code"] == "2000"
    assert client.box.accepted[0].recipients == ("b@example.org",)


@pytest.mark.parametrize(
    ("subject", "arrives"),
    [
        ("{{name}}", ""),
        ("{{ known }}", "value"),
        ("{{{known}}}", "value"),
        ("{{opening_double_curly()}}x{{closing_double_curly()}}", "{{x}}"),
        ("{{opening_triple_curly()}}", "{{{"),
        ("{single}", "{single}"),
    ],
)
async def test_templates_in_headers(api, subject, arrives):
    """The trap: they are evaluated whatever the options say, and in the body only where these do not forbid it."""
    mime = f"From: a@example.com\r\nSubject: {subject}\r\n\r\n{{{{known}}}}\r\n"
    data = {"known": "value"}
    async with api() as client:
        await client.post(transmission(mime=mime, options={"perform_substitutions": False}, substitution_data=data))
        await client.post(transmission(mime=mime, substitution_data=data))

    literal, evaluated = (accepted.content.decode() for accepted in client.box.accepted)
    assert f"Subject: {arrives}\r\n" in literal
    assert literal.endswith("\r\n{{known}}\r\n")
    assert evaluated.endswith("\r\nvalue\r\n")


async def test_line_ends_become_crlf(api):
    """Lone CR and LF are converted."""
    async with api() as client:
        await client.post(transmission(mime="From: a@example.com\nX: y\r\n\rx\n"))

    assert client.box.accepted[0].content == b"From: a@example.com\r\nX: y\r\n\r\nx\r\n"


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("http-503@example.org", 503, "1900"),
        ("http-422-3000@example.org", 422, "3000"),
        ("http-504+x@example.org", 504, None),
        ("QUOTA@example.org", 420, "2102"),
        ("tempfail@example.org", 503, "1900"),
    ],
)
async def test_errors_by_address(api, address, status, code):
    """Nothing is accepted, and the connection lives on."""
    async with api() as client:
        answered, document = await client.post(transmission(address))
        again, _ = await client.post(transmission())

    assert (answered, document["errors"][0].get("code"), again) == (status, code, 200)
    assert len(client.box.accepted) == 1


@pytest.mark.parametrize("name", ["disconnect", "disconnect-after-dot", "gibberish", "gibberish-after-dot"])
async def test_no_answer_by_address(api, name):
    """With or without the message being accepted; if it is, it is marked."""
    async with api() as client:
        await client.send(request(json.dumps(transmission(f"{name}@example.org")).encode()))
        try:
            said = await client.reader.read()
        except ConnectionError:
            said = b""

    assert not said.startswith(b"HTTP")
    assert [accepted.ambiguous for accepted in client.box.accepted] == [True] * name.endswith("-after-dot")


async def test_an_answer_that_breaks_off(api):
    """It begins as a success; the message is accepted, and marked."""
    async with api() as client:
        await client.send(request(json.dumps(transmission("cut-after-dot@example.org")).encode()))
        said = b""
        with contextlib.suppress(ConnectionError):
            while piece := await client.reader.read(1024):
                said += piece

    assert said.startswith(b"HTTP/1.1 200 OK\r\n") or said == b""
    assert not said.endswith(b"}")
    assert [accepted.ambiguous for accepted in client.box.accepted] == [True]


async def test_a_late_answer(api):
    """Accepted at once, and answered in order."""
    async with api() as client:
        late = json.dumps(transmission("slow-dot-80ms@example.org")).encode()
        started = asyncio.get_running_loop().time()
        await client.send(request(late) + request(late, method="GET"))

        assert (await client.answer())[0] == 200
        assert asyncio.get_running_loop().time() - started > 0.07
        assert (await client.answer())[0] == 405


@pytest.mark.parametrize("mode", [mode for mode in HTTP_MODES if mode.isdecimal()])
async def test_errors_by_mode(api, mode):
    """Every request is answered so, until the mode changes."""
    async with api(mode) as client:
        status, document = await client.post(transmission())
        client.box.set_http_mode("normal")
        again, _ = await client.post(transmission())

    assert (status, bool(document["errors"]), again) == (int(mode), True, 200)


async def test_accepted_without_an_answer_by_mode(api):
    """What makes an outcome ambiguous."""
    async with api("no-response") as client:
        await client.send(request(json.dumps(transmission()).encode()))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()

    assert client.box.accepted[0].ambiguous


async def test_a_store_that_cannot_be_written(api, tmp_path, caplog):
    """500, the reason is logged, and nothing is accepted."""
    folder = tmp_path / "store"
    async with api(store=folder) as client:
        folder.rmdir()
        status, _ = await client.post(transmission())

    assert (status, client.box.accepted) == (500, [])
    assert "could not be stored" in caplog.text


async def test_chunks_and_expect(api):
    """Other ways of sending a body."""
    body = json.dumps(transmission()).encode()
    async with api() as client:
        await client.send(request(b"", content_length="", transfer_encoding="chunked"))
        await client.send(
            b"%x\r\n%b\r\n" % (10, body[:10]) + b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(body) - 10, body[10:])
        )
        assert (await client.answer())[0] == 200
        await client.send(request(b"", content_length=str(len(body)), expect="100-continue"))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\r\n\r\n",
        b"POST / HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nno field\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: ²\r\n\r\n".encode("latin-1"),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"x" * 70_000,
    ],
)
async def test_what_is_no_request_ends_the_connection(api, octets):
    """400 or 413, and no more."""
    async with api() as client:
        await client.send(octets)
        status, _ = await client.answer()

        assert status in (400, 413)
        assert await client.reader.read() == b""


@pytest.mark.parametrize("status", ["204", "304"])
async def test_answers_without_a_body(api, status):
    """What answers HEAD, and these statuses: the connection's next answer begins right behind."""
    async with api() as client:
        await client.send(request(b"", method="HEAD"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        bare, _ = await client.post(transmission(f"http-{status}@example.org"))
        again, _ = await client.post(transmission())

    assert head.startswith(b"HTTP/1.1 405 ")
    assert (bare, again) == (int(status), 200)


async def test_a_request_that_ends_the_connection(api):
    """`Connection: close`, and HTTP/1.0."""
    async with api() as client:
        assert (await client.post(transmission(), connection="close"))[0] == 200
        assert await client.reader.read() == b""


@pytest.mark.parametrize("size", [1, 3, 50])
def test_requests_in_any_pieces(size):
    """Octet by octet or at once: the same requests."""
    octets = request(b"{}") + request(b"", content_length="", transfer_encoding="chunked") + b"2\r\nab\r\n0\r\n\r\n"
    reader, found = RequestReader(), []
    for at in range(0, len(octets), size):
        reader.feed(octets[at : at + size])
        while (one := reader.next()) is not None:
            found.append(one.body)

    assert found == [b"{}", b"ab"]


def test_a_broken_chunk_is_no_request():
    """Nor one whose size never ends."""
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"z" * 70_000)

    with pytest.raises(ApiError):
        reader.next()


async def test_plain_text_on_the_tls_port(sandbox):
    """It is told nothing, and the record says why."""
    async with sandbox(ports=[], http=HttpPort()) as box:
        reader, writer = await asyncio.open_connection(*box.http_address)
        writer.write(b"POST / HTTP/1.1\r\n\r\n")
        said = await reader.read()
        writer.close()
        await box.wait_closed()

    assert b"HTTP" not in said
    assert box.sessions[0].tls_failure


async def test_both_ways_share_one_memory(sandbox, connect, api):
    """SMTP and HTTP in one stand-in."""
    async with sandbox(http=HttpPort()) as box, connect(box) as client:
        await client.ready()
        await client.mail()
        context = ssl.create_default_context(cafile=box.ca_file)
        reader, writer = await asyncio.open_connection(*box.http_address, ssl=context, server_hostname="localhost")
        assert (await HttpClient(box, reader, writer).post(transmission()))[0] == 200
        writer.transport.abort()

    assert [accepted.via for accepted in box.accepted] == ["smtp", "http"]
    assert box.accepted_total == 2


@pytest.mark.parametrize(
    ("text", "port"),
    [("localhost:8443", HttpPort("localhost", 8443)), ("[::1]:8443=403", HttpPort("::1", 8443, "403"))],
)
def test_ports_as_they_are_written(text, port):
    """HOST:PORT, with a mode or without."""
    assert HttpPort.parse(text) == port


@pytest.mark.parametrize("text", ["8443", "localhost", "localhost:x", "localhost:8443=oops", "localhost:99999"])
def test_ports_that_are_none(text):
    """The remedy is in the text."""
    with pytest.raises(ValueError, match=r"HOST:PORT|there are:|is not a port"):
        HttpPort.parse(text)
