"""The life of a stored message: its states, the events that move it, and when it is tried again. Pure.

A message is in exactly one state, and `TRANSITIONS` is the whole of what can happen to it; the storage refuses anything
else. What an attempt means for the schedule is decided by `settle`:

* An outcome that speaks about the message or a recipient, or a connection that died within its transaction, counts as
  an attempt of this message: it waits `retry_delay`, longer each time.
* A dead endpoint, a refused login, a plan over its quota are no fault of the message. It keeps its place and counts
  nothing; what holds it back is a circuit (`relay/delivery/circuits.py`), which holds back all mail of that login.
* What HTTPS cannot carry waits for SMTP: on the ordinary schedule, as no circuit holds it back, but without blame.
* `Ambiguous` follows the ordinary schedule, and the message is marked as possibly sent twice.
* Age always counts. Over age, a recipient has expired if it was at fault itself. If the way or the login was, it stays
  pending and the message is held for the operator: nobody is given up for another's fault.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from relay.core.outcome import (
    Ambiguous,
    Answer,
    Bounced,
    Cause,
    Delivered,
    Failure,
    FailureKind,
    Outcome,
    Phase,
    Scope,
)


class State(StrEnum):
    """Where a stored message is in its life."""

    QUEUED = "queued"  # waits until it is due
    ACTIVE = "active"  # claimed: an attempt is under way, or about to be
    HELD = "held"  # waits for the operator
    FAILED = "failed"  # a dead letter: at least one recipient will never get it
    DELIVERED = "delivered"  # SparkPost has it for every recipient; only the ledger line is left
    DELETED = "deleted"  # thrown away by the operator; only the ledger line is left


class Event(StrEnum):
    """What can happen to a stored message."""

    CLAIM = "claim"
    LOSE = "lose"  # the claim's holder is gone, or put it back
    DEFER = "defer"
    DELIVER = "deliver"
    FAIL = "fail"
    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    DELETE = "delete"


COMMANDS: Final = (Event.RETRY, Event.HOLD, Event.RELEASE, Event.DELETE)  # what an operator can ask for


class Fate(StrEnum):
    """What is known of one recipient of a stored message."""

    PENDING = "pending"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DELETED = "deleted"


FAILED: Final = (Fate.BOUNCED, Fate.EXPIRED)  # for good: the sender is told

TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.QUEUED, Event.CLAIM): State.ACTIVE,
    (State.QUEUED, Event.HOLD): State.HELD,
    (State.QUEUED, Event.RETRY): State.QUEUED,
    (State.QUEUED, Event.DELETE): State.DELETED,
    (State.ACTIVE, Event.LOSE): State.QUEUED,
    (State.ACTIVE, Event.DEFER): State.QUEUED,
    (State.ACTIVE, Event.DELIVER): State.DELIVERED,
    (State.ACTIVE, Event.FAIL): State.FAILED,
    (State.ACTIVE, Event.HOLD): State.HELD,
    (State.ACTIVE, Event.DELETE): State.DELETED,
    # An attempt that ends after its claim was lost: what SparkPost said for good stands.
    (State.QUEUED, Event.DELIVER): State.DELIVERED,
    (State.QUEUED, Event.FAIL): State.FAILED,
    (State.HELD, Event.DELIVER): State.DELIVERED,
    (State.HELD, Event.FAIL): State.FAILED,
    (State.HELD, Event.RELEASE): State.QUEUED,
    (State.HELD, Event.DELETE): State.DELETED,
    (State.FAILED, Event.RETRY): State.QUEUED,
    (State.FAILED, Event.DELETE): State.DELETED,
}

LEASE: Final = 120.0  # seconds a claim holds unless it is renewed
LEASE_MARGIN: Final = 30.0  # seconds of it that must be left for a final dot to be sent (design, section 4 "Claims")
SMTP_ONLY_LONGEST: Final = 60.0  # seconds until mail that HTTPS cannot carry looks whether a port of SMTP works
ENDED: Final = (State.DELIVERED, State.DELETED)  # without content


class IllegalTransition(ValueError):
    """An event that cannot happen in this state; the text says what can."""

    def __init__(self, state: State, event: Event) -> None:
        able = sorted(other.value for known, other in TRANSITIONS if known is state and other in COMMANDS)
        super().__init__(
            f"it is {state}, and {event} does not apply to that; what does: {', '.join(able) or 'nothing'}"
        )


def after(state: State, event: Event) -> State:
    """The state that follows; raises IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`first` and `longest` wait in seconds, each `factor` times the one before, give or take the share `jitter`."""

    first: float
    factor: float
    longest: float
    jitter: float


def retry_delay(attempts: int, policy: RetryPolicy, rng: random.Random) -> float:
    """Seconds to wait after the `attempts`-th attempt (1 or more).

    The chance in it keeps mail that failed together from coming back together.
    """
    exponent = (attempts - 1) * math.log(policy.factor)
    wait = policy.longest
    if math.log(policy.first) + exponent < math.log(policy.longest):
        wait = policy.first * math.exp(exponent)
    return wait * rng.uniform(1 - policy.jitter, 1 + policy.jitter)


_TRANSACTION: Final = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT, Phase.REQUEST, Phase.RESPONSE})
_OTHERS_FAULT: Final = frozenset({Scope.LOGIN, Scope.CREDENTIAL})
_NOT_SENT: Final = frozenset({FailureKind.WITHHELD, FailureKind.LEASE})  # our own doing, whatever the phase


def blames_message(outcome: Outcome) -> bool:
    """Is a deferral the message's own, or was the way, the login or the relay itself at fault?

    A connection that dies within the transaction counts: were it not so, a message on which SparkPost always hangs up
    would come back at once, for ever.
    """
    fact = outcome.fact
    if isinstance(outcome, Ambiguous):
        return True
    if outcome.scope in _OTHERS_FAULT or outcome.cause is Cause.SMTP_ONLY:
        return False
    if isinstance(fact, Failure) and fact.kind in _NOT_SENT:
        return False
    return fact.phase in _TRANSACTION


class Verdict(NamedTuple):
    """One recipient after an attempt. `number` is its place in the envelope, `outcome` as logs name it."""

    number: int
    fate: Fate
    outcome: str
    phase: str
    reply: str
    message_id: str | None = None


class Settlement(NamedTuple):
    """What an attempt changes about a message. `delay`: seconds until it is due again, where it is deferred."""

    event: Event
    verdicts: tuple[Verdict, ...]
    delay: float = 0.0
    counted: bool = True
    ambiguous: bool = False
    reason: str | None = None


def settle(
    outcomes: Sequence[tuple[int, Outcome]],
    *,
    attempts: int,
    age_left: float,
    failed_before: bool,
    policy: RetryPolicy,
    rng: random.Random,
) -> Settlement:
    """What the outcomes of an attempt mean for the message.

    `outcomes` has each recipient that was tried, by number; `attempts` were counted before this one; `age_left` seconds
    remain until it is over age; `failed_before`: some recipient has already failed for good.
    """
    over_age, failed = age_left <= 0, failed_before
    each: list[Verdict] = []
    waiting: list[Outcome] = []
    for number, outcome in outcomes:
        verdict = _verdict(number, outcome, over_age=over_age)
        each.append(verdict)
        if verdict.fate in FAILED:
            failed = True
        if not isinstance(outcome, (Delivered, Bounced)):
            waiting.append(outcome)
    verdicts = tuple(each)
    if not waiting:
        return Settlement(Event.FAIL if failed else Event.DELIVER, verdicts)
    own = [outcome for outcome in waiting if blames_message(outcome)]
    others = [outcome for outcome in waiting if not blames_message(outcome)]
    counted = bool(own)
    ambiguous = any(isinstance(outcome, Ambiguous) for outcome in own)
    reason = str((own or others)[0].fact)
    if not over_age:
        delay, longest = 0.0, age_left
        if not counted and any(outcome.cause is Cause.SMTP_ONLY for outcome in others):
            # No circuit holds it back, since the way is closed for it alone: so it looks for itself, now and then.
            counted, longest = True, min(SMTP_ONLY_LONGEST, age_left)
        if counted:
            delay = min(retry_delay(attempts + 1, policy, rng), longest)
        return Settlement(Event.DEFER, verdicts, delay, counted, ambiguous, reason)
    if not others:
        return Settlement(Event.FAIL, verdicts, 0.0, counted, ambiguous, f"over age; last: {reason}")
    reason = f"over age while it could not be sent: {others[0].fact}"
    return Settlement(Event.HOLD, verdicts, 0.0, counted, ambiguous, reason)


def _verdict(number: int, outcome: Outcome, *, over_age: bool) -> Verdict:
    match outcome:
        case Delivered():
            fate = Fate.DELIVERED
        case Bounced():
            fate = Fate.BOUNCED
        case _:
            fate = Fate.EXPIRED if over_age and blames_message(outcome) else Fate.PENDING
    name = "expired" if fate is Fate.EXPIRED else outcome.name
    return Verdict(number, fate, name, str(outcome.fact.phase), str(outcome.fact), sparkpost_id(outcome))


def sparkpost_id(outcome: Outcome) -> str | None:
    """SparkPost's own id of a message it has taken: what stands behind `OK` in its 250 (fact sheet 4.2)."""
    if not (isinstance(outcome, Delivered) and isinstance(outcome.fact, Answer)):
        return None
    return outcome.fact.reply.text.removeprefix("OK ")
