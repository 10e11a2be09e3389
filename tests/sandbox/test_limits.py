"""Limits of connections and messages, idleness, counters, starting and stopping."""

import asyncio
import contextlib
import socket

import pytest

from relay.sandbox import Direction, HttpPort, Port
from tests.support.ledger import until


async def test_messages_per_connection(sandbox, connect):
    """After a hundred messages the next MAIL is refused with 421 and the connection ends."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        for _ in range(100):
            assert (await client.mail()).startswith("250 ")

        assert (await client.say("MAIL FROM:<>")).startswith("421 4.4.5 ")
        assert await client.ended()
    assert (len(box.accepted), box.sessions[0].messages) == (100, 100)
    assert len({message.token for message in box.accepted}) == 100


async def test_lenient_about_messages(sandbox, connect):
    """The limit may be lifted: SparkPost only asks clients to reconnect."""
    async with sandbox(messages_per_connection=None) as box, connect(box) as client:
        await client.ready()
        for _ in range(101):
            await client.mail()
    assert len(box.accepted) == 101


async def test_recipients_per_message(sandbox, connect):
    """One recipient too many is refused with 452, the message goes to the others."""
    async with sandbox(recipients_per_message=2) as box, connect(box) as client:
        await client.ready()
        await client.say("MAIL FROM:<>")
        replies = [await client.say(f"RCPT TO:<r{n}@example.org>") for n in range(3)]
        await client.say("DATA")
        await client.say(".")

    assert replies[2].startswith("452 4.5.3 ")
    assert box.accepted[0].recipients == ("r0@example.org", "r1@example.org")


async def test_idleness(sandbox, connect):
    """A client that is silent for too long is told so, and the connection ends; talking keeps it."""
    async with sandbox(idle_timeout=0.2) as box, connect(box) as client:
        await client.ready()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.reader.read(1)
            assert await client.say("NOOP") == "250 2.0.0 OK"

        assert (await client.reply()).startswith("421 4.4.2 ")
        assert await client.ended()
        await box.wait_closed()
    assert not box.sessions[0].open


async def test_connections(sandbox, connect):
    """The eleventh connection is greeted with 421; when one leaves, there is room again."""
    async with sandbox(ports=[Port(), Port()], max_connections=2) as box:
        async with connect(box, 0) as first, connect(box, 1) as second:
            assert (await first.reply()).startswith("220 ")
            assert (await second.reply()).startswith("220 ")
            async with connect(box) as third:
                assert await third.reply() == "421 4.4.5 Service unavailable, concurrency limit reached"
                assert await third.ended()
            assert (box.open_now, box.opened, box.max_open) == (2, 3, 3)
        await box.wait_closed()
        async with connect(box, 1) as fourth:
            assert (await fourth.reply()).startswith("220 ")

    assert (box.open_now, box.opened, box.max_open) == (0, 4, 3)
    assert [session.port for session in box.sessions] == [box.addresses[n][1] for n in (0, 1, 0, 1)]


async def test_connections_that_come_at_once(sandbox):
    """The first are served, also where all are there before one is greeted, and the rest find no room."""
    async with sandbox(max_connections=2) as box:
        burst = [socket.create_connection(box.addresses[0]) for _ in range(5)]  # the loop has no turn meanwhile
        streams = [await asyncio.open_connection(sock=one) for one in burst]
        greetings = [(await reader.readline())[:4] for reader, _ in streams]
        for _, writer in streams:
            writer.close()

    assert greetings == [b"220 "] * 2 + [b"421 "] * 3
    assert box.max_open == 3


async def test_who_has_been_told_goodbye_takes_no_room(sandbox, connect):
    """A client that has heard 221 may connect again at once, whatever TLS still has to say on the old connection."""
    async with sandbox(max_connections=1) as box, connect(box) as first:
        await first.starttls()
        assert (await first.say("QUIT")).startswith("221 ")
        async with connect(box) as again:
            assert (await again.reply()).startswith("220 ")

    assert box.max_open == 1


async def test_transcripts(sandbox, connect):
    """Every octet of both sides is kept, in the clear, with its time."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        await client.mail(content=b"S: x\r\n\r\n.x\r\n")
        await client.say("QUIT")

    (session,) = box.sessions
    assert session.said(Direction.CLIENT).endswith(b"DATA\r\nS: x\r\n\r\n..x\r\n.\r\nQUIT\r\n")
    assert session.said(Direction.SERVER).startswith(b"220 2.0.0 smtp.sparkpostmail.com ")
    times = [exchange.at for exchange in session.transcript]
    assert times == sorted(times)


async def test_bounded_memory(sandbox, connect):
    """A sandbox that runs for long may remember the latest messages and sessions only; the counters go on."""
    async with sandbox(keep=3) as box:
        for n in range(5):
            async with connect(box) as client:
                await client.ready()
                await client.mail(sender=f"{n}@example.com")
            assert len(box.accepted) == len(box.sessions) == min(n + 1, 3)
        await box.wait_for(5)

    assert [message.reverse_path[0] for message in box.accepted] == ["2", "3", "4"]
    assert [session.number for session in box.sessions] == [3, 4, 5]
    assert (box.accepted_total, box.opened, box.handshakes) == (5, 5, 3)


async def test_a_name_with_several_addresses(sandbox, connect):
    """A port by name has one entry among the addresses, however many it is bound to."""
    async with sandbox(ports=[Port("localhost"), Port()]) as box, connect(box, 1) as client:
        assert (await client.reply()).startswith("220 ")
    assert len(box.addresses) == 2


async def test_waiting_for_messages(sandbox, connect):
    """The wait ends with the last of the messages, or with an error that says how many there were."""
    async with sandbox() as box, connect(box) as client:
        await client.ready()
        waiting = asyncio.create_task(box.wait_for(2))
        await client.mail()
        assert not waiting.done()
        await client.mail()

        assert len(await waiting) == 2
        with pytest.raises(TimeoutError, match=r"2 of 3 messages arrived within 0\.01 s"):
            await box.wait_for(3, timeout=0.01)


async def test_stopping_in_every_state(sandbox, connect):
    """Stopping ends connections whatever they are doing, and leaves nothing open behind."""
    ports = [Port(mode=mode) for mode in ("normal", "silent", "slow-banner", "endless-banner", "normal")]
    box = sandbox(ports=ports)
    await box.start()
    async with connect(box, 0) as ready, connect(box, 1), connect(box, 2), connect(box, 3), connect(box, 4) as shaking:
        await ready.ready()
        await shaking.reply()
        await shaking.say("EHLO x")
        await shaking.say("STARTTLS")
        with socket.create_connection(box.addresses[0]):  # connected, as far as the kernel is concerned
            await box.stop()

        assert box.open_now == 0
        assert await ready.ended()
        assert await shaking.ended()
        assert not any(session.open for session in box.sessions)


async def test_a_taken_port(sandbox):
    """A port that cannot be bound is an error, and the ports before it are given back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        box = sandbox(ports=[Port(), Port(port=taken.getsockname()[1])])
        with pytest.raises(OSError, match="address already in use"):
            await box.start()

    with socket.create_server(box.addresses[0]):
        assert box.open_now == 0


def test_no_ca_before_the_start(sandbox):
    """The CA is there once the sandbox has started, and asking earlier says so."""
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = sandbox().ca_file


@pytest.mark.parametrize(
    ("way", "command", "answer"),
    [
        ("smtp", b"NOOP\r\n", b"250 2.0.0 "),
        ("smtp under TLS", b"NOOP\r\n", b"250 2.0.0 "),
        ("http", b"GET /x HTTP/1.1\r\n\r\n", b"HTTP/1.1 401 "),
    ],
)
async def test_a_client_that_does_not_read_is_not_listened_to(sandbox, connect, way, command, answer):
    """What it asks for would pile up; when it reads at last, all of it is answered."""
    count = 1_000_000 // len(command) if way != "http" else 20_000
    async with sandbox(http=HttpPort(tls=False), idle_timeout=600) as box:
        async with contextlib.AsyncExitStack() as stack:
            if way == "http":
                reader, writer = await asyncio.open_connection(*box.http_address)
            else:
                client = await stack.enter_async_context(connect(box))
                reader, writer = client.reader, client.writer
                await (client.starttls() if "TLS" in way else client.reply())
            (connection,) = box._connections
            for transport in (writer.transport, connection._transport):  # so that little fills the kernel's buffers
                for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 16_384)
            writer.transport.pause_reading()
            writer.write(command * count)
            await until(lambda: not connection._transport.is_reading())
            unread = connection._transport.get_write_buffer_size()
            writer.transport.resume_reading()
            answered, rest = 0, b""
            async with asyncio.timeout(40):
                while answered < count:
                    octets = rest + await reader.read(1 << 20)
                    answered += octets.count(answer)
                    rest = octets[-len(answer) + 1 :]
            writer.close()
        await box.wait_closed()

    assert unread < 4_000_000
