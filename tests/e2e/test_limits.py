"""Clients that want too much: each limit has its reply and its count, and good clients go on beside it."""

import asyncio
import base64
import contextlib
import smtplib
import socket
import struct

import pytest
from structlog.testing import capture_logs

from relay.clock import SystemClock
from relay.ingress import patience as patience_module
from relay.ingress.bans import LONGEST_DELAY
from tests.support.client import send
from tests.support.ledger import until
from tests.support.running import port_of, relay_to, sandbox_with
from tests.support.wire import ENVELOPE, MESSAGE, talk

PASSWORD = "correct-horse"
APP = {"name": "app", "match": {"login": "app"}, "password": PASSWORD}


class HurriedClock(SystemClock):
    """Real time that a test can push on; nobody sleeps long, and what was slept is kept."""

    def __init__(self) -> None:
        self.pushed = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return super().monotonic() + self.pushed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, 0.01))


def met(relay) -> dict[str, float]:
    """limits_total, by limit."""
    samples = next(metric.samples for metric in relay.metrics.limits.collect())
    return {sample.labels["limit"]: sample.value for sample in samples}


def last_line(heard: bytes) -> str:
    return heard.splitlines()[-1].decode()


# -- connections ------------------------------------------------------------------------------------------------------


async def test_connections_in_all_and_from_one_client(tmp_path):
    """The one too many is told so, from whatever address; each is counted under its limit."""
    limits = {"connections": 3, "connections_per_client": 2}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits=limits) as relay:
        writers = []
        for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay), local_addr=(source, 0))
            await reader.readuntil(b"220 ")
            writers.append(writer)
        in_all = await talk(port_of(relay), b"", source="127.0.0.3")
        writers.pop().close()
        await until(lambda: len(relay._connections.sessions) == 2)
        of_one = await talk(port_of(relay), b"", source="127.0.0.1")
        code = last_line(await talk(port_of(relay), b"QUIT\r\n", source="127.0.0.4"))
        for writer in writers:
            writer.close()

    assert in_all == b"421 4.7.0 more than 3 connections, try again later\r\n"
    assert of_one == b"421 4.7.0 more than 2 connections from 127.0.0.1, try again later\r\n"
    assert code == "221 2.0.0 bye"
    assert met(relay) == {"connections": 1, "connections-per-client": 1}


class HeldClock(SystemClock):
    """Whoever puts a refusal off for a moment does so until `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds > LONGEST_DELAY or self.go.is_set():
            await super().sleep(seconds)
        else:
            await self.go.wait()


async def test_a_connection_counts_until_its_login_is_decided(tmp_path):
    """Who hangs up and comes again does not heap up verifications, for which everybody else's login would wait."""
    clock = HeldClock()
    limits = {"connections_per_client": 2}
    wrong = base64.b64encode(b"\0app\0wrong")
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, clock=clock, limits=limits, identities=[APP]) as relay,
    ):
        for number in (1, 2):
            with socket.create_connection(("127.0.0.1", port_of(relay))) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a close is a reset
                client.sendall(b"EHLO c\r\nAUTH PLAIN " + wrong + b"\r\n")
                await until(lambda number=number: relay.metrics.auth_failures._value.get() == number)
        closed = await talk(port_of(relay), b"")
        clock.go.set()
        await until(lambda: not relay._connections.sessions)
        code = last_line(await talk(port_of(relay), b"QUIT\r\n"))

    assert closed == b"421 4.7.0 more than 2 connections from 127.0.0.1, try again later\r\n"
    assert code == "221 2.0.0 bye"


# -- slow clients -----------------------------------------------------------------------------------------------------


async def trickle(port: int, before: bytes, octet: bytes, every: float) -> bytes:
    """Send one octet now and then until the relay closes; what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(before)
    heard = bytearray()

    async def listen() -> None:
        with contextlib.suppress(ConnectionError):  # it closes with an octet of ours unread
            while octets := await reader.read(4096):
                heard.extend(octets)

    listening = asyncio.ensure_future(listen())
    async with asyncio.timeout(20):
        while not (await asyncio.wait([listening], timeout=every))[0]:
            writer.write(octet)
    writer.close()
    return bytes(heard)


@pytest.mark.parametrize(
    "before",
    [b"", b"EHLO c\r\nMAIL FROM:<", b"EHLO c\r\nAUTH LOGIN\r\n", ENVELOPE],
    ids=["greeted", "mail", "auth", "data"],
)
async def test_a_slow_loris_is_given_up(tmp_path, before):
    """An octet now and then holds no session, wherever it is sent."""
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, limits={"command_timeout": "500ms"}, identities=[APP, {"name": "default"}]) as relay,
    ):
        heard = await trickle(port_of(relay), before, b"x", 0.05)

    assert last_line(heard) == "421 4.4.2 too slow, closing the connection"
    assert met(relay) == {"slowness": 1}


async def test_a_silent_client_is_given_up(tmp_path):
    """And that is called silence."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"command_timeout": "200ms"}) as relay:
        assert last_line(await talk(port_of(relay), ENVELOPE)).startswith("421 4.4.2 idle")

    assert met(relay) == {"silence": 1}


async def test_content_that_flows_is_never_cut(tmp_path):
    """It takes longer than the time for silence, in pieces that come in time."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"command_timeout": "400ms"}) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(ENVELOPE + b"From: a@example.com\r\n\r\n")
        await reader.readuntil(b"354 ")
        ended = asyncio.get_running_loop().time() + 1.2
        while asyncio.get_running_loop().time() < ended:
            writer.write(b"x" * 70 + b"\r\n")
            await asyncio.sleep(0.05)
        writer.write(b".\r\nQUIT\r\n")
        heard = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert b"250 2.0.0 OK " in heard
    assert met(relay) == {}


# -- speech that brings no mail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "end", "limit"),
    [
        (b"EHLO c\r\n" + b"WHAT\r\n" * 30, "421 4.7.0 too many errors", "errors"),
        (b"EHLO c\r\n" + b"NOOP\r\n" * 200, "421 4.7.0 too many commands", "commands"),
        (b"HELO c\r\n" + b"MAIL FROM:<a@example.com>\r\nRSET\r\n" * 200, "421 4.7.0 too many commands", "commands"),
        (
            ENVELOPE[:-6] + b"".join(map(b"RCPT TO:<b%d@example.net>\r\n".__mod__, range(1_600))),
            "421 4.7.0 too many errors",
            "errors",
        ),
        (ENVELOPE[:-6] + b"RCPT TO:<b@example.net>\r\n" * 600, "421 4.7.0 too many errors", "errors"),
    ],
    ids=["errors", "idle commands", "transactions without mail", "recipients", "the same recipient"],
)
async def test_a_client_that_brings_no_mail_is_hung_up_on(tmp_path, monkeypatch, octets, end, limit):
    """However politely it speaks; and the log says that it was we who hung up, and why."""
    monkeypatch.setattr(patience_module, "MAX_VAIN_RECIPIENTS", 500)
    with capture_logs() as logged:
        async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
            heard = await talk(port_of(relay), octets)
            code, _ = await send(port_of(relay))
    reasons = [event["reason"] for event in logged if event["event"] == "link.close"]

    assert last_line(heard).startswith(end)
    assert reasons == [last_line(heard), "closed by the client"]
    assert met(relay)[limit] == 1
    assert code == 250


async def test_recipients_beyond_the_limit_are_counted(tmp_path):
    """Each of them is told, and the message goes to the others."""
    octets = ENVELOPE.replace(b"DATA", b"RCPT TO:<c@example.net>\r\nRCPT TO:<d@example.net>\r\nDATA") + MESSAGE
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"recipients": 1}) as relay:
        heard = await talk(port_of(relay), octets + b"QUIT\r\n")

    assert heard.count(b"452 4.5.3 more than 1 recipients") == 2
    assert met(relay) == {"recipients": 2}
    assert sandbox.accepted[0].recipients == ("b@example.net",)


# -- the rate of an identity ------------------------------------------------------------------------------------------


async def test_messages_a_minute(tmp_path):
    """The one too many is refused at MAIL, with the time to wait; a minute later mail goes on. Others' always does."""
    clock = HurriedClock()
    identities = [
        {"name": "shop", "match": {"mail_from": "*@shop.example"}, "limits": {"messages_per_minute": 3}},
        {"name": "default"},
    ]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, clock=clock, identities=identities) as relay:
        shop = (ENVELOPE + MESSAGE).replace(b"a@example.com", b"a@shop.example").replace(b"EHLO c\r\n", b"")
        heard = await talk(port_of(relay), b"EHLO c\r\n" + shop * 3 + b"MAIL FROM:<a@shop.example>\r\nQUIT\r\n")
        assert heard.count(b"250 2.0.0 OK ") == 3
        assert b"\r\n451 4.7.1 identity shop may send 3 messages a minute, try again in " in heard
        assert (await send(port_of(relay)))[0] == 250
        clock.pushed += 62.0
        assert (await send(port_of(relay), mail_from="a@shop.example"))[0] == 250

    assert met(relay) == {"message-rate": 1}
    assert len(sandbox.accepted) == 5


async def test_messages_a_day_over_many_sessions_at_once(tmp_path):
    """Whoever comes first; never one more, and what SparkPost refuses does not count."""
    identities = [{"name": "app", "limits": {"messages_per_day": 5}}]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, identities=identities) as relay:
        port = port_of(relay)
        refused = [await send(port, "550-5.1.1@example.net") for _ in range(4)]
        answers = await asyncio.gather(*[send(port) for _ in range(12)])

    assert {code for code, _ in refused} == {550}
    assert sorted(code for code, _ in answers) == [250] * 5 + [451] * 7
    assert all("may send 5 messages a day, try again in " in text for code, text in answers if code == 451)
    assert len(sandbox.accepted) == 5


# -- failed logins ----------------------------------------------------------------------------------------------------


def log_in(port: int, user: str, password: str) -> int:
    """The code of the reply to AUTH."""
    with smtplib.SMTP("127.0.0.1", port, "client.example.com", timeout=30) as client:
        client.ehlo()
        initial = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return client.docmd("AUTH", f"PLAIN {initial}")[0]


async def test_failed_logins_close_auth_for_a_time(tmp_path):
    """Across sessions, for that login alone; mail without a login goes on, and so does the right password later."""
    clock = HurriedClock()
    limits = {"auth_failures": 4, "auth_ban": "10m"}
    identities = [APP, {**APP, "name": "other", "match": {"login": "other"}}, {"name": "default"}]
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, clock=clock, limits=limits, identities=identities) as relay,
    ):
        port = port_of(relay)
        with capture_logs() as events:
            wrong = [await asyncio.to_thread(log_in, port, "app", "wrong") for _ in range(4)]
            delays = [seconds for seconds in clock.slept if seconds in (2, 4, 8)]
            closed = [await asyncio.to_thread(log_in, port, "app", password) for password in ("wrong", PASSWORD)]
        other = await asyncio.to_thread(log_in, port, "other", PASSWORD)
        mail = await send(port)
        clock.pushed += 601.0
        again = await asyncio.to_thread(log_in, port, "app", PASSWORD)

    assert wrong == [535] * 4
    assert delays == [2, 4, 8]  # and one second, as others sleep too
    assert closed == [454, 454]
    assert (other, mail[0], again) == (235, 250, 235)
    assert met(relay) == {"auth-ban": 2}
    assert relay.metrics.auth_failures._value.get() == 4
    assert [event["peer"] for event in events if event["event"] == "link.auth_closed"] == ["127.0.0.1"]


async def test_guessing_within_one_session_ends_it(tmp_path):
    """Three failures, each told late, then 421; the same for AUTH that is closed."""
    clock = HurriedClock()
    guess = b"AUTH PLAIN " + base64.b64encode(b"\0app\0wrong") + b"\r\n"
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, clock=clock, limits={"auth_failures": 3}, identities=[APP]) as relay,
    ):
        open_to_it = await talk(port_of(relay), b"EHLO c\r\n" + guess * 4)
        closed_to_it = await talk(port_of(relay), b"EHLO c\r\n" + guess * 4)

    assert [line[:3] for line in open_to_it.splitlines()[-4:]] == [b"535", b"535", b"535", b"421"]
    assert [line[:3] for line in closed_to_it.splitlines()[-4:]] == [b"454", b"454", b"454", b"421"]
    assert met(relay) == {"auth-failures": 2, "auth-ban": 3}


async def test_an_applications_own_key_is_judged_by_itself(tmp_path):
    """Passthrough: all present the same user name, and one with a bad key closes nobody else out."""
    clock = HurriedClock()
    listeners = [{"address": "127.0.0.1:0", "auth": "passthrough"}]
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, clock=clock, limits={"auth_failures": 2}, listeners=listeners, identities=[]) as relay,
    ):
        port = port_of(relay)
        bad = [await asyncio.to_thread(log_in, port, "SMTP_Injection", "f" * 40) for _ in range(3)]
        good = await asyncio.to_thread(log_in, port, "SMTP_Injection", "0123456789abcdef0123456789abcdef01234567")

    assert bad == [535, 535, 454]
    assert good == 235
