"""SMTP as a channel: one message, as many transactions as its recipients need, on sessions of its login."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from relay.core import smtp_api
from relay.core.envelope import Recipient
from relay.core.headers import has_field
from relay.core.login import Login
from relay.core.message import Message
from relay.core.outcome import (
    STOPPING,
    Answer,
    Cause,
    Fact,
    Failure,
    FailureKind,
    Outcome,
    Phase,
    Scope,
    classify,
    defect,
)
from relay.core.ports import AttemptReport, Effort
from relay.observe import log as events
from relay.upstream.failure import UpstreamFailure
from relay.upstream.pool import Pool

log = structlog.get_logger()

PUT_OFF_AT_MOST: Final = 10  # transactions in a row: a message that many groups are put off for is not sent to the next
LEAST_PATIENCE: Final = 0.5  # seconds: once there is a session, the envelope gets a fair chance
_TRANSACTION: Final = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT})
_ENDED: Final = frozenset({FailureKind.LOST, FailureKind.PROTOCOL})


@dataclass(slots=True)
class _Attempt:
    """What is to be sent, and what it has come to so far, for the report."""

    message: Message
    login: Login
    effort: Effort
    endpoint: str | None = None
    connect: float = 0.0
    transaction: float = 0.0


class SmtpChannel:
    """A Channel over pooled sessions."""

    def __init__(self, pool: Pool, recipients_per_transaction: int) -> None:
        self._pool = pool
        self._recipients_per_transaction = recipients_per_transaction

    async def send(
        self, message: Message, recipients: Sequence[Recipient], login: Login, effort: Effort
    ) -> AttemptReport:
        attempt = _Attempt(message, login, effort)
        outcomes: dict[int, Outcome] = {}
        told: list[Outcome] = []
        size = self._size(message, recipients, effort)
        # With each halving another group goes first: after one that is met with silence the others are not tried.
        first = size * effort.halvings % len(recipients)
        waiting: Sequence[int] = [*range(first, len(recipients)), *range(first)] if first else range(len(recipients))
        loop = asyncio.get_running_loop()
        put_off = 0  # transactions in a row
        while waiting:
            group, waiting = waiting[:size], waiting[size:]
            try:
                facts = await self._transaction(attempt, [recipients[number] for number in group], loop.time())
            except Exception:
                # Of ours. What SparkPost has said to the transactions before it stands.
                log.exception(events.INTERNAL_ERROR, queue_id=message.queue_id)
                facts = [defect(sent=effort.permit.used)] * len(group)
            before, told = told, [classify(fact) for fact in facts]
            outcomes.update(zip(group, told, strict=True))
            beyond = [number for number in group if outcomes[number].cause is Cause.RECIPIENT_LIMIT]
            if beyond and len(beyond) < len(group) and not effort.whole:
                # SparkPost takes so many at once and no more (452 4.5.3): the rest goes in the next transaction.
                size = group.index(beyond[0]) or 1
                waiting = [*beyond, *waiting]
            reason = _put_off(facts)
            put_off = put_off + 1 if reason is not None else 0
            if (fault := _fault_of_the_way(told, before)) is not None:
                end = _untried(fault)
            elif reason is not None and put_off >= PUT_OFF_AT_MOST:
                end = classify(reason)
            elif effort.permit.ending:
                end = classify(STOPPING)
            else:
                continue
            outcomes.update(dict.fromkeys(waiting, end))
            break
        done = tuple([(recipient, outcomes[number]) for number, recipient in enumerate(recipients)])
        return AttemptReport(done, attempt.endpoint, attempt.connect, attempt.transaction)

    def _size(self, message: Message, recipients: Sequence[Recipient], effort: Effort) -> int:
        """Recipients of one transaction: not always as many as may be.

        With an X-MSYS-API header each gets its own: SparkPost may queue some recipients of a message that it refuses
        (fact sheet 2.3, SD-2121), and a retry would reach these twice.
        """
        if effort.whole or len(recipients) == 1:
            return len(recipients)
        if has_field(message.content.header, smtp_api.NAME):
            return 1
        together = min(len(recipients), self._recipients_per_transaction)
        return max(1, together >> effort.halvings)

    async def _transaction(
        self, attempt: _Attempt, recipients: Sequence[Recipient], started: float, *, fresh: bool = False
    ) -> list[Fact]:
        """One transaction, and one on a second session (`fresh`) for those of whom nothing can have been accepted when
        the first turned out to be dead: for all or none, if that is how it is to be.
        """
        loop, message, effort = asyncio.get_running_loop(), attempt.message, attempt.effort
        try:
            patience = effort.patience - (loop.time() - started)
            session, reused = await self._pool.acquire(attempt.login, patience, fresh=fresh)
        except UpstreamFailure as failure:
            attempt.connect += loop.time() - started
            return [failure.fact] * len(recipients)
        connected = loop.time()
        try:
            facts = await session.transact(
                message.envelope,
                recipients,
                message.content,
                effort,
                patience=max(effort.patience - (connected - started), LEAST_PATIENCE),
            )
        except BaseException:
            self._pool.release(session)
            raise
        self._pool.release(session, put_off=_put_off(facts) is not None)
        if reused and not fresh and (stale := _stale(facts)) and (len(stale) == len(facts) or not effort.whole):
            again = await self._transaction(attempt, [recipients[number] for number in stale], started, fresh=True)
            for number, fact in zip(stale, again, strict=True):
                facts[number] = fact
        else:
            attempt.endpoint = str(session.endpoint)
            attempt.connect += connected - started
            attempt.transaction += loop.time() - connected
        return facts


def _fault_of_the_way(told: Sequence[Outcome], before: Sequence[Outcome]) -> Outcome | None:
    """What makes it pointless to try the other recipients now: the way, the login or the plan are at fault.

    A 421 within a transaction, or a connection that broke there, may still be about one of its recipients, who must not
    keep the others waiting; the transaction `before` had none.
    """
    again = any(map(_broke_off, before))
    for outcome in told:
        if outcome.scope in (Scope.LOGIN, Scope.CREDENTIAL):
            return outcome
        if _broke_off(outcome) and (again or not _may_be_about_one(outcome.fact)):
            return outcome
    return None


def _broke_off(outcome: Outcome) -> bool:
    return outcome.scope is Scope.ENDPOINT or isinstance(outcome.fact, Failure)


def _may_be_about_one(fact: Fact) -> bool:
    """There was a session, and it ended at once; silence costs too much time to be met twice."""
    return fact.phase in _TRANSACTION and (isinstance(fact, Answer) or fact.kind in _ENDED)


def _untried(fault: Outcome) -> Outcome:
    """For recipients whose turn did not come."""
    fact = fault.fact
    if isinstance(fact, Failure) and fact.kind is FailureKind.DEFECT:
        return classify(Failure(Phase.RCPT, FailureKind.WITHHELD, f"not tried, after an {fact}"))
    if fact.phase not in _TRANSACTION or fault.scope in (Scope.LOGIN, Scope.CREDENTIAL):
        return fault
    return classify(Failure(Phase.RCPT, FailureKind.WITHHELD, f"not tried, as the connection failed: {fact}"))


def _put_off(facts: Sequence[Fact]) -> Fact | None:
    """A 4yz that is about nobody's recipient and nobody's plan, if there was one: then SparkPost has enough to do."""
    for fact in facts:
        if isinstance(fact, Answer) and fact.reply.transient and classify(fact).scope is Scope.MESSAGE:
            return fact
    return None


def _stale(facts: Sequence[Fact]) -> list[int]:
    """For whom did a session that had been idle turn out to be dead, before anything of the message can have been
    accepted?

    It closed, or said 421, before the dot's octets were handed over: SparkPost drops idle sessions, and ends them after
    their hundredth message.
    """
    stale: list[int] = []
    for number, fact in enumerate(facts):
        if isinstance(fact, Failure):
            dead = fact.kind is FailureKind.LOST and fact.phase is not Phase.DOT
        else:
            dead = fact.reply.code == 421 and fact.phase is Phase.MAIL
        if dead:
            stale.append(number)
    return stale
