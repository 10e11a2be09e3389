"""What many large messages take of the memory: no more than `limits.data_memory` allows, and nobody is left hanging."""

import asyncio

from relay.core import reply
from relay.ingress import session as session_module
from relay.ingress.intake import CutThrough
from tests.support.ledger import until
from tests.support.running import port_of, relay_to, sandbox_with

ENVELOPE = b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
HEADER = b"From: a@example.com\r\n" + b"X-Long: " + b"y" * 900 + b"\r\n"
END = b"\r\nbody\r\n.\r\nQUIT\r\n"


async def begin(port: int, octets: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has sent so much, and has its 354."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ENVELOPE)
    await reader.readuntil(b"354 ")
    await reader.readline()
    writer.write(octets)
    return reader, writer


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: bytes) -> bytes:
    """The reply to the rest of a message."""
    writer.write(octets)
    heard = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return heard.splitlines()[0]


async def test_header_sections_beyond_the_memory_wait_and_are_served(tmp_path):
    """More than fits is under way: those who came too late are not read from until others are done. All get through."""
    limits = {"data_memory": "64KB"}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits=limits) as relay:
        memory = relay.data_memory
        clients = [await begin(port_of(relay), HEADER * 30) for _ in range(5)]
        await until(lambda: memory.held > 30_000)
        heard = await asyncio.gather(*(ended(*client, END) for client in clients))

    assert [line[:9] for line in heard] == [b"250 2.0.0"] * 5
    assert len(sandbox.accepted) == 5
    assert memory.held == 0


async def test_clients_that_wait_for_each_other_are_served(tmp_path):
    """Each has sent a part and has more to send than there is room for: one of them goes on, then the next."""
    limits = {"data_memory": "64KB"}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits=limits) as relay:
        memory = relay.data_memory
        clients = [await begin(port_of(relay), HEADER * 20) for _ in range(3)]
        await until(lambda: memory.held > 3 * 20 * len(HEADER) - 100)
        heard = await asyncio.gather(*(ended(*client, HEADER * 60 + END) for client in clients))

    assert [line[:9] for line in heard] == [b"250 2.0.0"] * 3


async def test_without_memory_for_too_long_the_answer_is_452(tmp_path, monkeypatch):
    """A client that keeps what others need does not keep them for ever; its own message is not harmed."""
    monkeypatch.setattr(session_module, "MEMORY_SECONDS", 0.2)
    limits = {"data_memory": "64KB"}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits=limits) as relay:
        slow = await begin(port_of(relay), HEADER * 60)
        await until(lambda: relay.data_memory.held > 50_000)
        refused = await ended(*await begin(port_of(relay), HEADER * 60), END)
        served = await ended(*slow, END)

    assert refused == b"452 4.3.1 the relay has no room for this message, try again later"
    assert served[:9] == b"250 2.0.0"


async def test_bodies_beyond_the_memory_go_to_files(tmp_path):
    """Many messages of a moderate size at once need no memory that is not there."""
    body = b"\r\n" + (b"x" * 70 + b"\r\n") * 1000
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, limits={"data_memory": "100KB"}, delivery={"cut_through_deadline": "20s"}) as relay,
    ):
        clients = [await begin(port_of(relay), HEADER + body) for _ in range(10)]
        heard = await asyncio.gather(*(ended(*client, b".\r\nQUIT\r\n") for client in clients))

    assert [line[:9] for line in heard] == [b"250 2.0.0"] * 10
    assert {len(one.content) > 70_000 for one in sandbox.accepted} == {True}


async def test_mail_that_is_stored_leaves_memory_to_what_comes_in(tmp_path):
    """SparkPost takes its time over more mail than fits: what is beyond goes out of memory, and nobody waits for it."""
    limits, identities = {"data_memory": "1MB"}, [{"name": "bulk", "delivery": "queue"}]
    message = b"Subject: x\r\n\r\n" + (b"y" * 78 + b"\r\n") * 200 + b".\r\n"
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(
            sandbox,
            limits=limits,
            identities=identities,
            spool={"url": f"sqlite:{tmp_path}/spool.db", "reserve": 0},
            upstream={"connections": 2},
            drain_timeout="100ms",
        ) as relay,
    ):
        reader, writer = await begin(port_of(relay), message)
        for _ in range(100):
            assert (await reader.readline()).startswith(b"250 ")
            assert relay.data_memory.held < 600_000
            writer.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<slow-dot-60000ms@example.net>\r\nDATA\r\n" + message)
            await reader.readuntil(b"354 ")
            await reader.readline()
        writer.close()


async def test_what_comes_while_a_message_is_being_sent_counts_too(tmp_path, monkeypatch):
    """A client that goes on talking is read from as long as there is memory, and no further; all of it is heard."""
    answered = asyncio.Event()

    async def late(intake, message, bearer):
        message.content.close()
        await answered.wait()
        return reply.OK

    monkeypatch.setattr(CutThrough, "accept", late)
    another = ENVELOPE + b"\r\n" + b"another line\r\n" * 30_000
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, limits={"data_memory": "64KB"}) as relay:
        reader, writer = await begin(port_of(relay), HEADER + END.removesuffix(b"QUIT\r\n") + another)
        await until(lambda: relay.data_memory.held > 64_000)
        held = relay.data_memory.held
        answered.set()
        heard = await ended(reader, writer, b".\r\nQUIT\r\n")

    assert held < 64_000 + 2 * 256_000  # uvloop reads so much at once
    assert heard == b"250 2.0.0 ok"
    assert relay.data_memory.held == 0


async def test_who_does_not_read_its_replies_is_not_read_from(tmp_path):
    """The replies have nowhere to go, so the commands are left where they are: with the client."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox) as relay:
        _, writer = await begin(port_of(relay), HEADER)
        await until(lambda: relay.data_memory.held > 0)
        [session] = relay._connections.sessions
        session.pause_writing()
        reading = [session._wire.is_reading()]
        session.resume_writing()
        reading.append(session._wire.is_reading())
        writer.close()

    assert reading == [False, True]
