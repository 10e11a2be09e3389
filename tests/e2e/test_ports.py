"""587 is blocked in one way or another: mail goes by the next port, soon, and never without verified TLS."""

import asyncio
import contextlib
import smtplib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from relay.sandbox import Direction, Port
from tests.support.client import send
from tests.support.running import BLOCKED, KEY, port_of, relay_to, sandbox_with


@pytest.mark.parametrize("mode", BLOCKED)
async def test_a_blocked_port_is_passed_by(tmp_path, mode):
    """The second port delivers, within fallback_after and a second; the first never saw the key."""
    async with (
        sandbox_with(tmp_path, ports=[Port(mode=mode), Port()]) as sandbox,
        relay_to(sandbox, upstream={"fallback_after": "300ms"}) as relay,
    ):
        started = time.monotonic()
        code, text = await send(port_of(relay))
        seconds = time.monotonic() - started
        again, _ = await send(port_of(relay))

    assert (code, again) == (250, 250), text
    assert seconds < 1.3
    assert {one.port for one in sandbox.accepted} == {sandbox.addresses[1][1]}
    bad = [session for session in sandbox.sessions if session.port == sandbox.addresses[0][1]]
    assert not any(session.logins or KEY.encode() in session.said(Direction.CLIENT) for session in bad)


async def test_a_refusing_port_is_passed_by(tmp_path):
    """Nobody listens on the first port."""
    async with sandbox_with(tmp_path) as sandbox:
        (_, working), *_ = sandbox.addresses
        async with relay_to(sandbox, upstream={"ports": [1, working]}) as relay:
            code, _ = await send(port_of(relay))

    assert code == 250


async def test_a_dropping_port_is_passed_by(tmp_path):
    """A full backlog: the kernel drops what would connect, as a firewall does."""
    with socket.socket() as deaf, contextlib.ExitStack() as crowd:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(2):
            filler = crowd.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        async with sandbox_with(tmp_path) as sandbox:
            ports = [deaf.getsockname()[1], sandbox.addresses[0][1]]
            async with relay_to(sandbox, upstream={"host": "127.0.0.1", "ports": ports}) as relay:
                started = time.monotonic()
                code, text = await send(port_of(relay))

    assert code == 250, text
    assert 0.3 <= time.monotonic() - started < 1.3


async def test_the_port_that_works_is_remembered(tmp_path):
    """Once is enough: later messages do not knock at the blocked port."""
    async with (
        sandbox_with(tmp_path, ports=[Port(mode="no-starttls"), Port()]) as sandbox,
        relay_to(sandbox, upstream={"messages_per_connection": 1}) as relay,
    ):
        for _ in range(3):
            await send(port_of(relay))

    assert [session.port for session in sandbox.sessions].count(sandbox.addresses[0][1]) == 1
    assert len(sandbox.accepted) == 3


async def test_with_every_port_bad_the_application_hears_why(tmp_path):
    """451, and each port's cause."""
    async with (
        sandbox_with(tmp_path, ports=[Port(mode="no-starttls"), Port(mode="wrong-name")]) as sandbox,
        relay_to(sandbox) as relay,
    ):
        code, text = await send(port_of(relay))

    assert code == 451
    assert text.startswith("4.4.1 ")
    for _, port in sandbox.addresses:
        assert str(port) in text
    assert "STARTTLS" in text
    assert "certificate" in text


async def test_a_refusing_port_is_called_that(tmp_path):
    """The system's own word for what is the matter, in the answer."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, upstream={"ports": [1]}) as relay:
        code, text = await send(port_of(relay))

    assert code == 451
    assert "port 1: connection refused" in text


async def test_not_now_is_not_blocked(tmp_path):
    """A 421 greeting backs off; the other port is left alone."""
    async with (
        sandbox_with(tmp_path, ports=[Port(mode="tempfail-banner"), Port()]) as sandbox,
        relay_to(sandbox) as relay,
    ):
        code, _ = await send(port_of(relay))

    assert code == 451
    assert {session.port for session in sandbox.sessions} == {sandbox.addresses[0][1]}


async def test_a_refused_key_is_our_fault(tmp_path):
    """535 is not about the message: the application hears 451 and whose fault it is, and no key."""
    async with sandbox_with(tmp_path, api_keys={"another": None}) as sandbox, relay_to(sandbox) as relay:
        code, text = await send(port_of(relay))

    assert code == 451
    assert text.startswith("4.3.5 SparkPost refused the relay's credential default: 535 5.7.8")
    assert KEY not in text


async def test_the_silence_of_everybody_ends_in_time(tmp_path):
    """With every port silent the application is answered when its patience is over, not when ours is."""
    async with (
        sandbox_with(tmp_path, ports=[Port(mode="silent"), Port(mode="silent")]) as sandbox,
        relay_to(sandbox, delivery={"cut_through_deadline": "800ms"}) as relay,
    ):
        started = time.monotonic()
        code, text = await send(port_of(relay))

    assert code == 451
    assert time.monotonic() - started < 3
    assert "banner" in text or "silent" in text


async def test_hundreds_of_subaccounts_over_ten_connections(tmp_path):
    """200 subaccounts interleaved: each message under its own name, never more than ten connections."""
    identities = [{"name": "tenants", "match": {"login": "tenant-{subaccount}"}, "password": "tenant-password"}]

    def deliver(port: int, numbers: range) -> None:
        for number in numbers:
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                client.login(f"tenant-{number}", "tenant-password")
                client.sendmail(f"{number}@example.com", "b@example.net", f"From: {number}@example.com\r\n\r\nx\r\n")

    async with (
        sandbox_with(tmp_path, transcripts=False) as sandbox,
        relay_to(sandbox, identities=identities, delivery={"cut_through_deadline": "30s"}) as relay,
    ):
        # Threads of their own: the loop's default ones are needed for name lookups.
        with ThreadPoolExecutor(10) as clients:
            loop = asyncio.get_running_loop()
            work = [range(1 + lane, 201, 10) for lane in range(10)]
            await asyncio.gather(*(loop.run_in_executor(clients, deliver, port_of(relay), numbers) for numbers in work))

    assert len(sandbox.accepted) == 200
    assert sandbox.max_open <= 10
    for one in sandbox.accepted:
        assert one.auth_user == f"SMTP_Injection:X-MSYS-SUBACCOUNT={one.reverse_path.partition('@')[0]}"
