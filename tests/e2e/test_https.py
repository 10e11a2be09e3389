"""Every port of SMTP is blocked: mail goes by HTTPS, whole and once, and goes back to SMTP as soon as a port works."""

import asyncio
import contextlib
import email
import email.policy
import itertools
import json
import smtplib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.app import Relay
from relay.core.lifecycle import Fate, State
from relay.core.spooled import Entry
from relay.observe import log as events
from relay.sandbox import HttpPort, Port, Sandbox
from tests.support.admin import WITH_TOKEN, ask, keeping, tcp_of
from tests.support.client import CONTENT, send
from tests.support.clock import LaterClock
from tests.support.ledger import read, settled, until
from tests.support.running import BLOCKED, KEY, port_of, relay_to, sandbox_with

OTHER_KEY = "f" * 40
IMPATIENT = {"connect": "1s", "banner": "400ms", "command": "400ms"}
TWO_CREDENTIALS = {
    "credentials": {"default": {"api_key": KEY}, "other": {"api_key": OTHER_KEY}},
    "identities": [{"name": "other", "match": {"mail_from": "*@other.example"}, "credential": "other"}, {}],
}


@contextlib.asynccontextmanager
async def blocked(
    tmp_path: Path,
    *modes: str,
    http: str = "normal",
    spool: bool = True,
    rules: dict[str, Any] | None = None,
    clock: LaterClock | None = None,
    **sections: Any,
) -> AsyncIterator[tuple[Sandbox, Relay]]:
    """A relay that may use HTTPS in front of a SparkPost whose SMTP ports have these modes: drop, if none is given."""
    rules = {"api_keys": {KEY: None, OTHER_KEY: None}} | (rules or {})
    ports = [Port(mode=mode) for mode in modes or ("drop",)]
    async with sandbox_with(tmp_path / "tls", ports=ports, http=HttpPort(mode=http), **rules) as sandbox:
        url = f"{endpoint(sandbox)}/api/v1"
        upstream = {"http": {"enabled": True, "url": url}, "timeouts": IMPATIENT, **sections.pop("upstream", {})}
        if spool:
            sections = keeping(tmp_path) | sections
            sections.setdefault("delivery", {"retry": {"first": "300ms", "max": "600ms"}})
        async with relay_to(sandbox, clock=clock, upstream=upstream, **sections) as relay:
            yield sandbox, relay


def endpoint(sandbox: Sandbox) -> str:
    assert sandbox.http_address is not None
    return f"https://localhost:{sandbox.http_address[1]}"


async def open_again(sandbox: Sandbox, relay: Relay) -> None:
    """The ports work, and the relay has found that out by itself."""
    for index in range(len(sandbox.ports)):
        sandbox.set_mode("normal", index)
    await until(lambda: not relay.circuits.targets_down)


def delivered(entries: Sequence[Entry]) -> bool:
    return all(entry.state is State.DELIVERED for entry in entries)


def requests(sandbox: Sandbox) -> int:
    """How many there were over HTTPS."""
    return sum(attempt.mechanism == "HTTP" for attempt in sandbox.auth_attempts)


def with_header(line: bytes) -> bytes:
    return line + b"\r\n" + CONTENT


# -- the way there ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", BLOCKED)
async def test_ports_that_are_blocked_in_any_way(tmp_path, mode):
    """The very message that finds it out goes by HTTPS, and the application hears SparkPost's own answer."""
    with capture_logs() as logged:
        async with blocked(tmp_path, mode, mode, spool=False) as (sandbox, relay):
            codes = [await send(port_of(relay)) for _ in range(3)]

    assert [code for code, _ in codes] == [250] * 3, codes
    assert [one.via for one in sandbox.accepted] == ["http"] * 3
    for one, (_, text) in zip(sandbox.accepted, codes, strict=True):
        assert f"2.0.0 OK {one.token}" in text
    done = [one for one in logged if one["event"] == events.ATTEMPT_DONE]
    assert [one["endpoint"] for one in done] == [endpoint(sandbox)] * 3
    assert [one["message_id"] for one in done] == [one.token for one in sandbox.accepted]
    (fallback,) = [one for one in logged if one["event"] == events.UPSTREAM_FALLBACK]
    assert (fallback["host"], fallback["endpoint"]) == ("localhost", endpoint(sandbox))
    smtp = [session for session in sandbox.sessions if session.port != sandbox.http_address[1]]
    assert not any(session.logins for session in smtp)


async def test_ports_where_nobody_listens(tmp_path):
    """Refused at once: the message takes no longer for it."""
    async with blocked(tmp_path, spool=False, upstream={"ports": [1, 2]}) as (sandbox, relay):
        code, _ = await send(port_of(relay))

    assert code == 250
    assert [one.via for one in sandbox.accepted] == ["http"]


async def test_a_port_that_says_not_now_is_not_gone_round(tmp_path):
    """421 is SparkPost's own, and it is not asked by another door."""
    async with blocked(tmp_path, "tempfail-banner", spool=False) as (sandbox, relay):
        codes = [await send(port_of(relay)) for _ in range(2)]

    assert [code for code, _ in codes] == [451, 451]
    assert requests(sandbox) == 0


async def test_without_upstream_http_mail_waits_for_a_port(tmp_path):
    """Nobody is asked over HTTPS unless it is wanted."""
    async with blocked(tmp_path, spool=False, upstream={"http": {"enabled": False}}) as (sandbox, relay):
        code, _ = await send(port_of(relay))

    assert code == 451
    assert requests(sandbox) == 0


async def test_what_was_stored_goes_by_https_too(tmp_path):
    """`delivery: queue`, and several recipients: each has its own request, outcome and id."""
    recipients = [f"b{number}@example.net" for number in range(5)]
    async with blocked(tmp_path, identities=[{"name": "bulk", "delivery": "queue"}]) as (sandbox, relay):
        code, text = await send(port_of(relay), *recipients)
        (entry,) = await settled(relay, delivered)

    assert (code, text) == (250, f"2.0.0 queued as {entry.queue_id}")
    assert [one.recipients for one in sandbox.accepted] == [(recipient,) for recipient in recipients]
    assert [one.message_id for one in entry.recipients] == [one.token for one in sandbox.accepted]
    assert entry.history[-1].endpoint == endpoint(sandbox)
    assert {line.number for line in entry.history} == {1}


# -- what arrives -----------------------------------------------------------------------------------------------------


async def test_octets_arrive_as_they_came(tmp_path):
    """Under a Received line; blind copies are out, braces in the header are literal, and the body has its own."""
    header = (
        b"From: a@example.com\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <1@example.com>\r\n"
        b"To: b@example.net\r\nSubject: {{name}} {{{x}}} }}\r\n"
    )
    body = b'\r\n{{ body }} \\ "quoted" \t tab\r\n.\r\n..dots\r\n\x7f last line\r\n'
    stuffed = body.replace(b"\r\n.", b"\r\n..")
    async with blocked(tmp_path, spool=False) as (sandbox, relay):
        code, _ = await asyncio.to_thread(
            raw_send, port_of(relay), header + b"Bcc: secret@example.net,\r\n other@example.net\r\n" + stuffed
        )

    (accepted,) = sandbox.accepted
    received, _, rest = accepted.content.partition(b"From:")
    assert code == 250
    assert received.startswith(b"Received: from ")
    assert received.count(b"\r\n") == 3
    assert b"From:" + rest == header + body
    said = b"".join(exchange.octets for session in sandbox.sessions for exchange in session.transcript)
    assert b"{{opening_double_curly()}}name{{closing_double_curly()}}" in said
    assert b"secret@example.net" not in said


async def test_what_the_application_asks_of_sparkpost_goes_beside_the_message(tmp_path):
    """X-MSYS-API becomes fields of the JSON; no X-MSYS header is left; the subaccount is named; no return path."""
    asked = {
        "campaign_id": "invoices",
        "metadata": {"order": "7"},
        "tags": ["a", "b"],
        "options": {"click_tracking": True, "transactional": True, "ip_pool": "fast"},
    }
    content = with_header(b"X-MSYS-API: " + json.dumps(asked).encode())
    accept = ["campaign_id", "metadata", "tags", "options.click_tracking", "options.transactional", "options.ip_pool"]
    identity = {"name": "tenant", "subaccount": 5, "sparkpost": {"accept": accept}}
    async with blocked(tmp_path, identities=[identity]) as (sandbox, relay):
        code, _ = await send(port_of(relay), content=content)

    (accepted,) = sandbox.accepted
    assert code == 250
    assert b"X-MSYS" not in accepted.content.upper()
    assert (accepted.subaccount, accepted.reverse_path) == (5, "")
    assert accepted.transmission == {
        "recipients": [{"address": {"email": "b@example.net"}, "tags": ["a", "b"]}],
        "campaign_id": "invoices",
        "metadata": {"order": "7"},
        "options": {
            "open_tracking": False,
            "click_tracking": True,
            "transactional": True,
            "ip_pool": "fast",
            "perform_substitutions": False,
        },
    }


async def test_eight_bit_mail_arrives_as_the_same_text(tmp_path):
    """JSON carries no octets: they are re-encoded, and a reader sees no difference."""
    text = "Grüße, 你好 {{name}}\r\n"
    content = (
        b"From: a@example.com\r\nTo: b@example.net\r\nSubject: test\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text.encode()
    )
    async with blocked(tmp_path) as (sandbox, relay):
        code, _ = await send(port_of(relay), content=content)

    (accepted,) = sandbox.accepted
    message = email.message_from_bytes(accepted.content, policy=email.policy.SMTP)
    assert code == 250
    assert accepted.content.isascii()
    assert message.get_content().replace("\r\n", "\n") == text.replace("\r\n", "\n")


async def test_a_boundary_outside_ascii_hinders_nobody(tmp_path):
    """It goes as the same parts, at once, and nothing is held up by it."""
    part = b"--gr\xfc\xdfe\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n%s\r\n"
    content = (
        b'From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="gr\xfc\xdfe"\r\n\r\n'
        + part % b"one"
        + part % b"two"
        + b"--gr\xfc\xdfe--\r\n"
    )
    async with blocked(tmp_path) as (sandbox, relay):
        code, _ = await send(port_of(relay), content=content)

    (accepted,) = sandbox.accepted
    message = email.message_from_bytes(accepted.content, policy=email.policy.SMTP)
    assert code == 250
    assert [one.get_content().strip() for one in message.iter_parts()] == ["one", "two"]


def raw_send(port: int, stuffed: bytes) -> tuple[int, bytes]:
    """A message whose dots the caller has stuffed itself."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("client.test")
        client.mail("a@example.com")
        client.rcpt("b@example.net")
        client.docmd("DATA")
        client.send(stuffed + b".\r\n")
        return client.getreply()


# -- the way back -----------------------------------------------------------------------------------------------------


async def test_mail_goes_back_to_smtp_when_a_port_works(tmp_path):
    """Nobody's message finds that out; the ledger has every recipient once, with the way it went."""
    with capture_logs() as logged:
        async with blocked(tmp_path) as (sandbox, relay):
            for number in range(3):
                await send(port_of(relay), f"early{number}@example.net", f"too{number}@example.net")
            await open_again(sandbox, relay)
            for number in range(3):
                await send(port_of(relay), f"late{number}@example.net")
            entries = await settled(relay, lambda found: len(found) == 6 and delivered(found))

    by_https = [one for entry in entries[:3] for one in entry.recipients]
    by_smtp = [one for entry in entries[3:] for one in entry.recipients]
    assert [one.via for one in sandbox.accepted] == ["http"] * 6 + ["smtp"] * 3
    assert [(one.address,) for one in by_https + by_smtp] == [one.recipients for one in sandbox.accepted]
    assert [one.message_id for one in by_https + by_smtp] == [one.token for one in sandbox.accepted]
    assert {entry.history[-1].endpoint for entry in entries[:3]} == {endpoint(sandbox)}
    assert {entry.history[-1].endpoint for entry in entries[3:]} == {f"localhost:{sandbox.addresses[0][1]}"}
    assert {line.number for entry in entries for line in entry.history} == {1}
    assert not any(entry.maybe_twice for entry in entries)
    told = [one["event"] for one in logged if one["event"].startswith("upstream.")]
    assert told == [events.UPSTREAM_DOWN, events.UPSTREAM_FALLBACK, events.UPSTREAM_UP]


async def test_a_second_outage_is_told_again(tmp_path):
    """To and fro, with mail on each way, and nothing lost or doubled."""
    with capture_logs() as logged:
        async with blocked(tmp_path, upstream={"messages_per_connection": 1}) as (sandbox, relay):
            for _ in range(2):
                await send(port_of(relay))
                await open_again(sandbox, relay)
                await send(port_of(relay))
                sandbox.set_mode("drop")

    assert [one.via for one in sandbox.accepted] == ["http", "smtp"] * 2
    assert [one["event"] for one in logged].count(events.UPSTREAM_FALLBACK) == 2


async def test_to_and_fro_under_load(tmp_path):
    """Ports open and close while mail comes in: every message arrives once, by one way or the other."""
    total, batch, clients = 240, 60, 3
    numbers = iter(range(total))

    async def client(relay: Relay) -> None:
        for number in itertools.islice(numbers, batch // clients):
            code, text = await send(port_of(relay), f"n{number}@example.net")
            assert code == 250, text

    async with blocked(tmp_path, upstream={"messages_per_connection": 5}) as (sandbox, relay):
        for mode in ("normal", "drop", "normal", "normal"):
            begun = sandbox.accepted_total
            sending = asyncio.gather(*(client(relay) for _ in range(clients)))
            await sandbox.wait_for(begun + batch // 3, timeout=30)
            sandbox.set_mode(mode)
            await sending
            if mode == "normal":
                await until(lambda: not relay.circuits.targets_down)
        entries = await settled(relay, lambda found: len(found) == total and delivered(found))

    assert {one.via for one in sandbox.accepted} == {"http", "smtp"}
    arrived = [recipient for one in sandbox.accepted for recipient in one.recipients]
    assert sorted(arrived) == sorted(f"n{number}@example.net" for number in range(total))
    assert {one.message_id for entry in entries for one in entry.recipients} == {one.token for one in sandbox.accepted}
    assert not any(entry.maybe_twice for entry in entries)
    ways = {entry.recipients[0].message_id: entry.history[-1].endpoint for entry in entries}
    for one in sandbox.accepted:
        assert ways[one.token].startswith("https://") == (one.via == "http")


# -- what HTTPS refuses -----------------------------------------------------------------------------------------------


async def test_403_is_no_way_and_nothing_else(tmp_path):
    """The key is asked once, neither it nor the message is refused, nobody is blamed; SMTP takes the mail later."""
    with capture_logs() as logged:
        async with blocked(tmp_path, rules={"smtp_only_keys": [KEY]}, **TWO_CREDENTIALS) as (sandbox, relay):
            codes = [(await send(port_of(relay)))[0] for _ in range(4)]
            other, _ = await send(port_of(relay), mail_from="a@other.example")
            entries = await settled(relay, lambda found: len(found) == 5)
            refused = relay.circuits.logins_refused
            asked = requests(sandbox)
            await open_again(sandbox, relay)
            after = await settled(relay, delivered)

    waiting = [entry for entry in entries if entry.assignment.credential == "default"]
    assert codes == [250] * 4
    assert other == 250
    assert refused == {}
    assert asked == 2
    assert [(entry.state, entry.attempts, entry.recipients[0].fate) for entry in waiting] == [
        (State.QUEUED, 0, Fate.PENDING)
    ] * 4
    assert sorted(one.via for one in sandbox.accepted) == ["http"] + ["smtp"] * 4
    assert len(after) == len(sandbox.accepted) == 5
    assert [one["event"] for one in logged].count(events.UPSTREAM_NO_GRANT) == 1
    assert not any(one["event"] == events.CREDENTIAL_REFUSED for one in logged)


async def test_401_is_a_refused_login(tmp_path):
    """As after a 535: one login a minute, over HTTPS while SMTP is blocked; other credentials go on."""
    clock = LaterClock()
    rules = {"api_keys": {OTHER_KEY: None}}
    async with blocked(tmp_path, rules=rules, clock=clock, **TWO_CREDENTIALS) as (sandbox, relay):
        codes = [(await send(port_of(relay)))[0] for _ in range(3)]
        other, _ = await send(port_of(relay), mail_from="a@other.example")
        entries = await settled(relay, lambda found: len(found) == 4)
        refused = [login.credential for login in relay.circuits.logins_refused]
        asked = [attempt.accepted for attempt in sandbox.auth_attempts]
        sandbox.api_keys[KEY] = None
        clock.later = 61.0
        after = await settled(relay, delivered)

    assert codes == [250] * 3
    assert other == 250
    assert (refused, asked) == (["default"], [False, True])
    assert all(entry.attempts == 0 for entry in entries if entry.assignment.credential == "default")
    assert [one.via for one in sandbox.accepted] == ["http"] * 4
    assert len(after) == 4


@pytest.mark.parametrize("recipient", ["quota@example.net", "http-420@example.net", "http-429@example.net"])
async def test_420_and_429_pause_their_credential(tmp_path, recipient):
    """The message waits without blame, and with it all mail of the credential; another one's goes on."""
    async with blocked(tmp_path, **TWO_CREDENTIALS) as (sandbox, relay):
        await send(port_of(relay), recipient)
        await send(port_of(relay))
        other, text = await send(port_of(relay), mail_from="a@other.example")
        entries = await settled(relay, lambda found: len(found) == 3)
        asked = requests(sandbox)

    waiting = [entry for entry in entries if entry.assignment.credential == "default"]
    assert (other, "queued" in text) == (250, False)
    assert asked == 2
    assert [(entry.state, entry.attempts) for entry in waiting] == [(State.QUEUED, 0)] * 2
    assert [one.key_digest for one in sandbox.accepted] == [sandbox.accepted[0].key_digest]


async def test_a_429_is_over_soon(tmp_path):
    """Some seconds, and the credential goes on."""
    clock = LaterClock()
    async with blocked(tmp_path, clock=clock) as (sandbox, relay):
        sandbox.set_http_mode("429")
        await send(port_of(relay))
        (entry,) = await settled(relay)
        sandbox.set_http_mode("normal")
        clock.later = 5.5
        relay.queue.wake()
        await send(port_of(relay), "second@example.net")
        found = await settled(relay, lambda found: len(found) == 2 and delivered(found))

    assert (entry.state, entry.attempts) == (State.QUEUED, 0)
    assert len(found) == len(sandbox.accepted) == 2


@pytest.mark.parametrize(
    ("recipient", "code"),
    [("http-422-1300", 554), ("http-400-7001", 550), ("permfail", 550), ("http-413", 552)],
)
async def test_what_sparkpost_will_never_take_is_refused_at_once(tmp_path, recipient, code):
    """The application hears it, in the words of SMTP; nothing is kept, and nothing is closed by it."""
    async with blocked(tmp_path) as (sandbox, relay):
        answer, _ = await send(port_of(relay), f"{recipient}@example.net")
        ledger = await read(relay)
        next_one, text = await send(port_of(relay))

    assert answer == code
    assert ledger == []
    assert (next_one, sandbox.accepted[0].token in text) == (250, True)


async def test_each_recipient_has_its_own_outcome(tmp_path):
    """One POST each, so that a mixed answer cannot be: accepted, refused, deferred, and nobody twice."""
    recipients = ["b@example.net", "permfail@example.net", "http-503@example.net", "c@example.net"]
    async with blocked(tmp_path) as (sandbox, relay):
        code, text = await send(port_of(relay), *recipients)
        (entry,) = await settled(relay, lambda found: found[0].attempts >= 3)

    assert code == 250
    assert "1 of 4 recipients were refused" in text
    assert [one.fate for one in entry.recipients] == [Fate.DELIVERED, Fate.BOUNCED, Fate.PENDING, Fate.DELIVERED]
    assert sorted(one.recipients for one in sandbox.accepted) == [("b@example.net",), ("c@example.net",)]


@pytest.mark.parametrize("recipient", ["http-500", "tempfail", "http-422-3020"])
async def test_what_may_work_later_is_tried_again_on_the_schedule(tmp_path, recipient):
    """5xx, and what the API's MIME reader does not like: attempts, with growing pauses; and SMTP ends it."""
    async with blocked(tmp_path) as (sandbox, relay):
        code, text = await send(port_of(relay), f"{recipient}@example.net")
        (entry,) = await settled(relay, lambda found: found[0].attempts >= 2)
        other, _ = await send(port_of(relay))

    assert (code, text) == (250, f"2.0.0 queued as {entry.queue_id}")
    assert entry.recipients[0].fate is Fate.PENDING
    assert all(line.outcome == "deferred" for line in entry.history)
    assert not entry.maybe_twice
    assert other == 250
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",)]


@pytest.mark.parametrize(
    ("recipient", "taken"),
    [
        ("http-504", 0),
        ("http-502", 0),
        ("disconnect", 0),
        ("cut-after-dot", 1),
        ("disconnect-after-dot", 1),
        ("gibberish-after-dot", 1),
    ],
)
async def test_no_answer_is_ambiguous(tmp_path, recipient, taken):
    """504, a reset in the midst of the answer or instead of it: marked, on the ordinary schedule, one request a try."""
    delivery = {"retry": {"first": "60s"}}
    async with blocked(tmp_path, delivery=delivery) as (sandbox, relay):
        code, text = await send(port_of(relay), f"{recipient}@example.net")
        (entry,) = await settled(relay)

    assert (code, text) == (250, f"2.0.0 queued as {entry.queue_id}")
    assert (entry.state, entry.attempts, entry.maybe_twice) == (State.QUEUED, 1, True)
    assert [line.outcome for line in entry.history] == ["ambiguous"]
    assert requests(sandbox) == 1
    assert [one.ambiguous for one in sandbox.accepted] == [True] * taken


async def test_no_room_to_put_a_large_message_together_is_an_attempt_that_failed(tmp_path, monkeypatch):
    """It is told and counted, nobody is taken to have it, and it goes as soon as there is room."""
    large = CONTENT + (b"x" * 70 + b"\r\n") * 9000
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    async with blocked(tmp_path, identities=[{"name": "bulk", "delivery": "queue"}]) as (sandbox, relay):
        code, _ = await send(port_of(relay), content=large)
        (before,) = await settled(relay, lambda found: found[0].attempts >= 2)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        (after,) = await settled(relay, delivered)

    assert code == 250
    assert "No such file or directory" in before.history[0].reply
    assert [line.outcome for line in before.history] == ["deferred"] * before.attempts
    assert (before.maybe_twice, after.maybe_twice) == (False, False)
    assert [one.recipients for one in sandbox.accepted] == [("b@example.net",)]


# -- what HTTPS cannot carry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", ["archive", "cc", "bcc"])
async def test_mail_with_an_archive_waits_for_smtp(tmp_path, copies):
    """Nothing of it is sent, it is tried with pauses, and other mail goes on; then SMTP takes it as it is."""
    content = with_header(b'X-MSYS-API: {"%s": ["keep@example.org"]}' % copies.encode())
    with capture_logs() as logged:
        async with blocked(tmp_path, identities=[{"sparkpost": {"accept": [copies]}}]) as (sandbox, relay):
            code, text = await send(port_of(relay), content=content)
            await asyncio.gather(*(send(port_of(relay)) for _ in range(3)))
            (entry, *_) = await settled(relay, lambda found: found[0].attempts >= 2)
            tried = sum(one["event"] == events.ATTEMPT_DONE and one["queue_id"] == entry.queue_id for one in logged)
            before = [one.via for one in sandbox.accepted]
            await open_again(sandbox, relay)
            await settled(relay, delivered)

    assert (code, text) == (250, f"2.0.0 queued as {entry.queue_id}")
    assert before == ["http"] * 3
    assert tried <= 3
    assert sandbox.accepted[-1].via == "smtp"
    assert b"X-MSYS-API" in sandbox.accepted[-1].content


async def test_all_or_nothing_for_several_waits_for_smtp(tmp_path):
    """Without a spool the application hears 451 and why; one recipient goes."""
    async with blocked(tmp_path, spool=False) as (sandbox, relay):
        several = [await send(port_of(relay), "b@example.net", "c@example.net") for _ in range(2)]
        one, _ = await send(port_of(relay))
        by_https = [message.recipients for message in sandbox.accepted]
        await open_again(sandbox, relay)
        later, _ = await send(port_of(relay), "b@example.net", "c@example.net")

    assert [code for code, _ in several] == [451, 451]
    assert "several recipients" in several[1][1]
    assert one == later == 250
    assert by_https == [("b@example.net",)]
    assert sandbox.accepted[-1].recipients == ("b@example.net", "c@example.net")


# -- when HTTPS is no way either --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["untrusted", "nobody"])
async def test_an_api_that_cannot_be_reached_is_left_alone(tmp_path, mode):
    """No connection, or a certificate that does not verify: mail is taken and kept, nothing is tried in vain."""
    upstream = {}
    if mode == "nobody":
        upstream = {"http": {"enabled": True, "url": "https://localhost:1/api/v1"}}
    http = "normal" if mode == "nobody" else mode
    with capture_logs() as logged:
        async with blocked(tmp_path, http=http, upstream=upstream) as (sandbox, relay):
            codes = [(await send(port_of(relay)))[0] for _ in range(5)]
            entries = await settled(relay, lambda found: len(found) == 5)
            health = await ask(tcp_of(relay), "/healthz")
            tried = [one for one in logged if one["event"] == events.ATTEMPT_DONE]
            await open_again(sandbox, relay)
            await settled(relay, delivered)

    assert codes == [250] * 5
    assert {entry.attempts for entry in entries} == {0}
    assert len(tried) <= 2
    assert health.status == 503
    assert "over HTTPS" in health.body.decode()
    assert [one.via for one in sandbox.accepted] == ["smtp"] * 5
    assert requests(sandbox) == 0


async def test_mail_that_waited_for_both_goes_by_the_first_that_opens(tmp_path):
    """HTTPS is tried again by itself, a few seconds later."""
    clock = LaterClock()
    async with blocked(tmp_path, http="untrusted", clock=clock) as (sandbox, relay):
        await send(port_of(relay))
        await settled(relay)
        sandbox.set_http_mode("normal")
        clock.later = 60.0
        relay.queue.wake()
        await send(port_of(relay), "second@example.net")
        await settled(relay, lambda found: len(found) == 2 and delivered(found))

    assert [one.via for one in sandbox.accepted] == ["http"] * 2


# -- what is shown of it ----------------------------------------------------------------------------------------------


async def test_health_and_endpoints_show_the_way(tmp_path):
    """Healthy: SparkPost takes mail now. The ports are down and the API is up, for people and for Prometheus."""
    async with blocked(tmp_path) as (sandbox, relay):
        await send(port_of(relay))
        health = await ask(tcp_of(relay), "/healthz")
        shown = await ask(tcp_of(relay), "/api/v1/endpoints", headers=WITH_TOKEN)
        running = asyncio.create_task(send(port_of(relay), "slow-dot-800ms@example.net"))
        await sandbox.wait_for(2)
        metrics = (await ask(tcp_of(relay), "/metrics")).body.decode()
        await running

    smtp, api = shown.json["endpoints"]
    assert health.status == 200, health.body
    assert (smtp["endpoint"], smtp["up"]) == (f"localhost:{sandbox.addresses[0][1]}", False)
    assert (api["endpoint"], api["up"], api["reason"]) == (endpoint(sandbox), True, None)
    assert f'endpoint_up{{endpoint="{endpoint(sandbox)}"}} 1.0' in metrics
    labels = f'credential="default",endpoint="{endpoint(sandbox)}",state="busy"'
    assert f"upstream_connections{{{labels}}} 1.0" in metrics
    assert "sparkpost_relay_port_fallbacks_total 1.0" in metrics


async def test_an_applications_own_key_goes_by_https_too(tmp_path):
    """Passthrough: SparkPost judges the key over the way that is open; a wrong one is 535, and closes nothing."""
    listeners = [{"address": "127.0.0.1:0", "auth": "passthrough"}]
    async with blocked(tmp_path, listeners=listeners, credentials={}, spool=False) as (sandbox, relay):
        await asyncio.to_thread(log_in, port_of(relay), OTHER_KEY)  # 454, or too late to be: it finds the ports blocked
        good = await asyncio.to_thread(log_in, port_of(relay), OTHER_KEY)
        bad = await asyncio.to_thread(log_in, port_of(relay), "wrong-key")
        again = await asyncio.to_thread(log_in, port_of(relay), OTHER_KEY)

    assert [code for code, _ in (good, bad, again)] == [250, 535, 250], (good, bad, again)
    assert [one.via for one in sandbox.accepted][-2:] == ["http"] * 2


def log_in(port: int, key: str) -> tuple[int, bytes]:
    """Log in and send; the last reply."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("client.test")
        try:
            client.login("SMTP_Injection", key)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code, error.smtp_error
        client.mail("a@example.com")
        client.rcpt("b@example.net")
        return client.data(CONTENT)
