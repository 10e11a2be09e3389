"""SMTP as a channel: one message, as many transactions as its recipients need, on sessions of its login."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay.core.envelope import Recipient
from relay.core.headers import has_field
from relay.core.login import Login
from relay.core.message import Message
from relay.core.outcome import Answer, Cause, Fact, Failure, FailureKind, Outcome, Phase, Scope, classify
from relay.core.ports import AttemptReport, Effort
from relay.upstream.failure import UpstreamFailure
from relay.upstream.pool import Pool

LEAST_PATIENCE: Final = 0.5  # seconds: once there is a session, the envelope gets a fair chance
_SMTP_API: Final = b"X-MSYS-API"


@dataclass(slots=True)
class _Account:
    """What an attempt has come to so far, for its report."""

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
        account = _Account()
        outcomes: list[Outcome | None] = [None] * len(recipients)
        waiting: Sequence[int] = range(len(recipients))
        size = self._size(message, recipients, effort)
        while waiting:
            group = waiting[:size]
            facts = await self._transaction(message, [recipients[number] for number in group], login, effort, account)
            found = list(map(classify, facts))
            causes = [outcome.cause for outcome in found]
            beyond: list[int] = []
            if not effort.whole and 0 < causes.count(Cause.RECIPIENT_LIMIT) < len(causes):
                # SparkPost takes so many at once and no more (452 4.5.3): the rest goes in the next transaction.
                size = causes.index(Cause.RECIPIENT_LIMIT) or 1
                beyond = [number for number, cause in zip(group, causes, strict=True) if cause is Cause.RECIPIENT_LIMIT]
            for number, outcome in zip(group, found, strict=True):
                outcomes[number] = outcome
            waiting = [*beyond, *waiting[len(group) :]]
            if isinstance(facts[0], Failure) and all(isinstance(fact, Failure) for fact in facts):
                for number in waiting:
                    outcomes[number] = _untried(facts[0])
                break
        done = [outcome for outcome in outcomes if outcome is not None]
        return AttemptReport(
            tuple(zip(recipients, done, strict=True)), account.endpoint, account.connect, account.transaction
        )

    def _size(self, message: Message, recipients: Sequence[Recipient], effort: Effort) -> int:
        """Recipients of one transaction.

        With an X-MSYS-API header each gets its own: SparkPost may queue some recipients of a message that it refuses
        (fact sheet 2.3, SD-2121), and a retry would reach these twice.
        """
        if effort.whole or len(recipients) == 1:
            return len(recipients)
        return 1 if has_field(message.content.header, _SMTP_API) else self._recipients_per_transaction

    async def _transaction(
        self, message: Message, recipients: Sequence[Recipient], login: Login, effort: Effort, account: _Account
    ) -> list[Fact]:
        """One transaction, and one on a second session for those of whom nothing can have been accepted when the first
        turned out to be dead: for all or none, if that is how it is to be.
        """
        loop = asyncio.get_running_loop()
        known: list[Fact | None] = [None] * len(recipients)
        unknown: Sequence[int] = range(len(recipients))
        started = loop.time()
        fresh = False
        while True:
            asked = loop.time() if fresh else started
            try:
                session, reused = await self._pool.acquire(login, effort.patience - (asked - started), fresh=fresh)
            except UpstreamFailure as failure:
                account.connect += loop.time() - started
                return [fact or failure.fact for fact in known]
            connected = loop.time()
            try:
                facts = await session.transact(
                    message.envelope,
                    [recipients[number] for number in unknown],
                    message.content,
                    effort,
                    patience=max(effort.patience - (connected - started), LEAST_PATIENCE),
                )
            except BaseException:
                self._pool.release(session)
                raise
            self._pool.release(session, put_off=any(map(_put_off, facts)))
            for number, fact in zip(unknown, facts, strict=True):
                known[number] = fact
            stale = list(map(_stale, facts)) if reused and not fresh else []
            if any(stale) and (all(stale) or not effort.whole):
                unknown = [number for number, again in zip(unknown, stale, strict=True) if again]
                for number in unknown:
                    known[number] = None
                fresh = True
                continue
            account.endpoint = str(session.endpoint)
            account.connect += connected - started
            account.transaction += loop.time() - connected
            return [fact for fact in known if fact is not None]


def _untried(fact: Fact) -> Outcome:
    """For recipients whose turn did not come, because the way broke down before."""
    if fact.phase in (Phase.RCPT, Phase.DATA, Phase.DOT, Phase.MAIL):
        return classify(Failure(Phase.RCPT, FailureKind.WITHHELD, f"not tried, as the connection failed: {fact}"))
    return classify(fact)


def _put_off(fact: Fact) -> bool:
    """A 4yz that is about nobody's recipient and nobody's plan: SparkPost has enough to do."""
    return isinstance(fact, Answer) and fact.reply.transient and classify(fact).scope is Scope.MESSAGE


def _stale(fact: Fact) -> bool:
    """Did a session that had been idle turn out to be dead, before anything of the message can have been accepted?

    It closed, or said 421, before the dot's octets were handed over: SparkPost drops idle sessions, and ends them after
    their hundredth message.
    """
    if isinstance(fact, Failure):
        return fact.kind is FailureKind.LOST and fact.phase is not Phase.DOT
    return fact.reply.code == 421 and fact.phase is Phase.MAIL
