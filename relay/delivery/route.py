"""One attempt at a message: over which channel, and what is told of it afterwards.

There is one channel today, SMTP on whichever port works. Every recipient of every attempt leaves exactly one
`attempt.done` event; it is the line an operator searches for.
"""

from collections.abc import Sequence

import structlog

from relay.core.envelope import Recipient
from relay.core.message import Message
from relay.core.outcome import Answer, Cause, Delivered, Outcome
from relay.core.ports import AttemptReport, Bearer, Channel, Clock
from relay.observe import log as events
from relay.observe.metrics import Metrics

log = structlog.get_logger()


class Route:
    """A Courier over one Channel."""

    def __init__(self, channel: Channel, clock: Clock, metrics: Metrics) -> None:
        self._channel = channel
        self._clock = clock
        self._metrics = metrics

    async def deliver(
        self, message: Message, recipients: Sequence[Recipient], bearer: Bearer, *, patience: float
    ) -> AttemptReport:
        started = self._clock.monotonic()
        report = await self._channel.send(message, recipients, bearer.login, patience=patience)
        seconds = self._clock.monotonic() - started
        self._metrics.attempt_seconds.observe(seconds)
        for recipient, outcome in report.outcomes:
            self._metrics.messages.labels(bearer.assignment.identity, outcome_name(outcome)).inc()
            self._tell(message, bearer, recipient, outcome, report)
        return report

    def _tell(
        self, message: Message, bearer: Bearer, recipient: Recipient, outcome: Outcome, report: AttemptReport
    ) -> None:
        said = outcome.fact.reply if isinstance(outcome.fact, Answer) else None
        write = log.info if isinstance(outcome, Delivered) else log.warning
        write(
            events.ATTEMPT_DONE,
            queue_id=message.queue_id,
            identity=bearer.assignment.identity,
            credential=bearer.assignment.credential,
            subaccount=bearer.assignment.subaccount,
            recipient=str(recipient),
            endpoint=report.endpoint,
            outcome=outcome_name(outcome),
            phase=outcome.fact.phase.value,
            code=said.code if said else None,
            enhanced=str(said.enhanced) if said and said.enhanced else None,
            reply=str(outcome.fact),
            message_id=said.text.removeprefix("OK ") if said and isinstance(outcome, Delivered) else None,
            delays={"connect": round(report.connect_seconds, 3), "transaction": round(report.transaction_seconds, 3)},
        )
        if outcome.cause is Cause.LOGIN_REFUSED:
            log.error(
                events.CREDENTIAL_REFUSED,
                credential=bearer.assignment.credential,
                username=bearer.login.username,
                reply=str(outcome.fact),
            )


def outcome_name(outcome: Outcome) -> str:
    """The outcome as logs and metrics name it: delivered, deferred, bounced or ambiguous."""
    return type(outcome).__name__.lower()
