"""Where a host can be reached, while name servers answer, fail, and say nothing."""

import asyncio
import socket
import threading

import pytest
from structlog.testing import capture_logs

from relay.core.outcome import FailureKind, Phase
from relay.observe import log as events
from relay.upstream import addresses as addresses_module
from relay.upstream.addresses import Names
from relay.upstream.failure import UpstreamFailure

HOST = "smtp.example"
FOUND = [
    (socket.AF_INET, ("192.0.2.1", 0)),
    (socket.AF_INET, ("192.0.2.2", 0)),
    (socket.AF_INET6, ("2001:db8::1", 0, 0, 0)),
]
MOVED = [(socket.AF_INET, ("192.0.2.9", 0))]
DOWN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class NameServers:
    """What each lookup comes to, in turn; None says nothing until `answer`."""

    def __init__(self):
        self.answers = []
        self.asked = 0
        self._silence = threading.Event()

    def __call__(self, host, port, **_):
        self.asked += 1
        answer = self.answers.pop(0)
        if answer is None:
            self._silence.wait(30)
            answer = MOVED
        if isinstance(answer, Exception):
            raise answer
        return [(family, None, 0, "", address) for family, address in answer]

    def answer(self):
        self._silence.set()


@pytest.fixture
def servers(monkeypatch):
    made = NameServers()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answer()


def in_seconds(seconds):
    return asyncio.get_running_loop().time() + seconds


async def first_of(names, seconds=5.0):
    return (await names.candidates(HOST, [587], in_seconds(seconds)))[0].endpoint.address


async def until_it_is(names, address):
    async with asyncio.timeout(5):
        while await first_of(names) != address:
            pass


async def test_one_lookup_serves_every_port(servers):
    """Both families get their turn on each port."""
    servers.answers = [FOUND]
    found = await Names(1).candidates(HOST, [587, 2525], in_seconds(5))

    assert servers.asked == 1
    assert [candidate.address for candidate in found] == [
        *[("192.0.2.1", 587), ("2001:db8::1", 587, 0, 0), ("192.0.2.2", 587)],
        *[("192.0.2.1", 2525), ("2001:db8::1", 2525, 0, 0), ("192.0.2.2", 2525)],
    ]


async def test_an_answer_is_good_for_one_dial(servers):
    """Load balancers come and go: the name servers are asked again, and what they say last counts."""
    servers.answers = [FOUND, MOVED]
    names = Names(1)

    assert [await first_of(names), await first_of(names)] == ["192.0.2.1", "192.0.2.9"]


async def test_what_was_found_last_stands_in_for_a_lookup_that_fails(servers):
    """The operator hears of it once, and when it is over."""
    servers.answers = [FOUND, DOWN, DOWN, MOVED]
    names = Names(1)
    with capture_logs() as logged:
        found = [await first_of(names) for _ in range(4)]

    assert found == ["192.0.2.1"] * 3 + ["192.0.2.9"]
    assert [one["event"] for one in logged] == [events.UPSTREAM_FALLBACK, events.UPSTREAM_UP]
    assert logged[0]["host"] == HOST
    assert "Temporary failure in name resolution" in logged[0]["reason"]


async def test_what_was_found_last_stands_in_for_a_lookup_that_takes_long(servers):
    """It is waited for once, however many ask; its answer counts when it comes."""
    servers.answers = [FOUND, None, MOVED]
    names = Names(0.05)
    await first_of(names)
    with capture_logs() as logged:
        found = await asyncio.gather(*(first_of(names) for _ in range(10)))
        started = asyncio.get_running_loop().time()
        found.append(await first_of(names, 0))  # the wait is over for who comes now

    assert found == ["192.0.2.1"] * 11
    assert servers.asked == 2
    assert asyncio.get_running_loop().time() < started + 1
    assert "the name servers are silent" in logged[0]["reason"]

    servers.answer()
    await until_it_is(names, "192.0.2.9")


async def test_nothing_stands_in_for_what_was_never_found(servers):
    """One name's addresses are not another's."""
    servers.answers = [FOUND, DOWN]
    names = Names(0.01)
    await first_of(names)
    with pytest.raises(UpstreamFailure) as error:
        await names.candidates("smtp.elsewhere.example", [587], in_seconds(5))

    assert (error.value.fact.phase, error.value.fact.kind) == (Phase.RESOLVE, FailureKind.UNRESOLVED)


async def test_a_lookup_that_is_stuck_gets_another_beside_it(servers, monkeypatch):
    """A question may have been lost; but there are not more and more of them."""
    monkeypatch.setattr(addresses_module, "RENEWED", 0.0)
    monkeypatch.setattr(addresses_module, "MOST", 3)
    servers.answers = [None, None, FOUND, None]
    names = Names(1)
    for _ in range(2):
        with pytest.raises(UpstreamFailure, match="silent"):
            await first_of(names, 0.01)

    assert await first_of(names) == "192.0.2.1"

    for _ in range(3):
        with pytest.raises(UpstreamFailure, match="silent"):
            await names.candidates("smtp.elsewhere.example", [587], in_seconds(0.01))

    assert servers.asked == 4


async def test_who_waits_for_a_question_that_was_lost_has_the_answer_to_the_next(servers, monkeypatch):
    """Also where nothing stands in; and what comes of the first one afterwards counts as ever."""
    monkeypatch.setattr(addresses_module, "RENEWED", 0.0)
    servers.answers = [None, None, FOUND]
    names = Names(1)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(first_of(names, 30) for _ in range(3)))

    assert found == ["192.0.2.1"] * 3

    servers.answers = [MOVED]
    servers.answer()
    assert await first_of(names) == "192.0.2.9"


async def test_a_host_without_room_for_another_thread(servers, monkeypatch):
    """The lookup has failed, as if the name servers had; the next one is a new one."""

    def none_left(_):
        raise RuntimeError("can't start new thread")

    servers.answers = [FOUND]
    names = Names(1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(UpstreamFailure, match="no thread"):
            await first_of(names)

    assert await first_of(names) == "192.0.2.1"


def test_a_lookup_outlives_the_loop(servers):
    """What it comes to then is nobody's business any more, and no error."""
    servers.answers = [None]

    async def ask():
        with pytest.raises(UpstreamFailure, match="silent"):
            await first_of(Names(1), 0.01)

    asyncio.run(ask())
    (lookup,) = [thread for thread in threading.enumerate() if HOST in thread.name]
    servers.answer()
    lookup.join(5)

    assert (lookup.daemon, lookup.is_alive()) == (True, False)
