"""The whole relay, with a spool and clients, while its connections with SparkPost break: the ledger stays exact.

Between relay and stand-in stands a cable that is cut after so many octets. What the stand-in has accepted is the truth:
nothing that was answered 250 is lost, and a second copy is one that the ledger marks as possible.
"""

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from relay.app import Relay
from relay.core.lifecycle import Fate, State
from relay.core.spooled import Entry
from tests.support.client import send
from tests.support.ledger import settled, until
from tests.support.running import port_of, relay_to, sandbox_with

CLIENTS = 3
BODY = b"y" * 78 + b"\r\n"
_NUMBER = re.compile(rb"^X-Number: (\d+)\r$", re.MULTILINE)
_QUEUE_ID = re.compile(rb"\bid ([0-9A-Z]{14})\b")


class Cable(asyncio.Protocol):
    """One end of a connection through which octets go until it is cut."""

    def __init__(self, cut_after: int | None, lose: Callable[["Cable"], None], other: "Cable | None" = None) -> None:
        self.other = other
        self.passed = 0
        self.transport: asyncio.Transport | None = None
        self._cut_after = cut_after
        self._lose = lose
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def join(self, other: "Cable") -> None:
        self.other = other
        for octets in self._early:
            self._pass_on(octets)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        assert self.other is not None
        assert self.other.transport is not None
        left = len(data) if self._cut_after is None else self._cut_after - self.passed
        self.passed += len(data)
        self.other.transport.write(data[: max(left, 0)])
        if left < len(data):
            self.other.end()
            self.end()

    def end(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.end()
        self._lose(self)


class Cables:
    """A port that leads to another. `cuts` yields for each new connection after how many octets it is cut, towards the
    server and towards the client; None is never. `longest`: most octets that have gone either way.
    """

    def __init__(self, port: int) -> None:
        self.cuts: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)
        self.ends: set[Cable] = set()
        self.cut = 0
        self.longest = [0, 0]
        self._port = port
        self._lost = asyncio.Event()
        self._joining: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Cables":
        self._server = await asyncio.get_running_loop().create_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()

    async def hang_up(self) -> None:
        """Until no connection is left."""
        if self._joining:
            await asyncio.wait(self._joining)
        for end in list(self.ends):
            end.end()
        while self.ends:
            self._lost.clear()
            await self._lost.wait()

    def _connected(self) -> Cable:
        there, back = self.cuts()
        self.cut += there is not None or back is not None
        end = Cable(there, partial(self._lose, 0))
        self.ends.add(end)
        task = asyncio.get_running_loop().create_task(self._join(end, back))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        return end

    def _lose(self, way: int, end: Cable) -> None:
        self.longest[way] = max(self.longest[way], end.passed)
        self.ends.discard(end)
        self._lost.set()

    async def _join(self, end: Cable, back: int | None) -> None:
        far = Cable(back, partial(self._lose, 1), end)
        self.ends.add(far)
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self._port)
            end.join(far)


class Client:
    """One application with one connection: what it sent, and what it was told."""

    def __init__(self, port: int, numbers: range, recipients: Callable[[int], list[str]]) -> None:
        self.to = {number: recipients(number) for number in numbers}
        self.answers: dict[int, str] = {}
        self._port = port

    async def send_all(self, *, large: Callable[[int], bool]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await reader.readuntil(b"\r\n")
        writer.write(b"EHLO client.test\r\n")
        while not (await reader.readuntil(b"\r\n")).startswith(b"250 "):
            pass
        for number, recipients in self.to.items():
            sender = b"bulk" if number % 2 else b"direct"
            writer.write(b"MAIL FROM:<%s@example.com>\r\n" % sender)
            writer.writelines(b"RCPT TO:<%s>\r\n" % one.encode() for one in recipients)
            writer.write(b"DATA\r\n")
            for _ in range(len(recipients) + 2):
                await reader.readuntil(b"\r\n")
            body = BODY * 2500 if large(number) else BODY
            writer.write(b"Subject: faults\r\nX-Number: %d\r\n\r\n" % number + body + b".\r\n")
            self.answers[number] = (await reader.readuntil(b"\r\n")).decode()
        writer.close()
        await writer.wait_closed()


def over(entries: Sequence[Entry], clients: list[Client]) -> bool:
    """Everything that was answered 250 is in the ledger, and what can go out has gone."""
    taken = sum(answer.startswith("250") for client in clients for answer in client.answers.values())
    return len(entries) >= taken and all(_hopeless(entry) for entry in entries)


def _hopeless(entry: Entry) -> bool:
    """If anything is left of it, it shares its transactions with somebody who always fails."""
    left = [one.address for one in entry.recipients if one.fate is Fate.PENDING]
    return not left or any("@always." in address for address in left)


async def at_rest(relay: Relay) -> list[Entry]:
    """The ledger when no attempt is under way any more."""
    relay.queue.stop_claiming()
    return await settled(relay, lambda found: not any(entry.state is State.ACTIVE for entry in found))


def judge(clients: list[Client], entries: list[Entry], accepted) -> Counter:
    """Recipient by recipient: accepted, bounced or still there; a second copy is marked. How often each was so."""
    copies: Counter[tuple[int, str]] = Counter()
    ids: dict[int, set[str]] = {}
    for one in accepted:
        number = int(_NUMBER.search(one.content)[1])
        ids.setdefault(number, set()).add(_QUEUE_ID.search(one.content)[1].decode())
        for to in one.recipients:
            copies[number, to] += 1
    known = {entry.queue_id: entry for entry in entries}
    tally: Counter[str] = Counter()
    for client in clients:
        for number, recipients in client.to.items():
            answer = client.answers[number]
            found = re.search(r"\b(?:as |show |\()([0-9A-Z]{14})\b", answer)
            names = ids.get(number, set()) | ({found[1]} if found else set())
            assert len(names) <= 1, (number, names)
            entry = known.get(next(iter(names), ""))
            for place, to in enumerate(recipients):
                count = copies.pop((number, to), 0)
                if not answer.startswith("250"):
                    assert entry is None, (number, answer, entry)
                    assert count == 0, (number, to, answer)
                    tally["refused"] += 1
                    continue
                assert entry is not None, (number, answer)
                one = entry.recipients[place]
                doubt = [line for line in entry.history if line.outcome == "ambiguous" and place in line.recipients]
                assert one.address == to
                assert count <= 1 + len(doubt), (number, to, count, entry)
                assert count <= 1 or entry.maybe_twice, (number, to, count, entry)
                match one.fate:
                    case Fate.DELIVERED:
                        assert count >= 1, (number, to, entry)
                    case Fate.BOUNCED:
                        assert count <= len(doubt), (number, to, entry)
                    case Fate.PENDING:
                        assert count <= len(doubt), (number, to, entry)
                        assert entry.state in {State.QUEUED, State.ACTIVE}
                tally[one.fate] += 1
                tally["twice"] += count > 1
    assert not copies, f"nobody sent {copies}"
    return tally


def spooled(tmp_path: Path, port: int, connections: int) -> dict[str, object]:
    """A configuration with a spool, short delays, and the port of the cables."""
    timeouts = {"final_dot": "200ms", "command": "1s"}
    return {
        "upstream": {"ports": [port], "connections": connections, "timeouts": timeouts},
        "spool": {"url": f"sqlite:{tmp_path}/spool.db", "reserve": 0},
        "delivery": {"retry": {"first": "30ms", "max": "200ms"}, "cut_through_deadline": "2s"},
        "identities": [{"name": "bulk", "match": {"mail_from": "bulk@*"}, "delivery": "queue"}, {"name": "direct"}],
    }


def lots(size: int) -> list[range]:
    """Numbers for each client."""
    return [range(1 + n * size, 1 + (n + 1) * size) for n in range(CLIENTS)]


async def send_through(
    relay: Relay,
    recipients: Callable[[int], list[str]],
    *,
    numbers: list[range],
    large: Callable[[int], bool] = lambda _: False,
) -> list[Client]:
    """All clients at once, each its messages one after the other."""
    clients = [Client(port_of(relay), lot, recipients) for lot in numbers]
    async with asyncio.timeout(40):
        await asyncio.gather(*(client.send_all(large=large) for client in clients))
    return clients


def to_some(number: int) -> list[str]:
    """One, several, some or all of them refused."""
    return [
        ["b@example.net"],
        ["b@example.net", "c@example.net"],
        ["permfail@example.net", "c@example.net"],
        ["d@example.net"],
        ["c@example.net", "550-5.1.1@example.net", "d@example.net"],
        ["permfail@example.net"],
        ["d@example.net"],
    ][number % 7]


EACH = 30  # messages of each client


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("way", ["towards SparkPost", "towards the relay"])
async def test_the_cable_is_cut_again_and_again(tmp_path, way, connections):
    """At some octet behind the login of each connection; in the end all mail has gone out, and the ledger is exact."""
    rng = random.Random(way)
    async with (
        sandbox_with(tmp_path / "tls", transcripts=False) as sandbox,
        Cables(sandbox.addresses[0][1]) as cables,
        relay_to(sandbox, **spooled(tmp_path, cables.port, connections)) as relay,
    ):
        warm = await send_through(relay, lambda _: ["b@example.net"], numbers=[range(9000, 9001)])
        await cables.hang_up()
        there, back = cables.longest
        cables.cuts = lambda: (
            (there + rng.randrange(-500, 4000), None)
            if way == "towards SparkPost"
            else (None, back + rng.randrange(-150, 1500))
        )
        clients = await send_through(relay, to_some, numbers=lots(EACH), large=lambda number: number % 13 == 0)
        cables.cuts = lambda: (None, None)
        await settled(relay, lambda found: over(found, clients))
        tally = judge([*warm, *clients], await at_rest(relay), sandbox.accepted)

    assert cables.cut >= 10
    assert tally[Fate.PENDING] == 0
    assert tally[Fate.BOUNCED] > 0
    assert tally["refused"] > 0


TROUBLE = [
    "b@example.net",
    "c@example.net",
    "b@example.net",
    "disconnect@always.example",
    "421-4.3.2@always.example",
    "gibberish@always.example",
    "452-4.5.3@always.example",
    "451-4.3.0-at-data@always.example",
    "disconnect-in-data@always.example",
    "421-4.3.2-after-dot@always.example",
    "disconnect-after-dot@always.example",
    "gibberish-after-dot@always.example",
    "silent-after-dot@always.example",
    "permfail-after-dot@example.net",
    "550-5.7.1@example.net",
]


@pytest.mark.parametrize("connections", [1, 3])
async def test_every_kind_of_trouble_beside_good_mail(tmp_path, connections):
    """What always fails stays in the spool, in doubt where it has been accepted; all the rest goes out."""
    rng = random.Random(connections)
    async with (
        sandbox_with(tmp_path / "tls", transcripts=False) as sandbox,
        Cables(sandbox.addresses[0][1]) as cables,
        relay_to(sandbox, **spooled(tmp_path, cables.port, connections)) as relay,
    ):
        clients = await send_through(relay, lambda _: rng.sample(TROUBLE, rng.choice([1, 1, 2])), numbers=lots(20))
        await settled(relay, lambda found: over(found, clients))
        tally = judge(clients, await at_rest(relay), sandbox.accepted)

    assert tally[Fate.PENDING] > 0
    assert tally["twice"] > 0


async def test_who_was_put_behind_a_slow_dot_goes_elsewhere(tmp_path, monkeypatch):
    """Also where all connections there may be are open, and one of them is busy for long: an idle one makes way."""
    monkeypatch.setattr("relay.upstream.session.BEHIND_SECONDS", 0.1)
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, upstream={"connections": 2}, drain_timeout="0.1s") as relay,
    ):
        port = port_of(relay)
        await send(port, "warm@example.net")
        slow = asyncio.create_task(send(port, "slow-dot-60000ms@example.net"))
        await until(lambda: any(held.load for held in relay._pool._holders.values()))
        async with asyncio.timeout(10):
            answers = [await send(port, f"{name}@example.net") for name in ("behind", "beside", "after")]

    await asyncio.gather(slow, return_exceptions=True)  # the relay has gone before it was answered

    assert {code for code, _ in answers} == {250}
