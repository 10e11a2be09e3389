"""The race over ports and addresses."""

import asyncio
import socket
import threading

import pytest

from relay.core.login import Endpoint, Target
from relay.core.outcome import Answer, Failure, FailureKind, Phase
from relay.core.reply import Reply
from relay.upstream import dial as dial_module
from relay.upstream import race as race_module
from relay.upstream.addresses import Candidate, Names
from relay.upstream.dial import Dialler
from relay.upstream.failure import UpstreamFailure

TARGET = Target("127.0.0.1", (587, 2525))


class Plenty:
    """Slots without end, counted."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self.taken = 0

    def take(self) -> bool:
        if self.taken >= self.limit:
            return False
        self.taken += 1
        return True

    def give(self) -> None:
        self.taken -= 1


class Script:
    """What each port does: an exception, a value, or None for silence."""

    def __init__(self, **ports):
        self.ports = {int(port[1:]): what for port, what in ports.items()}
        self.dialled: list[int] = []
        self.running = 0
        self.most = 0
        self.both = asyncio.Event()

    async def __call__(self, candidate: Candidate, connected):
        self.dialled.append(candidate.endpoint.port)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 2:
            self.both.set()
        try:
            what = self.ports[candidate.endpoint.port]
            if what is None:
                await asyncio.get_running_loop().create_future()
            if isinstance(what, Exception):
                raise what
            return what
        finally:
            self.running -= 1


def failing(kind=FailureKind.REFUSED, detail="connection refused"):
    return UpstreamFailure(Failure(Phase.CONNECT, kind, detail))


class Watched:
    """What a watcher is told, in order."""

    def __init__(self):
        self.told = []
        self.heard = asyncio.Event()

    def target_down(self, target, fact):
        self.told.append("down")
        self.heard.set()

    def target_up(self, target, port):
        self.told.append(f"up {port}")

    def fell_back(self, target, port):
        self.told.append(f"fallback {port}")


async def dial(dialler, slots=None, seconds=5.0):
    return await dialler.dial(TARGET, asyncio.get_running_loop().time() + seconds, slots or Plenty())


async def test_the_preferred_port_wins_alone():
    """Nobody else is asked while it answers."""
    script = Script(p587="yes", p2525="no")

    assert await dial(Dialler(script, fallback_after=1)) == "yes"
    assert script.dialled == [587]


async def test_a_failed_port_is_followed_at_once():
    """No time is lost on a port that refuses."""
    script, watcher = Script(p587=failing(), p2525="yes"), Watched()

    assert await dial(Dialler(script, fallback_after=100, watcher=watcher)) == "yes"
    assert script.dialled == [587, 2525]
    assert watcher.told == ["up 2525", "fallback 2525"]


async def test_a_silent_port_is_joined_and_then_dropped():
    """The next runs beside it; the loser is cancelled, and its slot given back."""
    script, slots = Script(p587=None, p2525="yes"), Plenty()

    assert await dial(Dialler(script, fallback_after=0.01), slots) == "yes"
    assert script.most == 2
    assert (script.running, slots.taken) == (0, 0)


async def test_without_a_slot_to_spare_the_next_takes_its_place():
    """One connection at a time when that is all there may be."""
    script, slots = Script(p587=None, p2525="yes"), Plenty(limit=0)

    assert await dial(Dialler(script, fallback_after=0.01), slots) == "yes"
    assert script.most == 1


async def test_the_port_that_worked_is_remembered_once():
    """Later dials go there first, and the change is told once."""
    script, watcher = Script(p587=failing(), p2525="yes"), Watched()
    dialler = Dialler(script, fallback_after=1, watcher=watcher)
    for _ in range(3):
        await dial(dialler)

    assert script.dialled == [587, 2525, 2525, 2525]
    assert watcher.told.count("fallback 2525") == 1


async def test_a_target_is_down_when_no_port_works():
    """Whoever watches hears it once a dial, with the cause, and when it is up again."""
    script, watcher = Script(p587=failing(), p2525=failing()), Watched()
    dialler = Dialler(script, fallback_after=1, watcher=watcher)
    with pytest.raises(UpstreamFailure):
        await dial(dialler)
    script.ports[587] = "yes"
    await dial(dialler)

    assert watcher.told == ["down", "up 587"]


async def test_silence_is_suspicious_long_before_it_is_given_up(monkeypatch):
    """A dial that has come to nothing for a while keeps nobody waiting: it is told, and goes on."""
    monkeypatch.setattr("relay.upstream.dial.SUSPICION", 0.05)
    script, watcher = Script(p587=None, p2525=None), Watched()
    dialling = asyncio.create_task(dial(Dialler(script, fallback_after=0.01, watcher=watcher), seconds=30))
    await asyncio.wait_for(watcher.heard.wait(), 5)

    assert watcher.told == ["down"]
    assert not dialling.done()
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling


async def test_silence_is_no_news_once_another_dial_has_got_through(monkeypatch):
    """Its own name servers were silent, or its packets were lost: that was before, and the target is there."""
    monkeypatch.setattr("relay.upstream.dial.SUSPICION", 0.05)
    monkeypatch.setattr("relay.upstream.dial.FAIR_SECONDS", 0.0)
    asked, given_up = asyncio.Event(), asyncio.Event()
    look_up = Names.candidates

    async def lookup(names, host, ports, deadline):
        if not asked.is_set():
            asked.set()
            await given_up.wait()
            raise UpstreamFailure(Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, "silent"))
        return await look_up(names, host, ports, deadline)

    monkeypatch.setattr(Names, "candidates", lookup)
    watcher = Watched()
    dialler = Dialler(Script(p587="yes", p2525="yes"), fallback_after=0.01, watcher=watcher)
    late = asyncio.create_task(dial(dialler))
    await asked.wait()
    await dial(dialler)
    given_up.set()
    with pytest.raises(UpstreamFailure, match="silent"):
        await late

    assert watcher.told == ["up 587"]


async def test_the_preferred_port_is_probed_beside_the_mail(monkeypatch):
    """When its time has come: mail goes on by the port that works; once the other works too, it is the first again."""
    monkeypatch.setattr(dial_module, "MEMORY_SECONDS", -1.0)
    script, slots, discarded = Script(p587=failing(), p2525="yes"), Plenty(), []

    async def discard(found):
        discarded.append(found)

    async def probed():
        while dialler._probes:
            await asyncio.wait(list(dialler._probes.values()))

    dialler = Dialler(script, fallback_after=100, discard=discard)
    await dial(dialler, slots)
    assert await dial(dialler, slots) == "yes"  # 587 is still blocked
    await probed()
    assert sorted(script.dialled[2:]) == [587, 2525]
    script.ports[587] = "preferred"
    assert await dial(dialler, slots) == "yes"
    await probed()

    assert discarded == ["preferred"]
    assert await dial(dialler, slots) == "preferred"
    assert (script.running, slots.taken) == (0, 0)


async def test_steady_mail_does_not_put_the_probe_off(monkeypatch):
    """However often the other port is used, the preferred one gets its chance."""
    monkeypatch.setattr(dial_module, "MEMORY_SECONDS", 0.05)
    script = Script(p587=failing(), p2525="yes")
    dialler = Dialler(script, fallback_after=100)
    async with asyncio.timeout(5):
        while script.dialled.count(587) < 2:
            await dial(dialler)


async def test_without_a_slot_to_spare_one_dial_begins_with_the_preferred_port(monkeypatch):
    """Once in the time after which it would be probed; the others go where mail is known to get through."""
    script, slots = Script(p587=failing(), p2525="yes"), Plenty(limit=0)
    dialler = Dialler(script, fallback_after=100)
    monkeypatch.setattr(dial_module, "MEMORY_SECONDS", -1.0)
    await dial(dialler, slots)
    monkeypatch.setattr(dial_module, "MEMORY_SECONDS", 100.0)
    for _ in range(3):
        assert await dial(dialler, slots) == "yes"

    assert script.dialled == [587, 2525, 587, 2525, 2525, 2525]


async def test_a_single_connection_finds_its_way_back(monkeypatch):
    """The preferred port works again: the dial that begins with it ends with it, and so do those that follow."""
    monkeypatch.setattr(dial_module, "MEMORY_SECONDS", -1.0)
    script, slots, watcher = Script(p587=None, p2525="yes"), Plenty(limit=0), Watched()
    dialler = Dialler(script, fallback_after=0.01, watcher=watcher)
    await dial(dialler, slots)
    script.ports[587] = "preferred"

    assert [await dial(dialler, slots) for _ in range(2)] == ["preferred"] * 2
    assert watcher.told == ["up 2525", "fallback 2525", "up 587", "up 587"]


async def test_who_waits_for_a_silent_port_hears_that_it_works_again():
    """One dial is stuck where nobody answers; another gets through, and the first does not wait for its time to end."""
    script = Script(p587=None, p2525=None)
    dialler = Dialler(script, fallback_after=0)
    stuck = asyncio.create_task(dial(dialler))
    await script.both.wait()
    script.ports[587] = "yes"

    assert await dial(dialler) == "yes"
    assert await stuck == "yes"
    assert script.running == 0


async def test_dials_that_are_under_way_together_do_not_disturb_each_other():
    """That one is a little faster is no reason for the others to begin again."""
    script = Script(p587="yes", p2525="no")
    dialler = Dialler(script, fallback_after=1)

    assert await asyncio.gather(*(dial(dialler) for _ in range(5))) == ["yes"] * 5
    assert script.dialled == [587] * 5


async def test_all_blocked_names_every_cause():
    """Each port with what was wrong there."""
    script = Script(p587=failing(), p2525=failing(FailureKind.UNVERIFIED, "bad certificate"))
    with pytest.raises(UpstreamFailure) as error:
        await dial(Dialler(script, fallback_after=1))

    assert str(error.value) == "port 587: connection refused; port 2525: bad certificate"


async def test_not_now_ends_the_race():
    """A 421 greeting is an answer, and no reason to knock elsewhere."""
    busy = UpstreamFailure(Answer(Phase.BANNER, Reply(421, None, "later")))
    script = Script(p587=busy, p2525="yes")
    with pytest.raises(UpstreamFailure) as error:
        await dial(Dialler(script, fallback_after=1))

    assert error.value is busy
    assert script.dialled == [587]


async def test_time_runs_out():
    """What was silent until then is named."""
    script = Script(p587=None, p2525=None)
    with pytest.raises(UpstreamFailure) as error:
        await dial(Dialler(script, fallback_after=0.01), seconds=0.05)

    assert "port 587: silent" in str(error.value)
    assert "port 2525: silent" in str(error.value)
    assert script.running == 0


async def test_a_name_without_address():
    """The name is told, and that it is DNS."""
    dialler = Dialler(Script(), fallback_after=1)
    with pytest.raises(UpstreamFailure) as error:
        await dialler.dial(Target("no-such-host.invalid", (587,)), asyncio.get_running_loop().time() + 5, Plenty())

    assert error.value.fact.phase is Phase.RESOLVE
    assert "no-such-host.invalid cannot be resolved" in str(error.value)


async def test_silent_name_servers_end_in_time(monkeypatch):
    """The application is not kept waiting for the resolver, and hears that it is DNS."""
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(10) and [])
    with pytest.raises(UpstreamFailure) as error:
        await dial(Dialler(Script(), fallback_after=1), seconds=0.01)

    answered.set()

    assert error.value.fact.phase is Phase.RESOLVE
    assert "the name servers are silent" in str(error.value)


async def test_many_dead_addresses_do_not_delay_the_next_port(monkeypatch):
    """After `fallback_after` it is the next port's turn; what is left of the first comes last."""
    addresses = [(socket.AF_INET, None, 0, "", (f"192.0.2.{number}", 0)) for number in range(20)]

    def many(host, port, **_):
        return addresses

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(socket, "getaddrinfo", many)
    script, started = Script(p587=None, p2525="yes"), loop.time()

    assert await dial(Dialler(script, fallback_after=0.3)) == "yes"
    assert script.dialled == [587, 587, 2525]
    assert 0.3 <= loop.time() - started < 3  # twenty addresses would take five seconds


async def test_what_is_left_of_a_port_comes_in_its_own_time(monkeypatch):
    """When every port has had its turn, the remaining addresses follow one by one, not in a crowd."""

    def six(host, port, **_):
        return [(socket.AF_INET, None, 0, "", (f"192.0.2.{number}", 0)) for number in range(6)]

    monkeypatch.setattr(race_module, "ADDRESS_DELAY", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", six)
    script = Script(p587=None, p2525=None)
    with pytest.raises(UpstreamFailure):
        await dial(Dialler(script, fallback_after=0.01), seconds=0.25)

    assert script.dialled[:2] == [587, 2525]
    assert 3 <= script.most <= 5


async def test_an_address_that_answers_is_given_its_time(monkeypatch):
    """SparkPost is up to 200 ms away, and the way to TLS is five times that: one connection, not one an address."""

    def three(host, port, **_):
        return [(socket.AF_INET, None, 0, "", (f"192.0.2.{number}", 0)) for number in range(3)]

    async def slow(candidate, connected):
        dialled.append(candidate.endpoint.port)
        connected()
        if candidate.endpoint.port == 587:
            await loop.create_future()
        return "yes"

    dialled: list[int] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(socket, "getaddrinfo", three)

    assert await dial(Dialler(slow, fallback_after=0.6)) == "yes"
    assert dialled == [587, 2525]


async def test_a_port_that_took_the_connection_and_is_silent_holds_up_no_other_port(monkeypatch):
    """What refuses on the next port is followed at once, by its own addresses and by the rest of the first port's."""

    def two(host, port, **_):
        return [(socket.AF_INET, None, 0, "", (f"192.0.2.{number}", 0)) for number in (1, 2)]

    async def attempt(candidate, connected):
        dialled.append(candidate.address)
        if candidate.address == ("192.0.2.1", 587):
            connected()
            await loop.create_future()
        if candidate.endpoint.port == 2525:
            raise failing()
        return "yes"

    dialled: list[tuple[str, int]] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(socket, "getaddrinfo", two)

    assert await dial(Dialler(attempt, fallback_after=1.5), seconds=2.9) == "yes"
    assert dialled == [("192.0.2.1", 587), ("192.0.2.1", 2525), ("192.0.2.2", 2525), ("192.0.2.2", 587)]


def test_a_candidate_is_shown_as_host_and_port():
    """That is what logs and metrics name."""
    candidate = Candidate(Endpoint("smtp.example", 587, "192.0.2.1"), socket.AF_INET, ("192.0.2.1", 587))

    assert str(candidate.endpoint) == "smtp.example:587"
