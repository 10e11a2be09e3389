"""A complete message has come in: may it pass, what is added to it, under which login does it go.

Then the intake takes responsibility for it, or refuses it; its word is the reply to the final dot.
"""

import os
from collections.abc import Awaitable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, Protocol

import structlog

from relay.core.envelope import Envelope
from relay.core.message import Content, Message, queue_id_of
from relay.core.ports import Bearer, Clock, Intake
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.observe import log as events
from relay.observe.metrics import Metrics
from relay.policy import admission, content, wishes
from relay.policy.identity import Decision
from relay.policy.rates import Quotas

log = structlog.get_logger()


@dataclass(slots=True)
class Provenance:
    """Where a message came from, for the log, and for its Received line `way` (see `content.way_of`).

    `domain` is that of addresses in its header that have none; None leaves them so.
    """

    session: str
    listener: str
    way: str
    domain: str | None = None


@dataclass(slots=True)
class Arrival:
    """A message that has come in, as it is told of; `size` as the client sent it.

    `counted` is when by the monotonic clock it was counted in, where its identity has a rate.
    """

    queue_id: str
    envelope: Envelope
    size: int
    decision: Decision
    origin: Provenance
    counted: float = 0.0


class Undecided(NamedTuple):
    """A message that the intake takes its time over: `conclude` it with the answer."""

    arrival: Arrival
    answer: Awaitable[Reply]


class Sender(Protocol):
    """Whose message it is."""

    def bearer(self, decision: Decision) -> Bearer:
        """On whose behalf it goes, under the login of this moment."""
        ...

    def tolerated(self, kind: Tolerance) -> None: ...


class Reception:
    """Turns what a session received into a message of the relay, and its final reply."""

    def __init__(self, hostname: str, intake: Intake, clock: Clock, metrics: Metrics, quotas: Quotas) -> None:
        self._hostname = hostname
        self._intake = intake
        self._clock = clock
        self._metrics = metrics
        self._quotas = quotas
        self._noise = count(int.from_bytes(os.urandom(4), "big"))

    def receive(
        self,
        envelope: Envelope,
        raw: Content,
        decision: Decision,
        sender: Sender,
        origin: Provenance,
    ) -> Reply | Undecided:
        """The reply to the final dot, or where it will come from. Owns `raw` from here on."""
        now = self._clock.now()
        queue_id = queue_id_of(now, next(self._noise))
        self._metrics.messages_received.count(origin.listener, decision.assignment.identity)
        arrival = Arrival(queue_id, envelope, raw.size, decision, origin)
        if origin.domain is not None:
            whole = content.with_domains(raw, origin.domain)
            if whole is not raw:
                sender.tolerated(Tolerance.NO_DOMAIN)
                raw = whole
        asked = self._admit(arrival, raw.header)
        if isinstance(asked, Reply):
            raw.close()
            self._report(arrival, asked)
            return asked
        missing = content.missing(raw.header)
        for kind in missing:
            sender.tolerated(kind)
        trace = content.Trace(origin.way, self._hostname, queue_id, envelope.recipients, now)
        message = Message(queue_id, envelope, content.prepare(raw, trace, missing, asked))
        answer = self._intake.accept(message, sender.bearer(decision))
        return self.conclude(arrival, answer) if isinstance(answer, Reply) else Undecided(arrival, answer)

    def conclude(self, arrival: Arrival, answer: Reply) -> Reply:
        """The intake has answered. What was counted in and not taken counts no more."""
        decision = arrival.decision
        if decision.rate is not None and not answer.positive:
            self._quotas.give_back(decision.assignment, decision.rate, arrival.counted)
        self._report(arrival, answer)
        return answer

    def _admit(self, arrival: Arrival, header: bytes) -> Reply | bytes:
        """The refusal of a message that may not pass; else what SparkPost is asked to do with it."""
        decision = arrival.decision
        refusal = admission.content(decision, header)
        if refusal is not None:
            return refusal
        asked = wishes.asked_for(decision.wishes, decision.assignment.identity, header)
        return asked if isinstance(asked, Reply) else self._count_in(arrival) or asked

    def _count_in(self, arrival: Arrival) -> Reply | None:
        """Asked at MAIL already; but others may have sent meanwhile."""
        decision = arrival.decision
        if decision.rate is None:
            return None
        arrival.counted = self._clock.monotonic()
        return self._quotas.take(decision.assignment, decision.rate, arrival.counted)

    def _report(self, arrival: Arrival, answer: Reply) -> None:
        positive = answer.positive
        tell = log.info if positive else log.warning
        tell(
            events.TX_ACCEPTED if positive else events.TX_REJECTED,
            queue_id=arrival.queue_id,
            session=arrival.origin.session,
            listener=arrival.origin.listener,
            identity=arrival.decision.assignment.identity,
            reverse_path=str(arrival.envelope.reverse_path),
            recipients=[str(recipient) for recipient in arrival.envelope.recipients],
            size=arrival.size,
            reply=answer.wire()[:-2].decode("ascii"),  # as the client reads it, and worked out once for both
        )
