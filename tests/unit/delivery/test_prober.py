"""What is closed is tried again, off the path of mail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.typing import EventDict

from relay.core.login import Login, Target
from relay.core.outcome import Failure, FailureKind, Outcome, Phase
from relay.core.secret import Secret
from relay.delivery.circuits import Circuits
from relay.delivery.prober import PATIENCE, Prober
from tests.support.clock import HandClock
from tests.support.outcomes import REFUSED

US = Target("smtp.sparkpostmail.com", (587, 2525))
BLOCKED = Failure(Phase.CONNECT, FailureKind.REFUSED, "port 587: connection refused")
LOGIN = Login(US, "SMTP_Injection", Secret("a key"), "default")


class SparkPost:
    """Both ports that the prober needs: what is asked is noted with its time, and answered as `takes` says.

    `silent` targets say nothing until the patience is over. `defect` is raised in place of an answer.
    """

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.circuits = Circuits(clock.monotonic)
        self.dials: list[float] = []
        self.logins: list[float] = []
        self.takes = False
        self.silent = False
        self.defect: Exception | None = None
        self.cancelled = 0

    async def reach(self, target: Target, *, patience: float) -> None:
        self.dials.append(self.clock.monotonic())
        if self.defect is not None:
            raise self.defect
        if self.silent:
            try:
                await self.clock.sleep(patience)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.takes:
            self.circuits.target_up(target, 587)
        else:
            self.circuits.target_down(target, BLOCKED)

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        self.logins.append(self.clock.monotonic())
        return None if self.takes else REFUSED


@pytest.fixture
def sparkpost() -> SparkPost:
    return SparkPost(HandClock())


@asynccontextmanager
async def probing(sparkpost: SparkPost) -> AsyncIterator[Prober]:
    """A prober that runs meanwhile."""
    prober = Prober(sparkpost.circuits, sparkpost, sparkpost, sparkpost.clock)
    running = asyncio.create_task(prober.run())
    try:
        await sparkpost.clock.settle()
        yield prober
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_nothing_is_done_while_everything_is_open(sparkpost: SparkPost) -> None:
    """An idle relay has no timer running."""
    async with probing(sparkpost):
        assert sparkpost.clock.sleeping == 0
        await sparkpost.clock.advance(3600)

    assert (sparkpost.dials, sparkpost.logins) == ([], [])


async def test_a_target_that_is_down_is_dialled_until_it_is_there(sparkpost: SparkPost) -> None:
    """Every two seconds; then there is peace again."""
    async with probing(sparkpost) as prober:
        sparkpost.circuits.target_down(US, BLOCKED)
        prober.wake()
        await sparkpost.clock.advance(7)
        sparkpost.takes = True
        await sparkpost.clock.advance(3)

        assert sparkpost.dials == [2, 4, 6, 8]
        assert sparkpost.circuits.blocked(LOGIN) is None
        assert sparkpost.clock.sleeping == 0


async def test_a_silent_target_is_dialled_all_the_same(sparkpost: SparkPost) -> None:
    """A probe that gets no answer delays no other."""
    sparkpost.silent = True
    async with probing(sparkpost) as prober:
        sparkpost.circuits.target_down(US, BLOCKED)
        prober.wake()
        await sparkpost.clock.advance(8)

    assert sparkpost.dials == [2, 4, 6, 8]
    assert PATIENCE > 2


async def test_a_refused_login_is_tried_every_minute_until_it_works(sparkpost: SparkPost) -> None:
    """No more often, and only without mail."""
    async with probing(sparkpost) as prober:
        sparkpost.circuits.learn(LOGIN, [REFUSED])
        prober.wake()
        await sparkpost.clock.advance(150)
        assert sparkpost.circuits.blocked(LOGIN) == REFUSED
        sparkpost.takes = True
        await sparkpost.clock.advance(60)

        assert sparkpost.logins == [60, 120, 180]
        assert sparkpost.circuits.blocked(LOGIN) is None
        assert sparkpost.clock.sleeping == 0


async def test_it_ends_with_its_probes(sparkpost: SparkPost) -> None:
    """No dial outlives the relay."""
    sparkpost.silent = True
    async with probing(sparkpost) as prober:
        sparkpost.circuits.target_down(US, BLOCKED)
        prober.wake()
        await sparkpost.clock.advance(4)

    assert sparkpost.cancelled == 2


async def test_a_defect_in_a_probe_is_told_and_ends_nothing(sparkpost: SparkPost, logged: list[EventDict]) -> None:
    """The next probe may open the way all the same."""
    sparkpost.defect = RuntimeError("a defect")
    async with probing(sparkpost) as prober:
        sparkpost.circuits.target_down(US, BLOCKED)
        prober.wake()
        await sparkpost.clock.advance(2)
        sparkpost.defect, sparkpost.takes = None, True
        await sparkpost.clock.advance(2)

    assert [event["event"] for event in logged] == ["upstream.down", "internal.error", "upstream.up"]
