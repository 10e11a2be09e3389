"""From the report of an attempt to what is written down about it: settlement, history and, where it failed, the DSN."""

import random
from collections.abc import Callable, Sequence

import structlog

from relay.core.lifecycle import FAILED, Event, Fate, RetryPolicy, Settlement, Verdict, settle
from relay.core.message import Message
from relay.core.ports import AttemptReport
from relay.core.spooled import Claim, Deposit, Record
from relay.observe import log as events
from relay.observe.metrics import Metrics

log = structlog.get_logger()

Notice = Callable[[Claim, Sequence[Verdict]], Deposit | None]


class Bookkeeper:
    """Decides what an attempt changes about a message, and tells of it once it is written.

    `notice` makes the DSN about recipients that have failed for good; None where nobody is to be told.
    """

    def __init__(self, policy: RetryPolicy, notice: Notice, metrics: Metrics, rng: random.Random | None = None) -> None:
        self._policy = policy
        self._notice = notice
        self._metrics = metrics
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def record(self, claim: Claim, report: AttemptReport) -> Record:
        """What to write down about an attempt at the pending recipients of a claim."""
        settlement = settle(
            [(number, outcome) for number, (_, outcome) in zip(claim.pending, report.outcomes, strict=True)],
            attempts=claim.attempts,
            age_left=claim.age_left,
            failed_before=claim.failed_before,
            policy=self._policy,
            rng=self._rng,
        )
        failed = [one for one in settlement.verdicts if one.fate in FAILED]
        return Record(settlement, report.endpoint, self._notice(claim, failed) if failed else None)

    def tell(self, claim: Claim, settlement: Settlement) -> None:
        """Log and count what the written record says beyond the attempt itself."""
        message, identity = claim.message, claim.assignment.identity
        for verdict in settlement.verdicts:
            if verdict.fate is Fate.BOUNCED:
                _tell(events.QUEUE_BOUNCED, message, identity, verdict)
            elif verdict.fate is Fate.EXPIRED:
                self._metrics.messages.count(identity, "expired")
                _tell(events.QUEUE_EXPIRED, message, identity, verdict)
        if settlement.event is Event.DEFER:
            log.warning(
                events.QUEUE_DEFERRED,
                queue_id=message.queue_id,
                identity=identity,
                attempts=claim.attempts + settlement.counted,
                retry_in=round(settlement.delay, 1),
                maybe_twice=settlement.ambiguous,
                reason=settlement.reason,
            )
        elif settlement.event is Event.HOLD:
            log.error(events.QUEUE_HELD, queue_id=message.queue_id, identity=identity, reason=settlement.reason)


def _tell(event: str, message: Message, identity: str, verdict: Verdict) -> None:
    log.error(
        event,
        queue_id=message.queue_id,
        identity=identity,
        recipient=str(message.envelope.recipients[verdict.number]),
        reply=verdict.reply,
    )
