"""Which way an attempt takes, and when it goes on by the other."""

from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.core.envelope import Recipient
from relay.core.lifecycle import blames_message
from relay.core.login import Assignment, Login, Target, Terms
from relay.core.message import Message
from relay.core.outcome import Ambiguous, Deferred, Failure, FailureKind, HttpAnswer, Outcome, Phase, classify, defect
from relay.core.ports import AttemptReport, Bearer, Effort
from relay.core.secret import Secret
from relay.delivery.circuits import Circuits
from relay.delivery.last_resort import LastResort
from relay.delivery.route import ProofByRoute, Route
from relay.observe.metrics import Metrics
from tests.support.clock import HandClock
from tests.support.mail import message
from tests.support.outcomes import DELIVERED, REFUSED, UNREACHABLE

US = Target("smtp.sparkpostmail.com", (587, 2525))
LOGIN = Login(US, "SMTP_Injection", Secret("a key"), "default")
BEARER = Bearer(Assignment("shop", "default", None), LOGIN, Terms(queue=False, deadline=4.0, max_age=60.0))
BLOCKED = Failure(Phase.CONNECT, FailureKind.REFUSED, "port 587: connection refused")
NO_GRANT = classify(HttpAnswer.of(403, code="1100", text="permission denied"))
TAKEN = classify(HttpAnswer.of(200, text="OK 1", accepted=True))


class Way:
    """A Channel and a LoginProof: notes what it is asked for, and comes to what it is told, after some time."""

    def __init__(self, world: "World", *outcomes: Outcome) -> None:
        self._world = world
        self.outcomes: Sequence[Outcome] = outcomes
        self.efforts: list[Effort] = []
        self.proofs = 0
        self.takes = 0.0
        self.finds_blocked = False
        self.defect: Exception | None = None

    async def send(
        self, message: Message, recipients: Sequence[Recipient], login: Login, effort: Effort
    ) -> AttemptReport:
        self.efforts.append(effort)
        if self.defect is not None:
            raise self.defect
        self._world.clock.skip(self.takes)
        if self.finds_blocked:
            self._world.circuits.target_down(US, BLOCKED)
        outcomes = [self.outcomes[number % len(self.outcomes)] for number in range(len(recipients))]
        return AttemptReport(tuple(zip(recipients, outcomes, strict=True)), connect_seconds=0.1)

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        self.proofs += 1
        return self.outcomes[0]


class Forgetful:
    """What knows of ways, and cannot learn."""

    def __init__(self, known: object) -> None:
        self._known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name)

    def learn(self, *_: object) -> None:
        raise RuntimeError("a defect")


class World:
    """A route over two ways: SMTP finds its ports blocked, HTTPS works."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.https_known = LastResort(lambda _: "https://api.test/api/v1", self.clock.monotonic)
        self.circuits = Circuits(self.clock.monotonic, last_resort=self.https_known)
        self.smtp = Way(self, UNREACHABLE)
        self.smtp.finds_blocked = True
        self.https = Way(self, TAKEN)
        self.route = Route(self.smtp, self.https, self.circuits, self.https_known, self.clock, Metrics())
        self.proof = ProofByRoute(self.smtp, self.https, self.circuits, self.https_known)

    async def deliver(self, recipients: int = 1, patience: float = 4.0) -> AttemptReport:
        one = message("Q1", recipients=recipients)
        return await self.route.deliver(one, one.envelope.recipients, BEARER, Effort(patience))


async def test_the_attempt_that_finds_the_ports_blocked_goes_on() -> None:
    """With the time that is left; the next goes by HTTPS from its beginning."""
    world = World()
    world.smtp.takes = 1.5
    first = await world.deliver()
    second = await world.deliver()

    assert [report.outcomes[0][1] for report in (first, second)] == [TAKEN, TAKEN]
    assert len(world.smtp.efforts) == 1
    assert [effort.patience for effort in world.https.efforts] == [2.5, 4.0]
    assert first.connect_seconds == 1.6


async def test_who_has_no_time_left_hears_what_smtp_said() -> None:
    """HTTPS would only be begun."""
    world = World()
    world.smtp.takes = 3.8
    report = await world.deliver()

    assert report.outcomes[0][1] is UNREACHABLE
    assert world.https.efforts == []


async def test_what_was_sent_to_somebody_is_not_gone_on_with() -> None:
    """The way broke between two transactions of one message: the rest waits for the next attempt."""
    world = World()
    world.smtp.outcomes = (DELIVERED, UNREACHABLE)
    report = await world.deliver(recipients=2)

    assert [outcome for _, outcome in report.outcomes] == [DELIVERED, UNREACHABLE]
    assert world.https.efforts == []


@pytest.mark.parametrize("over", ["smtp", "https"])
@pytest.mark.parametrize(("sent", "kind"), [(False, Deferred), (True, Ambiguous)])
async def test_a_defect_of_a_channel_is_the_end_of_an_attempt_like_any_other(
    over: str, sent: bool, kind: type[Outcome]
) -> None:
    """Its place is logged, each recipient has its line, no way is closed; twice is sent only what may have left."""
    world = World()
    world.smtp.finds_blocked = False
    if over == "https":
        world.circuits.target_down(US, BLOCKED)
    way: Way = getattr(world, over)
    way.defect = RuntimeError("a defect")
    effort = Effort(4.0)
    effort.permit.used = sent
    one = message("Q1", recipients=2)
    with capture_logs() as logged:
        report = await world.route.deliver(one, one.envelope.recipients, BEARER, effort)

    assert len(way.efforts) == 1
    assert [outcome for _, outcome in report.outcomes] == [classify(defect(sent=sent))] * 2
    assert {type(outcome) for _, outcome in report.outcomes} == {kind}
    assert all(blames_message(outcome) for _, outcome in report.outcomes)  # it counts: the next attempt takes its time
    told = [event for event in logged if event["event"] in ("internal.error", "attempt.done")]
    assert [event["event"] for event in told] == ["internal.error", "attempt.done", "attempt.done"]
    assert {event["queue_id"] for event in told} == {"Q1"}
    assert told[0]["exc_info"]
    assert world.circuits.blocked(LOGIN) is None


@pytest.mark.parametrize("over", ["smtp", "https"])
async def test_a_defect_behind_an_answer_takes_it_not_back(over: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the books of the ways makes no second copy of what SparkPost has taken."""
    world = World()
    world.smtp.finds_blocked = False
    if over == "https":
        world.circuits.target_down(US, BLOCKED)
    way: Way = getattr(world, over)
    way.outcomes = (DELIVERED,)
    monkeypatch.setattr(world.route, "_circuits", Forgetful(world.circuits))
    monkeypatch.setattr(world.route, "_last_resort", Forgetful(world.https_known))
    effort = Effort(4.0)
    effort.permit.used = True
    one = message("Q1", recipients=2)
    with capture_logs() as logged:
        report = await world.route.deliver(one, one.envelope.recipients, BEARER, effort)

    assert [outcome for _, outcome in report.outcomes] == [DELIVERED] * 2
    assert [event["event"] for event in logged if event["log_level"] == "error"] == ["internal.error"]


async def test_a_login_that_is_held_back_is_so_on_every_way() -> None:
    """A refused key is not tried over HTTPS because a port is blocked."""
    world = World()
    world.circuits.learn(LOGIN, [REFUSED])
    world.circuits.target_down(US, BLOCKED)
    report = await world.deliver()

    assert report.outcomes[0][1] is REFUSED
    assert world.smtp.efforts == world.https.efforts == []


async def test_a_key_is_proved_over_the_way_its_mail_takes() -> None:
    """SMTP while a port works, HTTPS while none does; that a key has no permission there is remembered."""
    world = World()
    world.https.outcomes = (NO_GRANT,)
    by_smtp = await world.proof.prove(LOGIN, patience=1.0)
    world.circuits.target_down(US, BLOCKED)
    by_https = await world.proof.prove(LOGIN, patience=1.0)

    assert (by_smtp, by_https) == (UNREACHABLE, NO_GRANT)
    assert (world.smtp.proofs, world.https.proofs) == (1, 1)
    assert world.circuits.blocked(LOGIN) is not None
