"""One attempt at a message: over which channel, and what is told of it afterwards.

SMTP, on whichever port works. HTTPS where it is wanted, while no port of the login's target works, and no longer. A way
that is known to be closed is not tried. Every recipient of every attempt leaves exactly one `attempt.done` event; it is
the line an operator searches for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from relay.core.envelope import Recipient
from relay.core.lifecycle import sparkpost_id
from relay.core.login import Login
from relay.core.message import Message
from relay.core.outcome import Answer, Delivered, Outcome, Phase, classify, defect
from relay.core.ports import AttemptReport, Bearer, Channel, Clock, Effort, LoginProof
from relay.delivery.circuits import Circuits
from relay.delivery.last_resort import LastResort
from relay.observe import log as events
from relay.observe.metrics import Metrics

log = structlog.get_logger()

LEAST_PATIENCE: Final = 0.5  # seconds that must be left for HTTPS in an attempt that has found every port blocked
# A dial that comes to nothing ends in one of these, whatever the port.
_DIALLING: Final = frozenset({Phase.RESOLVE, Phase.CONNECT, Phase.BANNER, Phase.EHLO, Phase.STARTTLS, Phase.TLS})


class Route:
    """A Courier over SMTP and, as the last resort, over HTTPS."""

    def __init__(
        self,
        smtp: Channel,
        https: Channel,
        circuits: Circuits,
        last_resort: LastResort,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._smtp = smtp
        self._https = https
        self._circuits = circuits
        self._last_resort = last_resort
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
        login, circuits = bearer.login, self._circuits
        closed = circuits.blocked(login)
        if closed is not None:
            report = AttemptReport(tuple((recipient, closed) for recipient in recipients))
        else:
            started = self._clock.monotonic()
            try:
                if circuits.by_https(login):
                    report = await self._over_https(message, recipients, login, effort)
                else:
                    report = await self._smtp.send(message, recipients, login, effort)
                    _learn(message, login, report, circuits)
                    if not circuits.all_open and _found_blocked(report):
                        took = self._clock.monotonic() - started
                        report = await self._after_smtp(message, recipients, login, effort, report, took)
            except Exception:
                log.exception(events.INTERNAL_ERROR, queue_id=message.queue_id)
                report = _after_defect(recipients, sent=effort.permit.used)
            self._metrics.attempt_seconds.observe(self._clock.monotonic() - started)
        for recipient, outcome in report.outcomes:
            self._metrics.messages.count(bearer.assignment.identity, outcome.name)
            self._tell(message, bearer, recipient, outcome, report)
        return report

    async def _after_smtp(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        login: Login,
        effort: Effort,
        report: AttemptReport,
        took: float,
    ) -> AttemptReport:
        """An attempt that has found every port blocked goes on over HTTPS, if that is open and there is time."""
        rest = effort.patience - took
        if rest < LEAST_PATIENCE or not self._circuits.by_https(login) or self._circuits.blocked(login) is not None:
            return report
        report = await self._over_https(message, recipients, login, replace(effort, patience=rest))
        return report._replace(connect_seconds=report.connect_seconds + took)

    async def _over_https(
        self, message: Message, recipients: Sequence[Recipient], login: Login, effort: Effort
    ) -> AttemptReport:
        self._note_fallback(login)
        report = await self._https.send(message, recipients, login, effort)
        _learn(message, login, report, self._circuits, self._last_resort)
        return report

    def _note_fallback(self, login: Login) -> None:
        """Tell once of each outage; that a port works again, the circuits tell."""
        down = self._circuits.goes_round(login.target)
        if down is not None:
            self._metrics.port_fallbacks.inc()
            endpoint = self._last_resort.endpoint(login)
            log.warning(events.UPSTREAM_FALLBACK, host=login.target.host, endpoint=endpoint, reason=str(down.fact))

    def _tell(
        self, message: Message, bearer: Bearer, recipient: Recipient, outcome: Outcome, report: AttemptReport
    ) -> None:
        fact, assignment = outcome.fact, bearer.assignment
        said = fact.reply if isinstance(fact, Answer) else None
        write = log.info if isinstance(outcome, Delivered) else log.warning
        write(
            events.ATTEMPT_DONE,
            queue_id=message.queue_id,
            identity=assignment.identity,
            credential=assignment.credential,
            subaccount=assignment.subaccount,
            recipient=str(recipient.address),
            endpoint=report.endpoint,
            outcome=outcome.name,
            phase=str(fact.phase),
            code=said.code if said else None,
            enhanced=str(said.enhanced) if said and said.enhanced else None,
            reply=str(fact),
            message_id=sparkpost_id(outcome),
            delays={"connect": round(report.connect_seconds, 3), "transaction": round(report.transaction_seconds, 3)},
        )


class ProofByRoute:
    """A LoginProof over the way that mail of the login takes."""

    def __init__(self, smtp: LoginProof, https: LoginProof, circuits: Circuits, last_resort: LastResort) -> None:
        self._smtp = smtp
        self._https = https
        self._circuits = circuits
        self._last_resort = last_resort

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        if not self._circuits.by_https(login):
            return await self._smtp.prove(login, patience=patience, fresh=fresh)
        refusal = await self._https.prove(login, patience=patience, fresh=fresh)
        if refusal is not None:
            self._last_resort.learn(login, [refusal])
        return refusal


def _learn(message: Message, login: Login, report: AttemptReport, *books: Circuits | LastResort) -> None:
    """Tell of it to those who keep the books of the ways; a defect there takes nothing back that SparkPost has said."""
    outcomes = [outcome for _, outcome in report.outcomes]
    try:
        for book in books:
            book.learn(login, outcomes)
    except Exception:
        log.exception(events.INTERNAL_ERROR, queue_id=message.queue_id)


def _after_defect(recipients: Sequence[Recipient], *, sent: bool) -> AttemptReport:
    """An attempt that a defect of ours has ended: all that is known is whether anything may have left."""
    outcome = classify(defect(sent=sent))
    return AttemptReport(tuple((recipient, outcome) for recipient in recipients))


def _found_blocked(report: AttemptReport) -> bool:
    """Nothing was sent to anybody, because no port could be used."""
    return all(outcome.fact.phase in _DIALLING for _, outcome in report.outcomes)
