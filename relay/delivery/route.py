"""One attempt at a message: over which channel, and what is told of it afterwards.

There is one channel today, SMTP on whichever port works. A way that is known to be closed is not tried. Every recipient
of every attempt leaves exactly one `attempt.done` event; it is the line an operator searches for.
"""

from collections.abc import Sequence

import structlog

from relay.core.envelope import Recipient
from relay.core.lifecycle import sparkpost_id
from relay.core.login import Login
from relay.core.message import Message
from relay.core.outcome import Answer, Delivered, Outcome
from relay.core.ports import AttemptReport, Bearer, Channel, Clock, Effort
from relay.delivery.circuits import Circuits
from relay.observe import log as events
from relay.observe.metrics import Metrics

log = structlog.get_logger()


class Route:
    """A Courier over one Channel."""

    def __init__(self, channel: Channel, circuits: Circuits, clock: Clock, metrics: Metrics) -> None:
        self._channel = channel
        self._circuits = circuits
        self._clock = clock
        self._metrics = metrics

    def blocked(self, login: Login) -> Outcome | None:
        return self._circuits.blocked(login)

    @property
    def all_open(self) -> bool:
        return self._circuits.all_open

    def next_change(self) -> float | None:
        return self._circuits.next_change()

    async def deliver(
        self, message: Message, recipients: Sequence[Recipient], bearer: Bearer, effort: Effort
    ) -> AttemptReport:
        closed = self._circuits.blocked(bearer.login)
        if closed is not None:
            report = AttemptReport(tuple((recipient, closed) for recipient in recipients))
        else:
            started = self._clock.monotonic()
            report = await self._channel.send(message, recipients, bearer.login, effort)
            self._metrics.attempt_seconds.observe(self._clock.monotonic() - started)
            self._circuits.learn(bearer.login, [outcome for _, outcome in report.outcomes])
        for recipient, outcome in report.outcomes:
            self._metrics.messages.labels(bearer.assignment.identity, outcome.name).inc()
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
            outcome=outcome.name,
            phase=outcome.fact.phase.value,
            code=said.code if said else None,
            enhanced=str(said.enhanced) if said and said.enhanced else None,
            reply=str(outcome.fact),
            message_id=sparkpost_id(outcome),
            delays={"connect": round(report.connect_seconds, 3), "transaction": round(report.transaction_seconds, 3)},
        )
