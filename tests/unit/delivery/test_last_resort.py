"""For whom HTTPS is a way, and until when it is not."""

import pytest
from structlog.typing import EventDict

from relay.core.lifecycle import blames_message
from relay.core.login import PASSTHROUGH, Login, Target, username_for
from relay.core.outcome import Ambiguous, Answer, Failure, FailureKind, HttpAnswer, Phase, classify
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.delivery.circuits import Circuits
from relay.delivery.last_resort import API_FIRST, API_LONGEST, GRANT_FIRST, RATE_FIRST, LastResort
from relay.observe import log as events
from tests.support.clock import HandClock

US, EU = Target("smtp.sparkpostmail.com", (587, 2525)), Target("smtp.eu.sparkpostmail.com", (587,))
API = "https://api.sparkpost.com"
BLOCKED = Failure(Phase.CONNECT, FailureKind.REFUSED, "port 587: connection refused; port 2525: silent")

NOT_NOW = Answer(Phase.BANNER, Reply.parse(421, ["4.3.2 too many connections"]))

TAKEN = classify(HttpAnswer.of(200, text="OK 1", accepted=True))
NO_GRANT = classify(HttpAnswer.of(403, code="1100", text="permission denied"))
TOO_FAST = classify(HttpAnswer.of(429, text="Too many requests"))
UNAUTHORIZED = classify(HttpAnswer.of(401, text="Unauthorized."))
DOWN = classify(HttpAnswer.of(503, code="1900", text="Unable to contact authorization service."))
QUOTA = classify(HttpAnswer.of(420, code="2102", text="Exceed Sending Limit (daily)"))
REFUSED = classify(Failure(Phase.CONNECT, FailureKind.REFUSED, "connection refused"))
UNVERIFIED = classify(Failure(Phase.TLS, FailureKind.UNVERIFIED, "the certificate does not verify"))
CROWDED = classify(Failure(Phase.CONNECT, FailureKind.DEADLINE, "all connections are busy"))
SILENT = classify(Failure(Phase.RESPONSE, FailureKind.TIMEOUT, "no answer"))


def login(subaccount: int | None = None, *, credential: str = "default", target: Target = US) -> Login:
    return Login(target, username_for("SMTP_Injection", subaccount), Secret(f"key of {credential}"), credential)


class World:
    """The last resort behind the circuits of one relay; only the US account has an API."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.changes = 0
        self.https = LastResort(
            lambda one: f"{API}/api/v1" if one.target == US else None, self.clock.monotonic, self._changed
        )
        self.circuits = Circuits(self.clock.monotonic, last_resort=self.https)

    def _changed(self) -> None:
        self.changes += 1


def test_it_is_used_while_no_port_works_and_no_longer() -> None:
    """Blocked: HTTPS. A port works: SMTP, at once. What has no API waits."""
    world = World()
    before = world.circuits.by_https(login())
    world.circuits.target_down(US, BLOCKED)
    world.circuits.target_down(EU, BLOCKED)
    us, eu = login(), login(credential="europe", target=EU)
    blocked = [world.circuits.by_https(us), world.circuits.blocked(us)]
    without = [world.circuits.by_https(eu), world.circuits.blocked(eu) is not None]
    world.circuits.target_up(US, 2525)

    assert before is False
    assert blocked == [True, None]
    assert without == [False, True]
    assert world.circuits.by_https(us) is False


def test_who_says_not_now_is_not_gone_round() -> None:
    """A 421 greeting is SparkPost, which wants to be left alone."""
    world = World()
    world.circuits.target_down(US, NOT_NOW)

    assert world.circuits.by_https(login()) is False
    assert world.circuits.blocked(login()) is not None


def test_an_api_that_cannot_be_reached_is_paused_for_everybody(logged: list[EventDict]) -> None:
    """5 s, 10 s … a minute, told once each; the mail waits without blame. Any answer ends it."""
    world = World()
    world.circuits.target_down(US, BLOCKED)
    waits = []
    for _ in range(6):
        world.https.learn(login(), [REFUSED, REFUSED])
        wait = world.circuits.next_change()
        assert wait is not None
        waits.append(wait)
        closed = world.circuits.blocked(login(5))
        assert closed is not None
        assert not blames_message(closed)
        world.clock.skip(wait)
        assert world.circuits.blocked(login(5)) is None
    world.https.learn(login(), [UNVERIFIED])
    world.https.learn(login(), [DOWN])

    assert waits == [API_FIRST, 10.0, 20.0, 40.0, API_LONGEST, API_LONGEST]
    assert not blames_message(REFUSED)
    assert world.circuits.blocked(login()) is None
    assert [one["event"] for one in logged][-2:] == [events.UPSTREAM_DOWN, events.UPSTREAM_UP]
    assert world.changes == 8


@pytest.mark.parametrize("status", [301, 404, 405])
def test_an_address_where_no_api_is_is_left_alone(status: int) -> None:
    """A wrong path in the URL is nobody's mail's fault."""
    world = World()
    world.circuits.target_down(US, BLOCKED)
    world.https.learn(login(), [classify(HttpAnswer.of(status, text="Not Found"))])

    assert world.circuits.blocked(login()) is not None
    assert world.https.hosts_down.keys() == {API}


def test_neither_a_crowd_nor_silence_speaks_against_the_api() -> None:
    """Waiting in vain for a connection is none of its faults; a request without an answer is the message's business."""
    world = World()
    world.https.learn(login(), [CROWDED, SILENT])

    assert world.https.serves(login())
    assert isinstance(SILENT, Ambiguous)


def test_a_key_without_the_permission_waits_for_smtp(logged: list[EventDict]) -> None:
    """Remembered for this login alone; the key is not refused, nobody is blamed. It is asked again after a while."""
    world = World()
    world.circuits.target_down(US, BLOCKED)
    world.https.learn(login(), [NO_GRANT])
    world.circuits.learn(login(), [NO_GRANT])
    held = [world.circuits.blocked(one) is not None for one in (login(), login(5), login(credential="other"))]
    world.circuits.target_up(US, 587)
    smtp = world.circuits.blocked(login())
    world.circuits.target_down(US, BLOCKED)
    world.clock.skip(GRANT_FIRST)

    assert held == [True, False, False]
    assert not blames_message(NO_GRANT)
    assert world.circuits.logins_refused == {}
    assert smtp is None
    assert world.circuits.blocked(login()) is None
    assert [one["event"] for one in logged if one["event"] == events.UPSTREAM_NO_GRANT] == [events.UPSTREAM_NO_GRANT]


def test_too_many_requests_pause_their_credential_and_no_other() -> None:
    """With its subaccounts, for a moment; over HTTPS only."""
    world = World()
    world.circuits.target_down(US, BLOCKED)
    world.https.learn(login(5), [TOO_FAST])
    world.circuits.learn(login(5), [TOO_FAST])
    held = [world.circuits.blocked(one) is not None for one in (login(), login(6), login(credential="other"))]
    wait = world.circuits.next_change()
    world.circuits.target_up(US, 587)

    assert held == [True, True, False]
    assert wait == RATE_FIRST
    assert world.circuits.blocked(login()) is None
    assert not blames_message(TOO_FAST)


def test_a_delivery_makes_the_next_pause_short_again() -> None:
    """What has worked since is forgotten."""
    world = World()
    for outcome in (TOO_FAST, NO_GRANT):
        world.https.learn(login(), [outcome])
        world.clock.skip(world.https.next_change() or 0.0)
        world.https.learn(login(), [TAKEN, outcome])
        assert world.https.next_change() in (RATE_FIRST, GRANT_FIRST)
        world.clock.skip(GRANT_FIRST)


def test_a_401_is_a_refused_login_and_proved_again_over_https() -> None:
    """It has its turn in the probes, also while no port works; only then not, when HTTPS is no way either."""
    world = World()
    world.circuits.target_down(US, BLOCKED)
    world.circuits.learn(login(), [UNAUTHORIZED])
    world.circuits.learn(login(credential="europe", target=EU), [UNAUTHORIZED])
    world.circuits.target_down(EU, BLOCKED)
    held = world.circuits.blocked(login())
    at_once = world.circuits.logins_to_probe()
    world.clock.skip(60.0)
    later = world.circuits.logins_to_probe()
    world.circuits.login_works(login())

    assert held is UNAUTHORIZED
    assert (at_once, later) == ([], [login()])
    assert world.circuits.blocked(login()) is None


def test_a_plan_over_its_quota_is_so_over_smtp_too() -> None:
    """The 420 pauses the credential, whatever the way."""
    world = World()
    world.circuits.target_down(US, BLOCKED)
    world.circuits.learn(login(), [QUOTA])
    world.circuits.target_up(US, 587)

    assert world.circuits.blocked(login()) is QUOTA
    assert world.circuits.blocked(login(credential="other")) is None


def test_an_outage_is_told_once() -> None:
    """That mail goes round a target is news when it begins, in each outage."""
    world = World()
    up = world.circuits.goes_round(US)
    told = []
    for _ in range(2):
        world.circuits.target_down(US, BLOCKED)
        told += [world.circuits.goes_round(US) is not None for _ in range(3)]
        world.circuits.target_up(US, 587)

    assert up is None
    assert told == [True, False, False] * 2


def test_an_applications_own_key_is_its_own_business() -> None:
    """What it may not do closes nothing; that nobody answers does, for everybody."""
    world = World()
    own = login(credential=PASSTHROUGH)
    world.https.learn(own, [NO_GRANT, TOO_FAST])
    open_still = world.https.serves(own)
    world.https.learn(own, [REFUSED])

    assert open_still
    assert not world.https.serves(login())


def test_what_a_key_was_denied_goes_with_it() -> None:
    """Another key, another try."""
    world = World()
    world.https.learn(login(), [NO_GRANT, TOO_FAST])
    world.circuits.forget(lambda _: False)

    assert world.https.serves(login())
