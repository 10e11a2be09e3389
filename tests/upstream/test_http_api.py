"""The HTTP channel against real TLS sockets: what leaves, what comes of each answer, and of none."""

import asyncio
import email
import email.policy
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.headers import without_blind_copies
from relay.core.login import Login, Target, username_for
from relay.core.message import Content, MemoryBody, Message
from relay.core.outcome import (
    Ambiguous,
    Bounced,
    Cause,
    Deferred,
    Delivered,
    Failure,
    FailureKind,
    HttpAnswer,
    Outcome,
    Phase,
    Scope,
    classify,
    defect,
)
from relay.core.ports import AttemptReport, Effort, Permit
from relay.core.secret import Secret
from relay.sandbox import HttpPort, Sandbox
from relay.upstream.api_answers import read_answer
from relay.upstream.http_api import HttpChannel
from relay.upstream.smtp import verifying_context

KEY = "0123456789abcdef0123456789abcdef01234567"
CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.eml"))
NO_ENCODING = {  # 8-bit text under a Content-Transfer-Encoding that does not exist
    "error_emails--content_transfer_encoding_7-bit",
    "error_emails--content_transfer_encoding_plain",
}
PLAIN = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: hello\r\n\r\nbody\r\n"


def content_of(octets: bytes) -> Content:
    """Content as the relay reads it: line ends are CRLF already."""
    header, separator, body = octets.partition(b"\r\n\r\n")
    if separator:
        header, body = header + b"\r\n", b"\r\n" + body
    longest = max(map(len, octets.split(b"\r\n")))
    return Content(header, MemoryBody(body), longest, not octets.isascii())


def message_of(octets: bytes = PLAIN) -> Message:
    return Message("QID", Envelope(ReversePath(Address("a", "example.com"))), content_of(octets))


def to(*names: str) -> list[Recipient]:
    return [Recipient(Address(name, "example.net")) for name in names]


def login_of(subaccount: int | None = None, key: str = KEY, credential: str = "default") -> Login:
    username = username_for("SMTP_Injection", subaccount)
    return Login(Target("smtp.sparkpostmail.com", (587,)), username, Secret(key), credential)


class Way:
    """A channel to an API, and the shortest way of sending with it."""

    def __init__(self, url: str, tls: ssl.SSLContext, **options: float) -> None:
        self.channel = HttpChannel(lambda _: url, tls, connect_seconds=2.0, **options)

    async def report(
        self,
        octets: bytes = PLAIN,
        recipients: tuple[str, ...] = ("b",),
        *,
        login: Login | None = None,
        effort: Effort | None = None,
    ) -> AttemptReport:
        return await self.channel.send(
            message_of(octets), to(*recipients), login or login_of(), effort or Effort(patience=5.0)
        )

    async def outcome(self, octets: bytes = PLAIN, recipient: str = "b", **options: object) -> Outcome:
        report = await self.report(octets, (recipient,), **options)
        return report.outcomes[0][1]


@pytest.fixture(scope="session")
def tls_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@asynccontextmanager
async def api(tls_dir: Path, mode: str = "normal", *, tls: bool = True, **rules: object) -> AsyncIterator[tuple]:
    """A stand-in with an HTTP port, and a way to it."""
    ways = {name: rules.pop(name) for name in ("answer_seconds", "connections") if name in rules}
    rules = {"api_keys": {KEY: None}} | rules
    async with Sandbox(ports=[], http=HttpPort(mode=mode, tls=tls), tls_dir=tls_dir, **rules) as sandbox:
        scheme, port = "https" if tls else "http", sandbox.http_address[1]
        way = Way(f"{scheme}://localhost:{port}/api/v1", verifying_context(str(sandbox.ca_file), "1.2"), **ways)
        try:
            yield sandbox, way
        finally:
            await way.channel.close()


# -- what leaves ------------------------------------------------------------------------------------------------------


async def test_a_message_goes_as_it_is(tls_dir):
    """One recipient, the octets unchanged, the key raw, no tracking, no return_path, no templates."""
    async with api(tls_dir) as (sandbox, way):
        report = await way.report()
        said = b"".join(exchange.octets for exchange in sandbox.sessions[0].transcript)

    (accepted,) = sandbox.accepted
    ((_, outcome),) = report.outcomes
    assert isinstance(outcome, Delivered)
    assert str(outcome.fact) == f"HTTP 200 OK {accepted.token}"
    assert str(outcome.fact.reply) == f"250 2.0.0 OK {accepted.token}"
    assert report.endpoint == f"https://localhost:{sandbox.http_address[1]}"
    assert accepted.content == PLAIN
    assert (accepted.recipients, accepted.reverse_path, accepted.subaccount) == (("b@example.net",), "", None)
    assert accepted.transmission == {
        "recipients": [{"address": {"email": "b@example.net"}}],
        "options": {"open_tracking": False, "click_tracking": False, "perform_substitutions": False},
    }
    assert b"POST /api/v1/transmissions HTTP/1.1\r\n" in said
    assert re.search(rb"(?i)\r\nauthorization: " + KEY.encode() + b"\r\n", said)
    assert not re.search(rb"(?i)\r\n(transfer-encoding|x-msys-subaccount|cookie):", said)


async def test_a_subaccount_is_named_in_a_header(tls_dir):
    """The suffix of the user name over SMTP is a header of its own over HTTP."""
    async with api(tls_dir) as (sandbox, way):
        await way.outcome(login=login_of(123))

    assert sandbox.accepted[0].subaccount == 123


async def test_each_recipient_has_its_own_request(tls_dir):
    """An answer that is yes and no at once cannot be mapped back; one connection serves for all."""
    async with api(tls_dir) as (sandbox, way):
        report = await way.report(recipients=("b", "permfail", "c"))

    assert [outcome.name for _, outcome in report.outcomes] == ["delivered", "bounced", "delivered"]
    assert [accepted.recipients for accepted in sandbox.accepted] == [("b@example.net",), ("c@example.net",)]
    assert len(sandbox.sessions) == 1


async def test_what_the_smtp_api_header_asks_for_goes_beside_the_message(tls_dir):
    """Options, campaign, metadata and tags; nothing for SparkPost is left in the MIME, and unknown fields do not go."""
    asked = {
        "campaign_id": "invoices",
        "metadata": {"app": "erp", "müller": "ü"},
        "tags": ["a", "b"],
        "substitution_data": {"x": "y"},
        "options": {"open_tracking": True, "transactional": True, "ip_pool": "fast", "sandbox": True},
    }
    folded = json.dumps(asked, separators=(",\r\n ", ": ")).encode()
    octets = b"X-MSYS-API: " + folded + b"\r\nx-msys-other: y\r\n z\r\n" + PLAIN
    async with api(tls_dir) as (sandbox, way):
        assert isinstance(await way.outcome(octets), Delivered)

    (accepted,) = sandbox.accepted
    assert accepted.content == PLAIN
    assert accepted.transmission == {
        "recipients": [{"address": {"email": "b@example.net"}, "tags": ["a", "b"]}],
        "campaign_id": "invoices",
        "metadata": {"app": "erp", "müller": "ü"},
        "options": {
            "open_tracking": True,
            "click_tracking": False,
            "transactional": True,
            "ip_pool": "fast",
            "perform_substitutions": False,
        },
    }


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b'X-MSYS-API: {"archive": ["x@example.org"]}\r\n', "archive recipients"),
        (b'X-MSYS-API: {"cc": ["x@example.org"], "bcc": ["y@example.org"]}\r\n', "cc and bcc recipients"),
        (b"X-MSYS-API: {oops\r\n", "JSON parsing error"),
        (b'X-MSYS-API: {"metadata": {"rate": NaN}}\r\n', "NaN is no number in JSON"),
        (b'X-MSYS-API: {"metadata": {"rate": -Infinity}}\r\n', "-Infinity is no number in JSON"),
        (b'X-MSYS-API: {"metadata": {"rate": 1e999}}\r\n', "1e999 is no number in JSON"),
        (b"x-binding : fast\r\n", "an X-Binding header"),
        (b"X-MSYS-API: []\r\n", "must be of type 'json object'"),
        (b"X-MSYS-API: {}\r\nX-MSYS-API: {}\r\n", "several X-MSYS-API headers"),
        (b'X-MSYS-API: {"metadata": {"x": "' + b"y" * 10_300 + b'"}}\r\n', "more than 10 KB of metadata"),
    ],
)
async def test_what_http_cannot_do_waits_for_smtp(tls_dir, header, reason):
    """A cause of its own, and nothing is asked of SparkPost."""
    async with api(tls_dir) as (sandbox, way):
        outcome = await way.outcome(header + PLAIN)

    assert (type(outcome), outcome.scope, outcome.cause) == (Deferred, Scope.MESSAGE, Cause.SMTP_ONLY)
    assert reason in str(outcome.fact)
    assert sandbox.sessions == []


async def test_an_empty_list_of_copies_is_no_copy(tls_dir):
    """Programs that write every field do not lose their way."""
    async with api(tls_dir) as (_, way):
        assert isinstance(await way.outcome(b'X-MSYS-API: {"cc": [], "archive": []}\r\n' + PLAIN), Delivered)


async def test_all_or_none_is_not_to_be_had(tls_dir):
    """Without a spool several recipients share one fate, which several requests cannot have."""
    async with api(tls_dir) as (sandbox, way):
        together = await way.report(recipients=("b", "c"), effort=Effort(5.0, whole=True))
        alone = await way.report(effort=Effort(5.0, whole=True))

    assert {outcome.cause for _, outcome in together.outcomes} == {Cause.SMTP_ONLY}
    assert alone.outcomes[0][1].name == "delivered"
    assert len(sandbox.accepted) == 1


@pytest.mark.parametrize(
    "subject",
    [
        "{{name}}",
        "{{{html}}}",
        "{{",
        "}}",
        "{{}}",
        "{}}",
        "a{{b}}}}c{d}e",
        "{{{{x}}}}}",
        "{ {x} }",
        "{{#if x}}{",
        "}{{",
    ],
)
async def test_braces_in_headers_arrive(tls_dir, subject):
    """SparkPost evaluates templates in headers, and nothing but its own macros can prevent it."""
    octets = f"From: a@example.com\r\nSubject: {subject}\r\n\r\n{{{{body}}}}\r\n".encode()
    async with api(tls_dir) as (sandbox, way):
        assert isinstance(await way.outcome(octets), Delivered)

    assert sandbox.accepted[0].content == octets


async def test_a_lone_dot_at_the_end_is_not_the_end_of_smtp(tls_dir):
    """SparkPost would take it for the terminator."""
    async with api(tls_dir) as (sandbox, way):
        assert isinstance(await way.outcome(PLAIN + b".\r\n"), Delivered)

    assert sandbox.accepted[0].content == PLAIN + b".\r\n\r\n"


async def test_a_large_message_leaves_in_pieces(tls_dir):
    """15 MB arrive whole, with a length that was known before, and the loop turns meanwhile."""
    octets = PLAIN + b'x"\\' * 20 + b"\r\n"
    octets += (b"y" * 70 + b"\r\n") * 200_000
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)

    async with api(tls_dir) as (sandbox, way):
        channel, sandbox.transcripts = way.channel, False
        watching = asyncio.create_task(watch())
        message = message_of(octets)
        try:
            report = await channel.send(message, to("b"), login_of(), Effort(20.0))
        finally:
            watching.cancel()

    assert report.outcomes[0][1].name == "delivered"
    assert sandbox.accepted[0].content == octets
    assert longest < 2.0  # most of it is the stand-in's own, in the same loop


def seen(content: bytes) -> list[tuple[str, bytes]]:
    """What a reader sees: the type and the decoded octets of every leaf."""
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    return [
        (part.get_content_type(), (part.get_payload(decode=True) or b"").replace(b"\r\n", b"\n").rstrip(b"\n"))
        for part in message.walk()
        if not part.is_multipart()
    ]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
async def test_every_message_of_the_corpus_arrives(tls_dir, path):
    """Octet for octet where it is ASCII with short lines; else a reader sees the same."""
    octets = re.sub(rb"\r\n|\r|\n", b"\r\n", path.read_bytes()).removesuffix(b"\r\n") + b"\r\n"
    header, separator, body = octets.partition(b"\r\n\r\n")
    octets = without_blind_copies(header + b"\r\n") + separator[2:] + body
    if not re.search(rb"^from[ \t]*:", header, re.IGNORECASE | re.MULTILINE):  # the API demands one
        octets = b"From: a@example.com\r\n" + octets
    async with api(tls_dir) as (sandbox, way):
        outcome = await way.outcome(octets)

    assert isinstance(outcome, Delivered), outcome
    arrived = sandbox.accepted[0].content
    assert arrived.isascii()
    if octets.isascii() and max(map(len, octets.split(b"\r\n"))) <= 998:
        assert arrived == octets + (b"\r\n" if octets.endswith(b"\r\n.\r\n") else b"")
    elif path.stem in NO_ENCODING:
        assert seen(arrived) == [(kind, re.sub(rb"[\x80-\xff]", b"?", text)) for kind, text in seen(octets)]
    else:
        assert seen(arrived) == seen(octets)


async def test_connections_are_used_again_and_bounded(tls_dir):
    """Many messages at once share what there may be."""
    async with api(tls_dir, connections=3) as (sandbox, way):
        await asyncio.gather(*(way.outcome(recipient="slow-dot-50ms") for _ in range(9)))
        await way.outcome()

    assert len(sandbox.accepted) == 10
    assert sandbox.opened <= 3


async def test_plain_http_on_this_host(tls_dir):
    """For trials; the configuration takes it for nothing else."""
    async with api(tls_dir, tls=False) as (sandbox, way):
        assert isinstance(await way.outcome(), Delivered)

    assert sandbox.accepted[0].via == "http"


# -- what comes of an answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipient", "kind", "scope", "cause"),
    [
        ("permfail", Bounced, Scope.RECIPIENT, None),
        ("http-401", Deferred, Scope.LOGIN, Cause.LOGIN_REFUSED),
        ("http-403", Deferred, Scope.CREDENTIAL, Cause.NO_HTTP_GRANT),
        ("quota", Deferred, Scope.CREDENTIAL, Cause.QUOTA),
        ("http-429", Deferred, Scope.CREDENTIAL, Cause.RATE_LIMIT),
        ("http-500", Deferred, Scope.ENDPOINT, None),
        ("tempfail", Deferred, Scope.ENDPOINT, None),
        ("http-504", Ambiguous, Scope.MESSAGE, None),
        ("http-302", Deferred, Scope.ENDPOINT, None),
        ("http-202", Ambiguous, Scope.MESSAGE, None),
        ("http-400-7001", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN),
        ("http-422-3000", Deferred, Scope.MESSAGE, Cause.SMTP_ONLY),
    ],
)
async def test_answers(tls_dir, recipient, kind, scope, cause):
    """The statuses of the fact sheet, over the wire."""
    async with api(tls_dir) as (sandbox, way):
        outcome = await way.outcome(recipient=recipient)

    assert (type(outcome), outcome.scope, outcome.cause) == (kind, scope, cause)
    assert isinstance(outcome.fact, HttpAnswer)
    assert sandbox.accepted == []


async def test_a_wrong_key_is_refused_as_a_login(tls_dir):
    """And what would be refused alike is not tried for every recipient."""
    async with api(tls_dir) as (sandbox, way):
        report = await way.report(recipients=("b", "c", "d"), login=login_of(key="wrong-key-0123456789"))

    assert {(type(outcome), outcome.cause) for _, outcome in report.outcomes} == {(Deferred, Cause.LOGIN_REFUSED)}
    assert len(sandbox.auth_attempts) == 1


async def test_a_key_without_the_grant_is_not_refused(tls_dir):
    """SMTP may be open to it: HTTPS is no way for this key, and that is all."""
    async with api(tls_dir, smtp_only_keys=[KEY]) as (_, way):
        outcome = await way.outcome()

    assert (type(outcome), outcome.cause) == (Deferred, Cause.NO_HTTP_GRANT)


async def test_size_and_domain_bounce(tls_dir):
    """What SparkPost will never take."""
    async with api(tls_dir, message_size=1000, sending_domains=["example.org"]) as (_, way):
        large = await way.outcome(PLAIN + b"x" * 70 + b"\r\n" + b"y" * 990 + b"\r\n")
        foreign = await way.outcome()

    assert (type(large), large.cause, large.fact.reply.code) == (Bounced, Cause.TOO_LARGE, 552)
    assert (type(foreign), foreign.cause) == (Bounced, Cause.UNCONFIGURED_DOMAIN)


async def test_an_answer_that_breaks_off_is_ambiguous(tls_dir):
    """The connection is reset in the midst of a 200: it was a yes or a no, and nobody knows which."""
    async with api(tls_dir) as (sandbox, way):
        outcome = await way.outcome(recipient="cut-after-dot")

    assert isinstance(outcome, Ambiguous)
    assert [accepted.ambiguous for accepted in sandbox.accepted] == [True]


async def test_a_login_without_an_api_waits_for_smtp(tls_dir):
    """A credential with a host of its own, and no URL for it: its key is shown to nobody else."""
    channel = HttpChannel(lambda _: None, ssl.create_default_context(), connect_seconds=1.0)
    report = await channel.send(message_of(), to("b"), login_of(credential="europe"), Effort(1.0))

    assert report.outcomes[0][1].cause is Cause.SMTP_ONLY
    assert report.endpoint is None


@pytest.mark.parametrize("key", ["zwei\r\nzeilen", "schlüssel"])
async def test_a_key_that_no_header_can_carry(tls_dir, key):
    """It stays where it is, and nothing is raised."""
    async with api(tls_dir) as (sandbox, way):
        outcome = await way.outcome(login=login_of(key=key))

    assert isinstance(outcome, Deferred)
    assert key not in str(outcome)
    assert sandbox.sessions == []


# -- what comes of no answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipient", "kind"),
    [
        ("disconnect-after-dot", FailureKind.LOST),
        ("silent-after-dot", FailureKind.TIMEOUT),
        ("gibberish-after-dot", FailureKind.PROTOCOL),
    ],
)
async def test_no_answer_after_the_whole_request_is_ambiguous(tls_dir, recipient, kind):
    """SparkPost has it, and nobody can know; the other recipients are not risked in the same attempt."""
    async with api(tls_dir, answer_seconds=0.3) as (sandbox, way):
        report = await way.report(recipients=(recipient, "c", *["d"] * 20))

    (_, first), *others = report.outcomes
    assert isinstance(first, Ambiguous)
    assert (first.fact.phase, first.fact.kind) == (Phase.RESPONSE, kind)
    assert {(type(one), one.fact.kind) for _, one in others} == {(Deferred, FailureKind.WITHHELD)}
    assert {str(one.fact) for _, one in others} == {f"not tried, as another request failed: {first.fact}"}
    assert [accepted.ambiguous for accepted in sandbox.accepted] == [True]


async def test_a_defect_between_two_requests_takes_no_answer_back(tls_dir, monkeypatch):
    """Who was delivered to stays so; the other's request had left as a whole, so nobody knows."""
    answers = []

    def read_once(status: int, body: bytes) -> HttpAnswer:
        answers.append(status)
        if len(answers) == 2:
            raise RuntimeError("a defect")
        return read_answer(status, body)

    monkeypatch.setattr("relay.upstream.http_api.read_answer", read_once)
    with capture_logs() as logged:
        async with api(tls_dir) as (_, way):
            report = await way.report(recipients=("b", "c", "d"))

    first, second, third = (outcome for _, outcome in report.outcomes)
    assert isinstance(first, Delivered)
    assert second == classify(defect(sent=True))
    assert (type(third), third.fact.kind) == (Deferred, FailureKind.WITHHELD)
    assert [event["event"] for event in logged if event["log_level"] == "error"] == ["internal.error"]


@pytest.mark.parametrize(
    ("mode", "phase", "kind"),
    [
        ("wrong-name", Phase.TLS, FailureKind.UNVERIFIED),
        ("expired", Phase.TLS, FailureKind.UNVERIFIED),
        ("untrusted", Phase.TLS, FailureKind.UNVERIFIED),
    ],
)
async def test_a_certificate_that_does_not_verify_gets_no_key(tls_dir, mode, phase, kind):
    """The endpoint is at fault, and nothing was said to it."""
    async with api(tls_dir, mode) as (sandbox, way):
        outcome = await way.outcome()

    assert isinstance(outcome, Deferred)
    assert (outcome.fact.phase, outcome.fact.kind, outcome.scope) == (phase, kind, Scope.ENDPOINT)
    assert all(KEY.encode() not in exchange.octets for one in sandbox.sessions for exchange in one.transcript)


async def test_nobody_there(tls_dir):
    """Refused, or a name without an address: the way is at fault."""
    async with api(tls_dir) as (sandbox, way):
        url = f"https://localhost:{sandbox.http_address[1]}"
        tls = verifying_context(str(sandbox.ca_file), "1.2")
        await sandbox.stop()
        refused = await way.outcome()
    nowhere = Way(url.replace("localhost", "no-such-host.invalid"), tls)
    unresolved = await nowhere.outcome()
    await nowhere.channel.close()

    assert (type(refused), refused.fact.phase, refused.scope) == (Deferred, Phase.CONNECT, Scope.ENDPOINT)
    assert (type(unresolved), unresolved.fact.phase) == (Deferred, Phase.RESOLVE)


async def test_name_servers_that_fail_do_not_stop_what_has_worked(tls_dir, monkeypatch):
    """The addresses that the API had last stand in; a first lookup that fails is the way's fault."""

    def down(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async with api(tls_dir) as (sandbox, way):
        first = await way.outcome()
        await way.channel.close()  # the next needs a connection of its own
        monkeypatch.setattr(socket, "getaddrinfo", down)
        second = await way.outcome()
        other = Way(f"https://localhost:{sandbox.http_address[1]}/api/v1", ssl.create_default_context())
        unresolved = await other.outcome()
        await other.channel.close()

    assert (type(first), type(second), len(sandbox.accepted)) == (Delivered, Delivered, 2)
    assert (unresolved.fact.phase, unresolved.fact.kind) == (Phase.RESOLVE, FailureKind.UNRESOLVED)


async def test_patience_ends_while_connecting():
    """A host that takes the connection and says nothing: TLS does not come about in time."""
    async with raw_server(lambda _reader, _writer: asyncio.Event().wait()) as port:
        way = Way(f"https://127.0.0.1:{port}/api/v1", ssl.create_default_context())
        outcome = await way.outcome(effort=Effort(0.2))
        await way.channel.close()

    assert isinstance(outcome, Deferred)
    assert (outcome.fact.phase, outcome.fact.kind) == (Phase.CONNECT, FailureKind.TIMEOUT)


async def test_a_lost_claim_sends_no_end():
    """The request is broken off before its last octets: SparkPost cannot have taken it."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while octets := await reader.read(65536):
            heard.extend(octets)

    permit = Permit()
    permit.under(lambda: False)
    async with raw_server(listen) as port:
        way = Way(f"http://127.0.0.1:{port}/api/v1", ssl.create_default_context())
        report = await way.report(PLAIN + b"x\r\n" * 100_000, ("b", "c"), effort=Effort(5.0, permit=permit))
        await way.channel.close()

    assert [(type(outcome), outcome.fact.kind) for _, outcome in report.outcomes] == [(Deferred, FailureKind.LEASE)] * 2
    assert not permit.used
    assert not heard.endswith(b'"}}')


async def test_a_reset_before_the_end_is_not_ambiguous():
    """The body never was complete."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with raw_server(hang_up) as port:
        way = Way(f"http://127.0.0.1:{port}/api/v1", ssl.create_default_context())
        outcome = await way.outcome(PLAIN + b"x\r\n" * 5_000_000)
        await way.channel.close()

    assert isinstance(outcome, Deferred)
    assert (outcome.fact.phase, outcome.fact.kind) == (Phase.REQUEST, FailureKind.LOST)


@pytest.mark.parametrize(
    ("status", "kind"), [("401 Unauthorized", Cause.LOGIN_REFUSED), ("200 OK", None)], ids=["refusal", "nonsense"]
)
async def test_an_answer_before_the_end_of_the_request(status, kind):
    """A refusal counts and ends the sending; a yes to half a message is nonsense."""

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        await writer.drain()
        await asyncio.Event().wait()

    permit = Permit()
    async with raw_server(answer_early) as port:
        way = Way(f"http://127.0.0.1:{port}/api/v1", ssl.create_default_context())
        outcome = await way.outcome(PLAIN + b"x\r\n" * 5_000_000, effort=Effort(5.0, permit=permit))
        await way.channel.close()

    assert (type(outcome), outcome.cause) == (Deferred, kind)
    assert not permit.used


async def test_a_request_that_stands_still():
    """A peer that stops reading: the content's patience runs out before its end."""

    async def stop_reading(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with raw_server(stop_reading) as port:
        way = Way(f"http://127.0.0.1:{port}/api/v1", ssl.create_default_context())
        outcome = await way.outcome(PLAIN + b"x\r\n" * 5_000_000, effort=Effort(0.5))
        await way.channel.close()

    assert (type(outcome), outcome.fact.phase, outcome.fact.kind) == (Deferred, Phase.REQUEST, FailureKind.TIMEOUT)


async def test_redirects_are_not_followed(tls_dir):
    """The key is for one host."""

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"}}')
        writer.write(b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_server(redirect) as port:
        way = Way(f"http://127.0.0.1:{port}/api/v1", ssl.create_default_context())
        outcome = await way.outcome()
        await way.channel.close()

    assert (type(outcome), outcome.fact.status) == (Deferred, 307)


async def test_a_cancelled_attempt_leaves_nothing_running(tls_dir):
    """The connection is dropped."""
    async with api(tls_dir, "silent") as (sandbox, way):
        begun = asyncio.Event()
        permit = Permit()
        permit.under(lambda: begun.set() is None)
        task = asyncio.create_task(way.outcome(effort=Effort(5.0, permit=permit)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sandbox.wait_closed()


async def test_an_attempt_that_is_to_end_begins_no_further_request(tls_dir):
    """The relay is stopping: what SparkPost has taken is told, and the other recipients are not at fault."""
    async with api(tls_dir) as (sandbox, way):
        permit = Permit()
        permit.ending = True
        report = await way.report(recipients=("b", "c", "d"), effort=Effort(5.0, permit=permit))

    first, *others = (outcome for _, outcome in report.outcomes)
    assert isinstance(first, Delivered)
    assert [other.fact.kind for other in others] == [FailureKind.WITHHELD] * 2
    assert len(sandbox.accepted) == 1


async def test_who_finds_all_connections_busy_has_not_found_the_way_closed(tls_dir):
    """It waits as long as its patience lasts; requests that are under way are counted for their credential."""
    async with api(tls_dir, connections=1) as (sandbox, way):
        first = asyncio.create_task(way.outcome(recipient="slow-dot-600ms"))
        await sandbox.wait_for(1)
        busy = way.channel.sessions
        late = await way.outcome(effort=Effort(0.1))
        queued = await way.outcome(effort=Effort(5.0))
        served = await first

    assert busy == {("default", f"https://localhost:{sandbox.http_address[1]}", "busy"): 1}
    assert way.channel.sessions == {}
    assert (type(late), late.fact.kind) == (Deferred, FailureKind.DEADLINE)
    assert "busy" in str(late.fact)
    assert [type(queued), type(served)] == [Delivered, Delivered]


# -- proof ------------------------------------------------------------------------------------------------------------


async def proof(way: Way, **login: object) -> Outcome | None:
    return await way.channel.prove(login_of(**login), patience=2.0)


async def test_a_good_key_is_proved_without_mail(tls_dir):
    """What is asked for cannot be sent to anybody."""
    async with api(tls_dir) as (sandbox, way):
        assert await proof(way) is None
        assert await proof(way, subaccount=5) is None

    assert sandbox.accepted == []
    assert [one.accepted for one in sandbox.auth_attempts] == [True, True]


async def test_a_key_that_may_not_send_is_found_out(tls_dir):
    """A wrong key and a key without the permission are two things."""
    async with api(tls_dir, smtp_only_keys=[KEY]) as (_, way):
        forbidden, wrong = await proof(way), await proof(way, key="wrong-key-0123456789")

    assert (forbidden.cause, wrong.cause) == (Cause.NO_HTTP_GRANT, Cause.LOGIN_REFUSED)


@pytest.mark.parametrize("mode", ["drop", "gibberish", "silent", "500", "429", "untrusted"])
async def test_nothing_is_proved_where_nobody_answers(tls_dir, mode):
    """Neither that the key is good nor that it is not; and nothing can have been taken."""
    async with api(tls_dir, mode, answer_seconds=0.3) as (_, way):
        outcome = await proof(way)

    assert isinstance(outcome, Deferred)
    assert outcome.cause not in (Cause.LOGIN_REFUSED, Cause.NO_HTTP_GRANT)


async def test_a_login_without_an_api_cannot_be_proved():
    """Its key is shown to nobody."""
    channel = HttpChannel(lambda _: None, ssl.create_default_context(), connect_seconds=1.0)
    outcome = await channel.prove(login_of(credential="europe"), patience=1.0)

    assert outcome.cause is Cause.SMTP_ONLY


# -- whatever is answered ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def raw_server(handle) -> AsyncIterator[int]:
    """A port where `handle` speaks."""
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(KEY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ERROR = st.fixed_dictionaries({}, optional={"message": JSON, "code": JSON, "description": JSON})
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "results": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "id": JSON,
                "total_accepted_recipients": JSON,
                "total_rejected_recipients": JSON,
                "rcpt_to_errors": JSON,
            },
        ),
        "errors": JSON
        | st.lists(
            st.fixed_dictionaries({}, optional={"message": JSON, "code": JSON, "description": JSON}), max_size=2
        ),
    },
)
BODY = (
    st.binary(max_size=80)
    | JSON.map(lambda value: json.dumps(value).encode())
    | DOCUMENT.map(lambda value: json.dumps(value).encode())
)
HEAD = st.one_of(
    st.integers(100, 999).map(lambda status: f"HTTP/1.1 {status} X\r\n".encode()),
    st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 400\r\n", b"220 smtp\r\n", b""]),
)
FIELDS = st.sampled_from(
    [
        b"Content-Length: %d\r\n",
        b"Content-Length: 7\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Connection: close\r\nSet-Cookie: a=b\r\n",
        b"X: " + b"y" * 20_000 + b"\r\n",
        b"",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(head=HEAD, fields=FIELDS, body=BODY, raw=st.none() | st.binary(max_size=60))
def test_any_answer_has_an_outcome(head, fields, body, raw):
    """Octets of every kind: one of the four outcomes, no exception, and the key in no text."""
    fields = fields % len(body) if b"%d" in fields else fields
    octets = head + fields + b"\r\n" + body if raw is None else raw

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"}}')
        writer.write(octets)
        await writer.drain()

    async def attempt() -> Outcome:
        async with raw_server(answer) as port:
            way = Way(f"http://127.0.0.1:{port}/api/v1", ssl.create_default_context())
            try:
                return await way.outcome()
            finally:
                await way.channel.close()

    outcome = asyncio.run(attempt())
    assert isinstance(outcome, Delivered | Deferred | Bounced | Ambiguous)
    assert isinstance(outcome.fact, HttpAnswer | Failure)
    assert KEY not in str(outcome) + str(outcome.fact) + repr(outcome)
    assert str(outcome.fact).isprintable()
    if isinstance(outcome, Delivered):
        assert outcome.fact.status == 200
        assert outcome.fact.reply.code == 250
    if isinstance(outcome, Bounced):
        assert outcome.fact.reply.permanent
        assert outcome.fact.code is not None or outcome.fact.status in (200, 413)
