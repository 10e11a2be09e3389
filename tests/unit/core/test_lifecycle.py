"""The life of a stored message: what can happen to it, and what an attempt means for it."""

import random
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.lifecycle import (
    COMMANDS,
    ENDED,
    TRANSITIONS,
    Event,
    Fate,
    IllegalTransition,
    RetryPolicy,
    Settlement,
    State,
    after,
    blames_message,
    settle,
)
from relay.core.outcome import (
    Ambiguous,
    Bounced,
    Cause,
    Delivered,
    Failure,
    FailureKind,
    Outcome,
    Phase,
    Scope,
    classify,
)
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
    WORN_LEASE,
    broke,
    said,
)

POLICY = RetryPolicy(first=5, factor=2, longest=1800, jitter=0)
QUEUE_PAGE = (Path(__file__).parents[3] / "docs" / "queue.md").read_text()


def settled(*outcomes: Outcome, attempts: int = 0, age_left: float = 1e6, failed_before: bool = False) -> Settlement:
    """What an attempt means that had these outcomes for recipients 0, 1, 2 …"""
    return settle(
        list(enumerate(outcomes)),
        attempts=attempts,
        age_left=age_left,
        failed_before=failed_before,
        policy=POLICY,
        rng=random.Random(7),
    )


def fates(settlement: Settlement) -> list[Fate]:
    return [verdict.fate for verdict in settlement.verdicts]


def label(outcome: Outcome) -> str:
    return f"{outcome.fact.phase}-{getattr(outcome.fact, 'kind', None) or outcome.fact}"


# -- the table --------------------------------------------------------------------------------------------------------


def documented_transitions() -> dict[tuple[str, str], str]:
    """The table of docs/queue.md: states across, events down."""
    table = QUEUE_PAGE.split("## States and events\n")[1].split("\n| event |")[1].split("\n\n")[0]
    header, _, *rows = f"| event |{table}".splitlines()
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in (header, *rows)]
    states = cells[0][1:]
    return {
        (state, row[0]): following
        for row in cells[1:]
        for state, following in zip(states, row[1:], strict=True)
        if following
    }


def test_the_documentation_draws_the_table_of_the_code() -> None:
    """Every state and event is in it, and every transition, and no other."""
    drawn = documented_transitions()

    assert drawn == {(state.value, event.value): following.value for (state, event), following in TRANSITIONS.items()}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_an_event_leads_where_the_table_says_or_is_refused(state: State, event: Event) -> None:
    """The refusal says what the operator can do instead."""
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(
        IllegalTransition, match=f"it is {state}, and {event} does not apply to that; what does: "
    ) as it:
        after(state, event)
    named = str(it.value).rpartition(": ")[2]
    assert named == (", ".join(sorted(one for one in COMMANDS if (state, one) in TRANSITIONS)) or "nothing")


def test_what_has_ended_stays_so() -> None:
    """A delivered or deleted message has no content, so nothing can happen to it any more."""
    assert not [state for state, _ in TRANSITIONS if state in ENDED]


def test_every_state_can_be_reached_and_left() -> None:
    """From `queued` each state is reached, and the operator can always bring what has not ended to an end."""
    reached = {State.QUEUED}
    for _ in State:
        reached |= {following for (state, _), following in TRANSITIONS.items() if state in reached}

    assert reached == set(State)
    assert all(after(state, Event.DELETE) is State.DELETED for state in State if state not in ENDED)


# -- whose fault ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=label)
def test_only_a_trouble_of_the_transaction_counts_as_an_attempt(outcome: Outcome) -> None:
    """The way, the login, the plan and the relay itself are not the message's fault."""
    fact = outcome.fact
    in_transaction = fact.phase in (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT, Phase.REQUEST, Phase.RESPONSE)
    of_the_login = outcome.scope in (Scope.LOGIN, Scope.CREDENTIAL)
    kinds = (FailureKind.WITHHELD, FailureKind.LEASE, FailureKind.SMTP_ONLY)
    not_sent = isinstance(fact, Failure) and fact.kind in kinds
    own = in_transaction and not of_the_login and not not_sent

    assert blames_message(outcome) is (own or isinstance(outcome, Ambiguous))


# -- one recipient ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=label)
def test_each_outcome_settles_a_message_in_time(outcome: Outcome) -> None:
    """Delivered and refused for good are the end; everything else waits, longer only where the message is at fault."""
    settlement = settled(outcome, attempts=3)

    match outcome:
        case Delivered():
            assert (settlement.event, fates(settlement)) == (Event.DELIVER, [Fate.DELIVERED])
        case Bounced():
            assert (settlement.event, fates(settlement)) == (Event.FAIL, [Fate.BOUNCED])
        case _:
            assert (settlement.event, fates(settlement)) == (Event.DEFER, [Fate.PENDING])
            assert settlement.counted is (blames_message(outcome) or outcome.cause is Cause.SMTP_ONLY)
            assert settlement.delay == pytest.approx(40 if settlement.counted else 0)
            assert settlement.reason == str(outcome.fact)
    assert settlement.verdicts[0].outcome == outcome.name
    assert settlement.verdicts[0].phase == outcome.fact.phase
    assert settlement.verdicts[0].reply == str(outcome.fact)


@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=label)
def test_each_outcome_settles_a_message_that_is_over_age(outcome: Outcome) -> None:
    """Its own fault ends it; the fault of the way, the login or the plan leaves it to the operator."""
    settlement = settled(outcome, age_left=0)

    match outcome:
        case Delivered():
            assert settlement.event is Event.DELIVER
        case Bounced():
            assert settlement.event is Event.FAIL
        case _ if blames_message(outcome):
            assert (settlement.event, fates(settlement)) == (Event.FAIL, [Fate.EXPIRED])
            assert settlement.verdicts[0].outcome == "expired"
            assert settlement.reason == f"over age; last: {outcome.fact}"
        case _:
            assert (settlement.event, fates(settlement)) == (Event.HOLD, [Fate.PENDING])
            assert not settlement.counted
            assert settlement.reason == f"over age while it could not be sent: {outcome.fact}"


@pytest.mark.parametrize("outcome", [REFUSED, QUOTA, BUSY, UNREACHABLE, WORN_LEASE], ids=label)
def test_a_fault_that_is_not_the_messages_never_bounces_it(outcome: Outcome) -> None:
    """However old it is and however often it was tried."""
    for age_left in (1e6, 0.0, -1e6):
        settlement = settled(outcome, attempts=10**6, age_left=age_left)

        assert settlement.event in (Event.DEFER, Event.HOLD)
        assert not settlement.counted
        assert fates(settlement) == [Fate.PENDING]


def test_ambiguous_follows_the_schedule_and_is_marked() -> None:
    """It may be sent twice, so it says so, and it waits as any attempt does."""
    settlement = settled(AMBIGUOUS, attempts=1)

    assert settlement.event is Event.DEFER
    assert settlement.ambiguous
    assert settlement.counted
    assert settlement.delay == pytest.approx(10)


def test_the_last_attempt_is_made_when_the_message_comes_of_age() -> None:
    """A wait is cut short by the end of its life, so the last word is SparkPost's and not the calendar's."""
    assert settled(DEFERRED, attempts=9, age_left=100).delay == 100


def test_only_a_250_has_an_id_of_sparkposts() -> None:
    """What stands behind OK is SparkPost's name for the message."""
    verdicts = settled(DELIVERED, said(Phase.DOT, 250, "2.0.0 taken"), BOUNCED, AMBIGUOUS).verdicts

    assert [verdict.message_id for verdict in verdicts] == ["95/6F-30607-EA5D4555", "taken", None, None]


# -- many recipients --------------------------------------------------------------------------------------------------


def test_who_is_served_is_done_and_who_waits_is_tried_again() -> None:
    """Each recipient has its own fate; the message goes on for those that wait."""
    settlement = settled(DELIVERED, DEFERRED, BOUNCED, AMBIGUOUS)

    assert settlement.event is Event.DEFER
    assert fates(settlement) == [Fate.DELIVERED, Fate.PENDING, Fate.BOUNCED, Fate.PENDING]
    assert settlement.ambiguous
    assert [verdict.number for verdict in settlement.verdicts] == [0, 1, 2, 3]


@pytest.mark.parametrize("failed_before", [False, True])
def test_one_failure_makes_a_dead_letter_when_all_are_settled(failed_before: bool) -> None:
    """Whether it failed now or in an attempt before."""
    assert settled(DELIVERED, BOUNCED, failed_before=failed_before).event is Event.FAIL
    assert settled(DELIVERED, failed_before=failed_before).event is (Event.FAIL if failed_before else Event.DELIVER)


def test_one_that_is_at_fault_delays_the_message() -> None:
    """The trouble of the way alone would not have."""
    settlement = settled(UNREACHABLE, DEFERRED, attempts=2)

    assert settlement.counted
    assert settlement.delay == pytest.approx(20)
    assert settlement.reason == str(DEFERRED.fact)


def test_over_age_each_recipient_answers_for_itself() -> None:
    """One that SparkPost keeps deferring has expired; one that was stopped by the quota waits for the operator."""
    settlement = settled(DELIVERED, DEFERRED, QUOTA, age_left=-1)

    assert settlement.event is Event.HOLD
    assert fates(settlement) == [Fate.DELIVERED, Fate.EXPIRED, Fate.PENDING]
    assert settlement.reason == f"over age while it could not be sent: {QUOTA.fact}"


def test_over_age_with_nobody_stopped_by_others_has_failed() -> None:
    """Those that were served stay served."""
    settlement = settled(DELIVERED, DEFERRED, AMBIGUOUS, age_left=-1)

    assert settlement.event is Event.FAIL
    assert fates(settlement) == [Fate.DELIVERED, Fate.EXPIRED, Fate.EXPIRED]
    assert settlement.ambiguous


KINDS = (DELIVERED, DEFERRED, BOUNCED, AMBIGUOUS, REFUSED, QUOTA, BUSY, UNREACHABLE, WORN_LEASE, broke(Phase.DATA))


@pytest.mark.parametrize("age_left", [1e6, 0])
@pytest.mark.parametrize("outcomes", list(combinations_with_replacement(KINDS, 3)), ids=lambda _: "")
def test_the_message_waits_as_long_as_one_recipient_does(outcomes: tuple[Outcome, ...], age_left: float) -> None:
    """Pending recipients and a state in which the message can still be sent always go together."""
    settlement = settled(*outcomes, age_left=age_left)

    assert (Fate.PENDING in fates(settlement)) is (settlement.event in (Event.DEFER, Event.HOLD))
    assert (settlement.event is Event.DELIVER) is (set(fates(settlement)) == {Fate.DELIVERED})
    assert after(State.ACTIVE, settlement.event)


@given(
    st.lists(st.sampled_from(EVERY_OUTCOME), min_size=1, max_size=8),
    st.integers(0, 10**9),
    st.floats(-1e9, 1e9),
    st.booleans(),
)
def test_no_outcome_is_lost_or_turned_round(
    outcomes: list[Outcome], attempts: int, age_left: float, failed_before: bool
) -> None:
    """For any attempt: 250 is delivered, 5yz is bounced, and nobody else is done for before the end of its age."""
    settlement = settled(*outcomes, attempts=attempts, age_left=age_left, failed_before=failed_before)

    for outcome, fate in zip(outcomes, fates(settlement), strict=True):
        assert (fate is Fate.DELIVERED) is isinstance(outcome, Delivered)
        assert (fate is Fate.BOUNCED) is isinstance(outcome, Bounced)
        if fate is Fate.EXPIRED:
            assert age_left <= 0
            assert outcome.cause not in (Cause.LOGIN_REFUSED, Cause.QUOTA)
    assert settlement.ambiguous is any(isinstance(outcome, Ambiguous) for outcome in outcomes)
    assert 0 <= settlement.delay <= max(age_left, 0)


SMTP_ONLY = classify(Failure(Phase.REQUEST, FailureKind.SMTP_ONLY, "not sent over HTTPS: archive recipients"))


def test_what_https_cannot_carry_waits_a_minute_at_most_and_is_never_given_up():
    """No circuit holds it back, so its own schedule must; but it is the way that is closed, and no fault of its own."""
    first, third = settled(SMTP_ONLY), settled(SMTP_ONLY, attempts=2)
    over_age = settled(SMTP_ONLY, age_left=0)

    assert (first.event, first.counted, first.delay) == (Event.DEFER, True, 5)
    assert third.delay == 20
    assert settled(SMTP_ONLY, attempts=20).delay == 60
    assert (over_age.event, fates(over_age)) == (Event.HOLD, [Fate.PENDING])


@pytest.mark.parametrize("phase", [Phase.REQUEST, Phase.RESPONSE])
def test_a_request_that_breaks_off_counts_as_a_transaction_that_does(phase):
    """Else a message on which SparkPost always hangs up would come back at once, for ever."""
    settlement = settled(classify(Failure(phase, FailureKind.LOST, "connection closed")))

    assert (settlement.counted, settlement.delay) == (True, 5)
    assert settlement.ambiguous == (phase is Phase.RESPONSE)
