"""From the report of an attempt to what is written down and told about it."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.typing import EventDict

from relay.core.lifecycle import Event, Fate, RetryPolicy, Verdict
from relay.core.outcome import Outcome
from relay.core.ports import AttemptReport
from relay.core.spooled import Claim, Deposit, Record
from relay.delivery.bookkeeping import Bookkeeper
from relay.observe.metrics import Metrics
from tests.support.claims import claim, message, recipient
from tests.support.outcomes import AMBIGUOUS, BOUNCED, DEFERRED, DELIVERED, QUOTA, REFUSED, UNREACHABLE

ANN, BOB, CARL = (recipient(f"{name}@example.net") for name in ("ann", "bob", "carl"))


class Office:
    """A bookkeeper with what it needs; the failures that notices were asked for are in `told`."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.told: list[list[int]] = []
        self.dsn: Deposit | None = None
        self.keeper = Bookkeeper(RetryPolicy(5, 2, 1800, 0.2), self._notice, self.metrics, random.Random(7))

    def _notice(self, about: Claim, failed: Sequence[Verdict]) -> Deposit | None:
        self.told.append([verdict.number for verdict in failed])
        return self.dsn

    def attempt(self, about: Claim, *outcomes: Outcome, endpoint: str | None = "smtp.example:587") -> Record:
        """Record and tell what an attempt at the claim's pending recipients came to."""
        report = AttemptReport(tuple(zip(about.recipients, outcomes, strict=True)), endpoint)
        record = self.keeper.record(about, report)
        self.keeper.tell(about, record.settlement)
        return record

    def counted(self) -> dict[str, float]:
        """`messages_total` of identity shop, by outcome."""
        return {
            sample.labels["outcome"]: sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name.endswith("_messages_total") and sample.labels.get("identity") == "shop"
        }


@pytest.fixture
def office() -> Office:
    return Office()


def three() -> Claim:
    return claim(message(ANN, BOB, CARL))


def test_a_delivered_message_needs_no_further_word(office: Office, logged: list[EventDict]) -> None:
    """`attempt.done` has said it already."""
    record = office.attempt(claim(), DELIVERED)

    assert record.settlement.event is Event.DELIVER
    assert record.endpoint == "smtp.example:587"
    assert record.notice is None
    assert (logged, office.told, office.counted()) == ([], [], {})


def test_a_deferred_message_is_told_with_its_next_attempt(office: Office, logged: list[EventDict]) -> None:
    """Why it waits, how long, and how often it has been tried, this time included."""
    record = office.attempt(claim(attempts=3), DEFERRED)

    assert logged == [
        {
            "event": "queue.deferred",
            "log_level": "warning",
            "queue_id": "0123456789ABCD",
            "identity": "shop",
            "attempts": 4,
            "retry_in": round(record.settlement.delay, 1),
            "maybe_twice": False,
            "reason": "450 4.2.1 busy mailbox",
        }
    ]
    assert 32 <= record.settlement.delay <= 48


@pytest.mark.parametrize("outcome", [REFUSED, QUOTA, UNREACHABLE], ids=lambda outcome: str(outcome.fact))
def test_what_is_not_the_messages_fault_is_no_attempt_of_it(
    office: Office, logged: list[EventDict], outcome: Outcome
) -> None:
    """The count in the log is the one in the spool."""
    record = office.attempt(claim(attempts=3), outcome, endpoint=None)

    assert (logged[0]["attempts"], logged[0]["retry_in"]) == (3, 0.0)
    assert record.endpoint is None


def test_an_ambiguous_attempt_says_that_it_may_be_sent_twice(office: Office, logged: list[EventDict]) -> None:
    """The operator can see it coming."""
    office.attempt(claim(), AMBIGUOUS)

    assert (logged[0]["event"], logged[0]["maybe_twice"]) == ("queue.deferred", True)


def test_each_recipient_that_bounced_is_told(office: Office, logged: list[EventDict]) -> None:
    """With SparkPost's words; the others have theirs when they are settled. The DSN goes into the same record."""
    office.dsn = Deposit(message(), claim().assignment, received=0, max_age=1)
    record = office.attempt(three(), BOUNCED, DELIVERED, DEFERRED)

    assert [(event["event"], event.get("recipient"), event["log_level"]) for event in logged] == [
        ("queue.bounced", "ann@example.net", "error"),
        ("queue.deferred", None, "warning"),
    ]
    assert logged[0]["reply"] == "550 5.1.1 no such user"
    assert logged[0]["identity"] == "shop"
    assert office.told == [[0]]
    assert record.notice is office.dsn
    assert office.counted() == {}


def test_each_recipient_that_expired_is_told_and_counted(office: Office, logged: list[EventDict]) -> None:
    """`attempt.done` has counted them as deferred, and nobody else counts them as expired."""
    record = office.attempt(claim(message(ANN, BOB, CARL), age_left=0), DEFERRED, BOUNCED, AMBIGUOUS)

    assert record.settlement.event is Event.FAIL
    assert [(event["event"], event["recipient"]) for event in logged] == [
        ("queue.expired", "ann@example.net"),
        ("queue.bounced", "bob@example.net"),
        ("queue.expired", "carl@example.net"),
    ]
    assert office.told == [[0, 1, 2]]
    assert office.counted() == {"expired": 2}


def test_what_is_held_is_told_to_the_operator_and_to_no_sender(office: Office, logged: list[EventDict]) -> None:
    """Over age because of a refused login: nobody's mail has failed."""
    record = office.attempt(claim(age_left=0), REFUSED)

    assert record.settlement.event is Event.HOLD
    assert [(event["event"], event["log_level"]) for event in logged] == [("queue.held", "error")]
    assert "over age while it could not be sent: 535 5.7.8 Sorry." in logged[0]["reason"]
    assert (office.told, office.counted()) == ([], {})


def test_outcomes_are_written_to_the_recipients_that_were_pending(office: Office, logged: list[EventDict]) -> None:
    """By their place in the envelope, whoever was settled in attempts before."""
    late = claim(message(ANN, BOB, CARL), pending=(0, 2), failed_before=True)
    record = office.attempt(late, DELIVERED, BOUNCED)

    assert [(verdict.number, verdict.fate) for verdict in record.settlement.verdicts] == [
        (0, Fate.DELIVERED),
        (2, Fate.BOUNCED),
    ]
    assert logged[0]["recipient"] == "carl@example.net"


def test_a_failure_before_makes_the_end_a_dead_letter(office: Office) -> None:
    """Though all that were tried now were served."""
    late = claim(message(ANN, BOB), pending=(1,), failed_before=True)

    assert office.attempt(late, DELIVERED).settlement.event is Event.FAIL
    assert office.told == []


def test_a_report_that_lacks_a_recipient_is_a_defect() -> None:
    """Nobody is left without an outcome in silence."""
    office, about = Office(), three()
    report = AttemptReport(((ANN, DELIVERED),))

    with pytest.raises(ValueError, match="zip"):
        office.keeper.record(about, report)


def test_nothing_of_the_content_is_logged(office: Office, logged: list[Any]) -> None:
    """Events have addresses, replies and ids."""
    office.attempt(claim(message(ANN, BOB), age_left=0), DEFERRED, BOUNCED)

    assert "not for the log" not in repr(logged)
