"""Odd, broken and vanishing clients: none harms the relay, and none decides about mail already handed over."""

import asyncio
import gc
import smtplib
import socket
import ssl

import pytest

from relay.ingress import session as session_module
from relay.ingress.intake import CutThrough
from tests.support.client import CONTENT, send
from tests.support.ledger import until
from tests.support.running import port_of, relay_to, sandbox_with
from tests.support.wire import ENVELOPE, MESSAGE, starttls, talk


async def test_a_half_close_after_the_final_dot_gets_its_answer(tmp_path):
    """`nc < file` shuts its side down when the file ends; the message is delivered and the answer given."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), ENVELOPE + MESSAGE, half_close=True)

    assert heard.splitlines()[-1].startswith(b"250 2.0.0 OK ")
    assert len(sandbox.accepted) == 1


async def test_a_client_that_vanishes_after_the_final_dot_changes_nothing(tmp_path):
    """A reset right after the dot: the message is SparkPost's all the same, once."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(ENVELOPE + MESSAGE)
        await writer.drain()
        await asyncio.sleep(0)
        writer.transport.abort()
        await sandbox.wait_for(1)

    assert len(sandbox.accepted) == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"EHLO",
        b"EHLO c\r\nMAIL FROM:<a@b.c>\r\n",
        ENVELOPE,
        ENVELOPE + b"From: a@b.c\r\n\r\nhalf",
        b"EHLO c\r\nAUTH LOGIN\r\n",
    ],
)
async def test_a_client_that_vanishes_at_any_phase_leaves_nothing(tmp_path, octets):
    """No message, no session, no task is left of it."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        await talk(port_of(relay), octets, half_close=True)
        code, _ = await send(port_of(relay))

    assert code == 250
    assert len(sandbox.accepted) == 1
    assert not relay._connections.sessions
    assert not relay._connections.tasks


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO c\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\n",
        ENVELOPE + b"From: a@b.c\r\n\r\n" + b"x" * 76 * 10_000,
        b"EHLO c\r\nAUTH LOGIN\r\nYXBw\r\n",
        b"EHLO c\r\nAUTH PLAIN AGFwcAB3cm9uZw==\r\n",
        b"EHLO c\r\nSTARTTLS\r\n",
        b"EHLO c\r\nSTARTTLS\r\n\x16\x03\x01\x00\xc8",
    ],
    ids=["envelope", "data", "user name", "verification", "starttls", "handshake"],
)
async def test_a_reset_at_any_phase_leaves_nothing(tmp_path, octets):
    """No goodbye, not even a FIN: no session, no task, no message is left of it."""
    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        flight, command, rest = octets.partition(b"STARTTLS\r\n")
        writer.write(flight + command)
        await writer.drain()
        if command:
            await asyncio.wait_for(reader.readuntil(b"220 2.0.0 ready to start TLS\r\n"), 10)
            writer.write(rest)
        else:
            await asyncio.wait_for(reader.readuntil(b"AUTH=PLAIN LOGIN\r\n"), 10)
        writer.transport.abort()
        async with asyncio.timeout(20):
            while relay._connections.sessions or relay._connections.tasks:
                relay._connections._changed.clear()
                await relay._connections._changed.wait()
        code, _ = await send(port_of(relay))

    assert code == 250
    assert len(sandbox.accepted) == 1


async def test_a_login_from_before_tls_is_forgotten(tmp_path):
    """RFC 3207, section 4.2: whoever goes on without logging in again is nobody, and may log in again."""
    identities = [
        {"name": "app", "match": {"login": "app"}, "password": "correct-horse", "subaccount": 5},
        {"name": "default", "match": {}},
    ]

    def talk_twice(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.login("app", "correct-horse")
            client.starttls(context=ssl._create_unverified_context())
            client.sendmail("a@example.com", "b@example.net", CONTENT)
            client.login("app", "correct-horse")
            client.sendmail("a@example.com", "b@example.net", CONTENT)

    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with (
        sandbox_with(tmp_path / "ca") as sandbox,
        relay_to(sandbox, listeners=listeners, identities=identities) as relay,
    ):
        await asyncio.to_thread(talk_twice, port_of(relay))

    assert [one.subaccount for one in sandbox.accepted] == [None, 5]


async def test_a_bare_lf_client(tmp_path):
    """An all-LF client is served, and counted."""
    octets = (ENVELOPE + MESSAGE + b"QUIT\r\n").replace(b"\r\n", b"\n")
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), octets)

    assert b"250 2.0.0 OK " in heard
    assert sandbox.accepted[0].content.endswith(b"From: a@example.com\r\n\r\nhello\r\n")
    assert relay.metrics.registry.get_sample_value("sparkpost_relay_tolerances_total", {"kind": "bare-lf"}) >= 1


async def test_a_client_that_ends_its_data_with_bare_lf_is_not_left_hanging(tmp_path, monkeypatch):
    """LF dot LF in a CRLF session ends nothing; the client is told so instead of waiting for ever."""
    monkeypatch.setattr(session_module, "STALL_SECONDS", 0.2)
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), ENVELOPE + b"hello\n.\n")

    assert heard.splitlines()[-1].startswith(b"451 4.5.2 bare LF")
    assert sandbox.accepted == []


async def test_a_silent_client_is_told_421(tmp_path):
    """Idle too long."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"command_timeout": "200ms"}) as relay:
        heard = await talk(port_of(relay), b"EHLO c\r\n")

    assert heard.splitlines()[-1].startswith(b"421 4.4.2 ")


async def test_a_client_hello_on_the_plain_port(tmp_path):
    """The client hears what to change."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        heard = await talk(port_of(relay), outgoing.read(), half_close=True)

    assert b"500 5.5.2 this port begins in plain text" in heard


@pytest.mark.parametrize(
    "octets", [bytes(range(256)) * 50, b"\x00" * 10_000, b"A" * 1_000_000, b"\r\n" * 500, b"\xff\xf4\xff\xfd\x06\r\n"]
)
async def test_garbage_is_answered_and_hung_up_on(tmp_path, octets):
    """Whatever arrives, the relay lives and serves the next client."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), octets, half_close=True)
        code, _ = await send(port_of(relay))

    assert heard.startswith(b"220 ")
    assert code == 250


async def test_nothing_is_said_behind_the_last_word(tmp_path):
    """Too many overlong lines end the session; the commands behind them in the same read are not answered."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), b"EHLO c\r\n" + (b"x" * 5000 + b"\r\n") * 20 + b"NOOP\r\n" * 3)

    assert heard.splitlines()[-1].startswith(b"421 4.7.0 too many errors")


async def test_ten_megabytes_without_a_line_end(tmp_path):
    """Read to its end, refused, and the session goes on."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), ENVELOPE + b"x" * 10_000_000 + b"\r\n.\r\nQUIT\r\n")

    assert [line[:3] for line in heard.splitlines()][-2:] == [b"554", b"221"]
    assert sandbox.accepted == []


async def test_five_thousand_recipients(tmp_path):
    """The limit is told at each recipient above it; those below are served."""
    commands = b"".join(b"RCPT TO:<r%d@example.net>\r\n" % number for number in range(5000))
    octets = b"HELO c\r\nMAIL FROM:<a@example.com>\r\n" + commands + b"DATA\r\n" + MESSAGE + b"QUIT\r\n"
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, delivery={"cut_through_deadline": "20s"}) as relay:
        heard = await talk(port_of(relay), octets)

    codes = [line[:9] for line in heard.splitlines()]
    assert codes.count(b"250 2.1.5") == 1000
    assert codes.count(b"452 4.5.3") == 4000
    assert len(sandbox.accepted[0].recipients) == 1000


async def test_a_defect_of_ours_is_451_and_leaks_nothing(tmp_path, monkeypatch):
    """An exception is for the log; the client hears that it may try again."""

    async def fail(*arguments):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(CutThrough, "accept", fail)
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), ENVELOPE + MESSAGE)

    assert heard.splitlines()[-1] == b"451 4.3.0 internal error in the relay, try again later"
    assert b"secret" not in heard


async def test_a_stranger_is_hung_up_on(tmp_path):
    """Only the listener's networks may connect."""
    listeners = [{"address": "127.0.0.1:0", "networks": ["127.0.0.1/32"]}]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        heard = await talk(port_of(relay), b"", source="127.0.0.9")

    assert heard == b"554 5.7.1 127.0.0.9 is not in this listener's networks\r\n"


async def test_implicit_tls_is_not_begun_with_a_stranger(tmp_path):
    """Who may not connect is hung up on before the handshake, and hears nothing in clear."""
    tls = starttls(tmp_path) | {"mode": "implicit"}
    listeners = [{"address": "127.0.0.1:0", "tls": tls, "networks": ["127.0.0.1/32"]}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        heard = await talk(port_of(relay), b"", source="127.0.0.9")

    assert heard == b""


async def test_a_client_that_never_begins_its_handshake_is_counted(tmp_path):
    """Silence on an implicit TLS port takes a connection like any other, so it cannot take them all."""
    listeners = [
        {"name": "smtps", "address": "127.0.0.1:0", "tls": starttls(tmp_path) | {"mode": "implicit"}},
        {"name": "plain", "address": "127.0.0.1:0"},
    ]
    async with (
        sandbox_with(tmp_path / "ca") as sandbox,
        relay_to(sandbox, listeners=listeners, limits={"connections_per_client": 1}) as relay,
    ):
        _, silent = await asyncio.open_connection("127.0.0.1", port_of(relay, "smtps"))
        refused = await talk(port_of(relay, "plain"), b"")
        silent.transport.abort()

    assert refused.startswith(b"421 4.7.0 more than 1 connections from 127.0.0.1")


async def test_who_looks_whether_an_implicit_tls_port_is_open_takes_no_connection(tmp_path):
    """As load balancers do, day and night: they connect, and are gone before TLS has begun."""
    tls = starttls(tmp_path) | {"mode": "implicit"}
    async with (
        sandbox_with(tmp_path / "ca") as sandbox,
        relay_to(sandbox, listeners=[{"address": "127.0.0.1:0", "tls": tls}]) as relay,
    ):
        for _ in range(40):
            await talk(port_of(relay), b"", half_close=True)
            socket.create_connection(("127.0.0.1", port_of(relay))).close()
        await until(lambda: not relay._connections.sessions)


async def test_too_many_connections_from_one_client(tmp_path):
    """One more than allowed is told to come later; when one goes there is room again."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"connections_per_client": 1}) as relay:
        _, first = await asyncio.open_connection("127.0.0.1", port_of(relay))
        refused = await talk(port_of(relay), b"")
        first.write(b"QUIT\r\n")
        first.close()
        await first.wait_closed()

    assert refused.startswith(b"421 4.7.0 more than 1 connections from 127.0.0.1")


async def test_pipelined_commands_after_starttls_end_the_session(tmp_path):
    """Commands sent in clear must not be read as if they had come under TLS."""
    tls = starttls(tmp_path)
    async with (
        sandbox_with(tmp_path / "ca") as sandbox,
        relay_to(sandbox, listeners=[{"address": "127.0.0.1:0", "tls": tls}]) as relay,
    ):
        heard = await talk(port_of(relay), b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<a@b.c>\r\n")

    assert heard.splitlines()[-1].startswith(b"501 5.5.2 nothing may follow STARTTLS")


async def test_a_flood_behind_a_message_in_hand_waits(tmp_path):
    """While SparkPost thinks, what a client sends further is read only so far; then everything is served in order."""
    large = b"From: a@example.com\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20_000 + b".\r\n"
    slow = ENVELOPE.replace(b"b@example.net", b"slow-dot-300ms@example.net")
    again = ENVELOPE.removeprefix(b"EHLO c\r\n")
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        heard = await talk(port_of(relay), slow + MESSAGE + again + large + again + large + b"QUIT\r\n")

    assert [line[:4] for line in heard.splitlines()].count(b"354 ") == 3
    assert heard.count(b"250 2.0.0 OK ") == 3
    assert [len(one.content) > 1_000_000 for one in sandbox.accepted] == [False, True, True]


async def test_nothing_is_answered_before_the_message_in_hand(tmp_path):
    """Who waited for memory, and could go on sooner for another reason, is told that there is some when it is busy."""
    slow = ENVELOPE.replace(b"b@example.net", b"slow-dot-300ms@example.net") + MESSAGE
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        talking = asyncio.create_task(talk(port_of(relay), slow + b"NOOP\r\nQUIT\r\n"))
        await until(lambda: bool(relay._connections.tasks))
        for session in relay._connections.sessions:
            session._work_soon()
        heard = (await talking).splitlines()

    assert [line[:9] for line in heard[-3:]] == [b"250 2.0.0", b"250 2.0.0", b"221 2.0.0"]
    assert b"250 2.0.0 OK " in heard[-3]


async def test_a_client_that_never_reads_is_given_up(tmp_path):
    """Its replies fill what the network takes; then its commands wait, and at last it is hung up on."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"command_timeout": "500ms"}) as relay:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", port_of(relay)))
            commands = b"HELO c\r\nMAIL FROM:<a@example.com>\r\n" + b"RCPT TO:<b@example.net>\r\n" * 2_000_000
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(loop.sock_sendall(deaf, commands), 30)

    assert not relay._connections.sessions


async def test_a_tls_handshake_that_fails_ends_the_session(tmp_path):
    """Garbage in place of a ClientHello: the connection closes, the relay serves on."""
    tls = starttls(tmp_path)
    listeners = [{"address": "127.0.0.1:0", "tls": tls}]
    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(b"EHLO c\r\nSTARTTLS\r\n")
        await reader.readuntil(b"220 2.0.0 ready to start TLS\r\n")
        writer.write(b"this is no ClientHello\r\n" * 10)
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        code, _ = await send(port_of(relay))

    assert code == 250


@pytest.mark.parametrize("said", [b"", b"EHLO c\r\n", ENVELOPE[: ENVELOPE.index(b"DATA")]])
async def test_who_has_come_before_the_shutdown_may_bring_a_message(tmp_path, said):
    """The relay is told to stop while a client is between its commands: that message is taken, and no second one."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(said)
        for _ in range(1 + said.count(b"MAIL") + said.count(b"RCPT")):
            await reader.readline()
        while said and not (await reader.readline()).startswith(b"250 "):
            pass
        stopping = asyncio.create_task(relay.stop())
        await until(lambda: not relay.listeners[0].listening)
        writer.write((ENVELOPE + MESSAGE).removeprefix(said) + b"MAIL FROM:<a@example.com>\r\n")
        heard = (await asyncio.wait_for(reader.read(), 20)).splitlines()
        await stopping
        writer.close()

    taken = next(number for number, line in enumerate(heard) if line.startswith(b"250 2.0.0 OK "))
    assert heard[-1].startswith(b"421 4.3.2 ")
    assert len(heard) - taken <= 3
    assert len(sandbox.accepted) == 1


async def test_what_was_pipelined_behind_a_message_is_not_taken_at_shutdown(tmp_path):
    """The message in hand is answered, and the next one's MAIL with 421: a client that sends on and on would keep the
    relay until the drain is given up, with a message delivered and not answered.
    """
    slow = ENVELOPE.replace(b"b@example.net", b"slow-dot-300ms@example.net") + MESSAGE
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        talking = asyncio.create_task(talk(port_of(relay), slow + (ENVELOPE + MESSAGE) * 3))
        await until(lambda: bool(relay._connections.tasks))
        await relay.stop()
        heard = (await talking).splitlines()

    assert sum(line.startswith(b"250 2.0.0 OK ") for line in heard) == 1
    assert heard[-1].startswith(b"421 4.3.2 ")
    assert len(sandbox.accepted) == 1


async def test_who_is_silent_at_shutdown_is_told_soon(tmp_path):
    """Nobody waits long for a client that says nothing, nor for it to close: it may keep its connection for ever."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        silent, one = await asyncio.open_connection("127.0.0.1", port_of(relay))
        served, two = await asyncio.open_connection("127.0.0.1", port_of(relay))
        two.write(ENVELOPE + MESSAGE)
        while not (await served.readline()).startswith(b"250 2.0.0 OK "):
            pass
        loop = asyncio.get_running_loop()
        began = loop.time()
        stopping = asyncio.create_task(relay.stop())
        last_to_served = await asyncio.wait_for(served.read(), 20)
        last_to_silent = await asyncio.wait_for(silent.read(), 20)
        await stopping
        took = loop.time() - began
        two.close()
        one.close()

    assert last_to_served.startswith(b"421 4.3.2 ")
    assert last_to_silent.splitlines()[-1].startswith(b"421 4.3.2 ")
    assert took < 4 * session_module.QUIT_SECONDS


@pytest.mark.parametrize(
    ("last", "answer"), [(b"QUIT\r\n", b"221 2.0.0 "), (b"MAIL FROM:<a@example.com>\r\n", b"421 4.3.2 ")]
)
async def test_who_was_answered_just_before_the_shutdown_may_still_quit(tmp_path, last, answer):
    """A 421 in place of the 221 is the failure of the whole message to some; another message is refused."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(ENVELOPE + MESSAGE)
        while not (await reader.readline()).startswith(b"250 2.0.0 OK "):
            pass
        stopping = asyncio.create_task(relay.stop())
        await until(lambda: not relay.listeners[0].listening)
        writer.write(last)
        heard = await asyncio.wait_for(reader.read(), 20)
        await stopping
        writer.close()

    assert heard.splitlines()[-1].startswith(answer)
    assert len(sandbox.accepted) == 1


@pytest.mark.parametrize("door", ["plain", "smtps", "smtps, silent"])
async def test_who_does_not_hear_that_the_relay_stops_holds_nobody_up(tmp_path, door):
    """A connection that an application keeps for its next message, or that never begins TLS: nobody closes its end."""
    listeners = [
        {"name": "smtps", "address": "127.0.0.1:0", "tls": starttls(tmp_path) | {"mode": "implicit"}},
        {"name": "plain", "address": "127.0.0.1:0"},
    ]

    def connect(port: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), timeout=20)
        if door == "smtps":
            client = ssl._create_unverified_context().wrap_socket(client)
        if door != "smtps, silent":
            client.sendall(ENVELOPE + MESSAGE)
        return client

    async with sandbox_with(tmp_path / "ca") as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        with await asyncio.to_thread(connect, port_of(relay, door.split(",")[0])):
            await (until(lambda: bool(relay._connections.tasks)) if "silent" in door else sandbox.wait_for(1))
            began = asyncio.get_running_loop().time()
            await relay.stop()

    assert asyncio.get_running_loop().time() - began < 3 * session_module.QUIT_SECONDS


async def test_what_does_not_end_in_time_is_given_up_at_shutdown(tmp_path):
    """The drain has a limit; a message in hand that outlasts it gets no 250."""
    async with sandbox_with(tmp_path) as sandbox:
        async with relay_to(sandbox, drain_timeout="200ms") as relay:
            sending = asyncio.create_task(talk(port_of(relay), ENVELOPE.replace(b"b@", b"silent-after-dot@") + MESSAGE))
            await sandbox.wait_for(1)
        heard = await sending

    assert heard.splitlines()[-1].startswith(b"354 ")


@pytest.mark.parametrize("octets", [b"EHLO c\r\n", ENVELOPE + b"x\r\n.\r\nQUIT\r\n", b"EHLO c\r\nSTARTTLS\r\n", None])
async def test_a_session_that_is_over_is_gone_without_the_collector(tmp_path, octets):
    """Thousands that come and go leave nothing behind that has to be searched for, under TLS neither."""

    def use_tls(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.starttls(context=ssl._create_unverified_context())
            client.noop()

    def left() -> int:
        return sum(isinstance(one, session_module.SmtpSession) for one in gc.get_objects())

    listeners = [{"address": "127.0.0.1:0", "tls": starttls(tmp_path)}]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=listeners) as relay:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                if octets is None:
                    await asyncio.to_thread(use_tls, port_of(relay))
                else:
                    await talk(port_of(relay), octets, half_close=True)
            async with asyncio.timeout(5):
                while left():  # noqa: ASYNC110 - the transports close in turns of their own
                    await asyncio.sleep(0)
        finally:
            gc.enable()
