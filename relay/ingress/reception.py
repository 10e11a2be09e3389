"""A complete message has come in: may it pass, what is added to it, under which login does it go.

Then the intake takes responsibility for it, or refuses it; its word is the reply to the final dot.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from relay.core.envelope import Envelope
from relay.core.message import Content, Message, queue_id_of
from relay.core.ports import Bearer, Clock, Intake
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.observe import log as events
from relay.observe.metrics import Metrics
from relay.policy import admission, content
from relay.policy.identity import Decision
from relay.policy.rates import Quotas

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a message came from, for its Received line and the log; `peer` is empty for a Unix socket."""

    session: str
    listener: str
    helo: str
    peer: str
    protocol: str


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

    def receive(
        self,
        envelope: Envelope,
        raw: Content,
        decision: Decision,
        sender: Sender,
        origin: Provenance,
    ) -> Reply | Awaitable[Reply]:
        """The reply to the final dot, or where it will come from. Owns `raw` from here on."""
        now = self._clock.now()
        queue_id = queue_id_of(now, int.from_bytes(os.urandom(4), "big"))
        identity = decision.assignment.identity
        self._metrics.messages_received.count(origin.listener, identity)
        answer: Reply | Awaitable[Reply] | None = admission.content(decision, raw.header) or self._count_in(decision)
        counted = answer is None and decision.rate is not None
        if answer is None:
            missing = content.missing(raw.header)
            for kind in missing:
                sender.tolerated(kind)
            prepared = content.prepare(
                raw,
                content.Trace(
                    helo=origin.helo,
                    peer=origin.peer,
                    hostname=self._hostname,
                    protocol=origin.protocol,
                    queue_id=queue_id,
                    recipients=envelope.recipients,
                    epoch=now,
                ),
                missing,
            )
            answer = self._intake.accept(Message(queue_id, envelope, prepared), sender.bearer(decision))
        else:
            raw.close()
        conclude = partial(self._conclude, queue_id, envelope, raw.size, decision, origin, counted=counted)
        return conclude(answer) if isinstance(answer, Reply) else _later(answer, conclude)

    def _conclude(
        self,
        queue_id: str,
        envelope: Envelope,
        size: int,
        decision: Decision,
        origin: Provenance,
        answer: Reply,
        *,
        counted: bool,
    ) -> Reply:
        """What is to be done once the answer is known: what was `counted` and not taken counts no more."""
        if counted and decision.rate is not None and not answer.positive:
            self._quotas.give_back(decision.assignment, decision.rate)
        self._report(answer, queue_id, decision.assignment.identity, envelope, size, origin)
        return answer

    def _count_in(self, decision: Decision) -> Reply | None:
        """Asked at MAIL already; but others may have sent meanwhile."""
        if decision.rate is None:
            return None
        return self._quotas.take(decision.assignment, decision.rate, self._clock.monotonic())

    def _report(
        self, answer: Reply, queue_id: str, identity: str, envelope: Envelope, size: int, origin: Provenance
    ) -> None:
        positive = answer.positive
        tell = log.info if positive else log.warning
        tell(
            events.TX_ACCEPTED if positive else events.TX_REJECTED,
            queue_id=queue_id,
            session=origin.session,
            listener=origin.listener,
            identity=identity,
            reverse_path=str(envelope.reverse_path),
            recipients=[str(recipient) for recipient in envelope.recipients],
            size=size,
            reply=str(answer),
        )


async def _later(answer: Awaitable[Reply], conclude: Callable[[Reply], Reply]) -> Reply:
    return conclude(await answer)
