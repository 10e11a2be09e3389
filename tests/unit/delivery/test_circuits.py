"""What is known to be closed, and how it opens again."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.lifecycle import blames_message
from relay.core.login import PASSTHROUGH, Login, Target, username_for
from relay.core.outcome import Answer, Cause, Deferred, Failure, FailureKind, HttpAnswer, Outcome, Phase, classify
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.delivery.circuits import LOGIN_PROBE, Circuits
from tests.support.clock import HandClock
from tests.support.outcomes import (
    AMBIGUOUS,
    BOUNCED,
    BUSY,
    DEFERRED,
    DELIVERED,
    EVERY_OUTCOME,
    QUOTA,
    REFUSED,
    UNREACHABLE,
    broke,
    said,
)

US = Target("smtp.sparkpostmail.com", (587, 2525))
EU = Target("smtp.eu.sparkpostmail.com", (587,))
BLOCKED = Failure(Phase.CONNECT, FailureKind.REFUSED, "port 587: connection refused; port 2525: silent")
NOT_NOW = Answer(Phase.BANNER, Reply.parse(421, ["4.3.2 too many connections"]))
MINUTE = 60.0


def login(subaccount: int | None = None, *, credential="default", key="one key", target=US) -> Login:
    return Login(target, username_for("SMTP_Injection", subaccount), Secret(key), credential)


class World:
    """Circuits, the clock they go by, and how often they said that something has changed."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.changes = 0
        self.circuits = Circuits(self.clock.monotonic, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def learn(self, who: Login, *outcomes: Outcome) -> None:
        self.circuits.learn(who, outcomes)

    def open(self, *logins: Login) -> list[Login]:
        """Those of them whose mail would be tried now."""
        return [one for one in logins if self.circuits.blocked(one) is None]

    def probe(self, good: Iterable[Login] = ()) -> list[Login]:
        """Give each login whose turn it is its probe; only the `good` ones succeed."""
        turns = self.circuits.logins_to_probe()
        for one in turns:
            if one in good:
                self.circuits.login_works(one)
            else:
                self.learn(one, REFUSED)
        return turns


@pytest.fixture
def world() -> World:
    return World()


# -- a login that is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        REFUSED,
        said(Phase.AUTH, 550, "5.7.1 no"),
        said(Phase.MAIL, 530, "5.7.0 authentication required"),
        said(Phase.RCPT, 550, "5.7.1 relaying denied"),
    ],
    ids=lambda outcome: str(outcome.fact),
)
def test_a_refused_bare_login_closes_its_credential(world: World, refusal: Outcome) -> None:
    """The key is bad, so no subaccount of it is tried. Other credentials go on."""
    world.learn(login(), refusal)

    assert world.open(login(), login(7), login(8)) == []
    assert world.open(login(credential="billing"), login(7, credential="billing")) == [
        login(credential="billing"),
        login(7, credential="billing"),
    ]
    assert world.circuits.blocked(login(7)) == refusal
    assert world.circuits.logins_refused == {login(): refusal}
    assert world.changes == 1


def test_one_bad_subaccount_does_not_stop_the_others(world: World) -> None:
    """It may be suspended; nor do two."""
    world.learn(login(1), REFUSED)
    world.learn(login(2), REFUSED)

    assert world.open(login(), login(1), login(2), login(3)) == [login(), login(3)]


def test_three_refused_logins_close_their_credential(world: World) -> None:
    """Then it is the key."""
    for number in (1, 2, 3):
        world.learn(login(number), REFUSED)

    assert world.open(login(), login(4), login(1, credential="billing")) == [login(1, credential="billing")]


def test_the_same_login_refused_thrice_is_one_login(world: World) -> None:
    """Ten messages that hear 535 at once say no more than one."""
    for _ in range(10):
        world.learn(login(1), REFUSED)

    assert world.open(login(2)) == [login(2)]
    assert world.changes == 1


def test_the_same_number_under_another_key_is_another_login(world: World) -> None:
    """What is held against a key is held against that key alone."""
    world.learn(login(1), REFUSED)
    world.learn(login(2, key="another key"), REFUSED)
    world.learn(login(3, target=EU), REFUSED)

    assert world.open(login(4)) == [login(4)]


def test_a_login_that_works_opens_the_credential_again(world: World) -> None:
    """The key is good, so the others are refused for reasons of their own, and stay closed."""
    for number in (1, 2, 3):
        world.learn(login(number), REFUSED)

    world.circuits.login_works(login(3))

    assert world.open(login(), login(1), login(2), login(3), login(4)) == [login(), login(3), login(4)]


def test_mail_that_goes_through_shows_that_the_key_is_good(world: World) -> None:
    """So bad subaccounts that turn up one by one, over days, never close a credential whose mail flows."""
    for number in range(1, 10):
        world.learn(login(number), REFUSED)
        world.learn(login(100), DELIVERED)

        assert world.open(login(), login(100)) == [login(), login(100)]


@pytest.mark.parametrize("outcome", [DELIVERED, DEFERRED, BOUNCED, AMBIGUOUS], ids=lambda outcome: outcome.name)
def test_a_session_that_was_open_before_the_refusal_proves_nothing(world: World, outcome: Outcome) -> None:
    """It had logged in when the key was good. Without this rule each of its messages would cause another login."""
    world.learn(login(), REFUSED)
    world.learn(login(), outcome)
    world.learn(login(9), outcome)

    assert world.open(login(), login(9)) == []


def test_a_revoked_key_is_noticed_after_good_days(world: World) -> None:
    """What was refused before the last success counts no more; what is refused after it does."""
    world.learn(login(1), REFUSED)
    world.learn(login(), DELIVERED)
    world.learn(login(2), REFUSED)
    world.learn(login(3), REFUSED)
    assert world.open(login(4)) == [login(4)]

    world.learn(login(4), REFUSED)

    assert world.open(login(), login(5)) == []


@pytest.mark.parametrize("outcome", [REFUSED, BUSY, QUOTA], ids=lambda outcome: str(outcome.fact))
def test_all_is_open_until_something_is_known_to_be_closed(world: World, outcome: Outcome) -> None:
    """Then each lane has to be asked about, until the key has changed."""
    assert world.circuits.all_open
    world.learn(login(7), outcome)
    assert not world.circuits.all_open
    world.circuits.forget(lambda _: False)
    assert world.circuits.all_open
    world.circuits.target_down(US, BLOCKED)
    assert not world.circuits.all_open


# -- probing a refused login ------------------------------------------------------------------------------------------


def test_a_refused_login_is_tried_once_a_minute(world: World) -> None:
    """From its refusal on, whatever happens."""
    world.learn(login(), REFUSED)
    tries = []
    for second in range(1, 301):
        world.clock.skip(1)
        tries += [second for _ in world.probe()]

    assert tries == [60, 120, 180, 240, 300]


@settings(max_examples=30)
@given(st.sets(st.one_of(st.none(), st.integers(1, 50)), min_size=1, max_size=6), st.integers(0, 6))
def test_a_key_sees_one_login_a_minute_however_many_were_refused(numbers: set[int | None], asking: int) -> None:
    """And however many ask for it: they have their turns one after the other."""
    world = World()
    refused = [login(number) for number in numbers]
    others = [login(100 + number) for number in range(asking)]
    for one in refused:
        world.learn(one, REFUSED)
    held_back = set(others) - set(world.open(*others))
    tries: list[tuple[float, Login]] = []
    for _ in range(12 * 2 * (len(refused) + asking)):
        world.clock.skip(5)
        world.open(*others)
        tries += [(world.clock.monotonic(), one) for one in world.probe()]

    assert all(later - earlier >= LOGIN_PROBE for (earlier, _), (later, _) in pairwise(tries))
    assert {one for _, one in tries} == {*refused, *held_back}


def test_two_keys_do_not_wait_for_each_other(world: World) -> None:
    """Once a minute each."""
    billing = login(credential="billing", key="another key")
    world.learn(login(), REFUSED)
    world.learn(billing, REFUSED)
    world.clock.skip(MINUTE)

    assert world.probe() == [login(), billing]
    assert world.probe() == []


def test_a_login_that_was_held_back_with_its_key_gets_a_turn(world: World) -> None:
    """Three subaccounts were terminated before any other was ever used: the others are not closed for ever."""
    for number in (1, 2, 3):
        world.learn(login(number), REFUSED)
    assert world.open(login(4), login(5)) == []

    world.clock.skip(MINUTE)
    assert world.probe(good=[login(4), login(5)]) == [login(4)]

    assert world.open(login(4), login(5), login(1)) == [login(4), login(5)]


def test_a_probe_waits_for_its_target(world: World) -> None:
    """Where no port works there is nobody to log in to."""
    world.learn(login(), REFUSED)
    world.circuits.target_down(US, BLOCKED)
    world.clock.skip(10 * MINUTE)
    assert world.probe() == []

    world.circuits.target_up(US, 587)

    assert world.probe() == [login()]


@pytest.mark.parametrize("outcome", [broke(Phase.AUTH, FailureKind.DEADLINE), UNREACHABLE, BUSY])
def test_a_probe_without_an_answer_leaves_the_login_refused(world: World, outcome: Outcome) -> None:
    """Only a login that succeeds opens it."""
    world.learn(login(), REFUSED)
    world.clock.skip(MINUTE)
    world.circuits.logins_to_probe()

    world.learn(login(), outcome)

    assert world.open(login()) == []
    world.clock.skip(MINUTE)
    assert world.probe(good=[login()]) == [login()]


# -- not now, and over quota ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome", [BUSY, broke(Phase.AUTH), broke(Phase.EHLO), broke(Phase.AUTH, FailureKind.TIMEOUT)]
)
def test_trouble_at_the_login_holds_that_login_back_for_a_while(world: World, outcome: Outcome) -> None:
    """For 5 s, twice as long each time, at most a minute; other subaccounts are tried for themselves."""
    waits = []
    for _ in range(6):
        world.learn(login(7), outcome)
        assert world.open(login(7), login(8)) == [login(8)]
        waits.append(world.circuits.next_change())
        world.clock.skip(waits[-1])
        assert world.open(login(7)) == [login(7)]
        assert world.circuits.next_change() is None

    assert waits == [5, 10, 20, 40, 60, 60]


def test_a_login_that_works_ends_the_doubling(world: World) -> None:
    """The next trouble is a new one."""
    world.learn(login(), BUSY)
    world.clock.skip(5)
    world.learn(login(), DEFERRED)
    world.learn(login(), BUSY)

    assert world.circuits.next_change() == 5


def test_waiting_in_vain_for_a_connection_says_nothing_about_the_login(world: World) -> None:
    """All connections were busy; no answer of SparkPost's was refused."""
    world.learn(login(), broke(Phase.AUTH, FailureKind.DEADLINE))

    assert world.open(login()) == [login()]


def test_a_hang_up_at_ehlo_on_the_way_is_the_targets_trouble(world: World) -> None:
    """The dial has said so already; the login is not held back after the target has come back."""
    world.circuits.target_down(US, BLOCKED)
    world.learn(login(), broke(Phase.EHLO))
    world.circuits.target_up(US, 587)

    assert world.open(login()) == [login()]


def test_quota_holds_the_whole_credential_back(world: World) -> None:
    """For 15 min, twice as long each time, at most an hour; other credentials go on."""
    other = login(7, credential="billing")
    waits = []
    for _ in range(4):
        world.learn(login(7), QUOTA)
        assert world.open(login(), login(7), login(8), other) == [other]
        waits.append(world.circuits.next_change())
        world.clock.skip(waits[-1])
        assert len(world.open(login(), login(7), login(8))) == 3

    assert waits == [900, 1800, 3600, 3600]


def test_quota_is_over_with_a_message_that_is_delivered(world: World) -> None:
    """Then the next wait is a short one again."""
    world.learn(login(), QUOTA)
    world.clock.skip(900)
    world.learn(login(7), DELIVERED)
    world.learn(login(), QUOTA)

    assert world.circuits.next_change() == 900


def test_a_message_that_was_under_way_does_not_end_the_quotas_wait(world: World) -> None:
    """SparkPost took it before the limit was reached."""
    world.learn(login(), QUOTA)
    world.learn(login(), DELIVERED)

    assert world.open(login()) == []


def test_quota_that_comes_up_within_a_message_is_noticed(world: World) -> None:
    """Its first hundred recipients were taken, the others were too many."""
    world.learn(login(), DELIVERED, DELIVERED, QUOTA)

    assert world.circuits.blocked(login()) == QUOTA


def test_a_key_that_is_refused_within_a_message_is_noticed(world: World) -> None:
    """The second transaction needed a new session."""
    world.learn(login(), DELIVERED, REFUSED)

    assert world.circuits.blocked(login(7)) == REFUSED


@pytest.mark.parametrize("outcome", [BUSY, QUOTA])
def test_many_that_hear_the_same_at_once_lengthen_the_wait_once(world: World, outcome: Outcome) -> None:
    """Ten connections are one experience."""
    for _ in range(10):
        world.learn(login(), outcome)
    first = world.circuits.next_change()

    world.clock.skip(first)
    for _ in range(10):
        world.learn(login(), outcome)

    assert world.circuits.next_change() == 2 * first


# -- targets ----------------------------------------------------------------------------------------------------------


def test_a_target_that_is_down_stops_all_its_mail_and_no_other(world: World) -> None:
    """Applications' own keys too: there is no way for them either."""
    own = Login(US, "SMTP_Injection", Secret("theirs"), PASSTHROUGH)
    world.circuits.target_down(US, BLOCKED)

    assert world.open(login(), login(7), own, login(target=EU)) == [login(target=EU)]
    assert world.circuits.targets_down == {US: world.circuits.blocked(login())}

    world.circuits.target_up(US, 2525)

    assert world.open(login(), login(7), own) == [login(), login(7), own]
    assert world.changes == 2


def test_a_target_is_probed_every_two_seconds(world: World) -> None:
    """However long it is down."""
    world.circuits.target_down(US, BLOCKED)
    moments = []
    for half in range(1, 41):
        world.clock.skip(0.5)
        for target in world.circuits.targets_to_probe():
            world.circuits.target_down(target, BLOCKED)
            moments.append(half / 2)

    assert moments == list(range(2, 21, 2))


def test_a_greeting_that_says_not_now_is_left_alone_for_longer_each_time(world: World) -> None:
    """5 s, doubled up to a minute; only probes make it longer, however many dials hear it at once."""
    moments = []
    for second in range(1, 300):
        for _ in range(10):
            world.circuits.target_down(US, NOT_NOW)
        world.clock.skip(1)
        moments += [second for _ in world.circuits.targets_to_probe()]

    assert moments == [5, 15, 35, 75, 135, 195, 255]


def test_a_target_whose_trouble_is_another_now_is_probed_accordingly(world: World) -> None:
    """It said "not now", and then its ports were blocked."""
    world.circuits.target_down(US, NOT_NOW)
    world.circuits.target_down(US, BLOCKED)
    world.clock.skip(2)

    assert world.circuits.targets_to_probe() == [US]
    assert str(world.circuits.targets_down[US].fact) == str(BLOCKED)
    assert world.changes == 1


def test_a_554_greeting_is_a_blocked_port(world: World) -> None:
    """Somebody on the way has answered in SparkPost's place."""
    world.circuits.target_down(US, Answer(Phase.BANNER, Reply.parse(554, ["go away"])))
    world.clock.skip(2)

    assert world.circuits.targets_to_probe() == [US]


# -- keys that change, keys of applications ---------------------------------------------------------------------------


def test_a_key_that_changes_forgets_what_was_known_of_the_old_one(world: World) -> None:
    """Refusals, waits and the quota: nothing is known of the new key. What concerns other keys stays."""
    billing = login(credential="billing", key="another key")
    world.learn(login(), REFUSED)
    world.learn(login(7), BUSY)
    world.learn(login(7), QUOTA)
    world.learn(billing, REFUSED)
    new = login(7, key="new key")
    assert world.open(new) == [new]
    before = world.changes

    world.circuits.forget(lambda one: one.key != Secret("one key"))

    assert world.circuits.logins_refused == {billing: REFUSED}
    assert world.circuits.next_change() is None
    assert world.changes == before + 1
    assert world.open(billing) == []


@pytest.mark.parametrize("outcome", [REFUSED, BUSY, QUOTA], ids=lambda outcome: str(outcome.fact))
def test_what_comes_of_a_login_after_its_key_has_changed_closes_nothing(outcome: Outcome) -> None:
    """Nobody uses it again: it is not probed, and there is nothing for the operator to mend."""
    old = login(7)
    clock = HandClock()
    circuits = Circuits(clock.monotonic, current=lambda one: one.key != old.key)
    circuits.learn(old, [outcome])
    clock.skip(LOGIN_PROBE)

    assert circuits.all_open
    assert circuits.logins_refused == {}
    assert circuits.logins_to_probe() == []


def test_forgetting_nothing_changes_nothing(world: World) -> None:
    """A key of which nothing bad is known may change without waking anybody."""
    world.learn(login(), DELIVERED)
    world.circuits.forget(lambda _: False)

    assert world.changes == 0


@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=lambda outcome: str(outcome.fact))
def test_a_key_that_an_application_presents_opens_no_circuit(world: World, outcome: Outcome) -> None:
    """Whatever comes of it is that application's business."""
    own = Login(US, "SMTP_Injection", Secret("theirs"), PASSTHROUGH)
    for _ in range(5):
        world.learn(own, outcome)

    assert world.open(own, login()) == [own, login()]
    assert world.circuits.logins_refused == {}
    assert world.circuits.next_change() is None
    assert world.changes == 0


DIALLING = (Phase.RESOLVE, Phase.CONNECT, Phase.BANNER, Phase.STARTTLS, Phase.TLS)
NO_CIRCUIT = (FailureKind.DEADLINE, FailureKind.LEASE, FailureKind.WITHHELD)  # it has waited, or the dot was not sent
OTHERS_FAULT = [
    outcome
    for outcome in EVERY_OUTCOME
    if isinstance(outcome, Deferred) and not blames_message(outcome)
    if outcome.cause is not Cause.SMTP_ONLY  # it waits on a schedule of its own
    if outcome.fact.phase in DIALLING or getattr(outcome.fact, "kind", None) not in NO_CIRCUIT
]


@pytest.mark.parametrize("outcome", OTHERS_FAULT, ids=lambda outcome: f"{outcome.fact.phase}-{outcome.fact}")
def test_what_delays_no_message_is_held_back_by_a_circuit(world: World, outcome: Outcome) -> None:
    """Else the message would be due at once, and tried again at once, for ever."""
    if outcome.fact.phase in DIALLING:
        world.circuits.target_down(US, outcome.fact)
    world.learn(login(7), outcome)

    assert world.open(login(7)) == []


# -- whatever happens -------------------------------------------------------------------------------------------------

LOGINS = [login(number, key=key, credential=key) for number in (None, 1, 2, 3, 4) for key in ("a", "b")]

happenings = st.one_of(
    st.tuples(st.just("learn"), st.sampled_from(LOGINS), st.lists(st.sampled_from(EVERY_OUTCOME), max_size=3)),
    st.tuples(st.just("ask"), st.sampled_from(LOGINS)),
    st.tuples(st.just("works"), st.sampled_from(LOGINS)),
    st.tuples(st.just("down"), st.sampled_from([BLOCKED, NOT_NOW])),
    st.tuples(st.just("up")),
    st.tuples(st.just("probe")),
    st.tuples(st.just("time"), st.floats(0, 5000)),
)


@settings(max_examples=200)
@given(st.lists(happenings, max_size=40), st.sets(st.sampled_from(LOGINS), min_size=1))
def test_what_works_is_open_again_in_the_end(story: list[tuple], good: set[Login]) -> None:
    """After any story: once the way is open, each login that SparkPost takes is open within the time of all turns.

    The logins that it does not take have their turns too, and keep none of the others closed.
    """
    world = World()
    for what, *rest in story:
        match what:
            case "learn":
                world.learn(*[rest[0], *rest[1]])
            case "ask":
                world.open(*rest)
            case "works":
                world.circuits.login_works(*rest)
            case "down":
                world.circuits.target_down(US, *rest)
            case "up":
                world.circuits.target_up(US, 587)
            case "probe":
                world.circuits.targets_to_probe()
                world.probe(good)
            case "time":
                world.clock.skip(*rest)

    for minute in range(61 + 2 * len(LOGINS)):
        for target in world.circuits.targets_to_probe():
            world.circuits.target_up(target, 587)
        world.open(*LOGINS)
        world.probe(good)
        if minute == 0:
            assert not world.circuits.targets_down or world.circuits.targets_to_probe() == []
        world.clock.skip(MINUTE)

    assert set(world.open(*good)) == good
    assert not world.circuits.targets_down


def test_https_says_nothing_of_smtp_logins() -> None:
    """A key that is good for one may be refused for the other; only an unknown key is unknown to both."""
    world = World()
    world.learn(login(), REFUSED)
    world.learn(login(), classify(HttpAnswer.of(200, text="OK 1", accepted=True)))

    assert world.circuits.blocked(login()) is not None

    other = login(credential="other", key="another")
    world.learn(other, classify(HttpAnswer.of(403)))
    assert world.circuits.blocked(other) is None
    world.learn(other, classify(HttpAnswer.of(401)))
    assert world.circuits.blocked(other) is not None
