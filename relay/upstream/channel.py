"""SMTP as a channel: one message, one transaction, on a session of its login."""

import asyncio
from collections.abc import Sequence
from typing import Final

from relay.core.envelope import Recipient
from relay.core.login import Login
from relay.core.message import Message
from relay.core.outcome import Answer, Fact, Failure, FailureKind, Phase, classify
from relay.core.ports import AttemptReport
from relay.upstream.dial import UpstreamFailure
from relay.upstream.pool import Pool
from relay.upstream.session import Session

LEAST_PATIENCE: Final = 0.5  # seconds: once there is a session, the envelope gets a fair chance


class SmtpChannel:
    """A Channel over pooled sessions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def send(
        self, message: Message, recipients: Sequence[Recipient], login: Login, *, patience: float
    ) -> AttemptReport:
        loop = asyncio.get_running_loop()
        started = loop.time()
        fresh = False
        while True:
            remaining = patience - (loop.time() - started)
            try:
                session, reused = await self._pool.acquire(login, remaining, fresh=fresh)
            except UpstreamFailure as failure:
                return _report(recipients, [failure.fact] * len(recipients), None, loop.time() - started, 0.0)
            connected = loop.time()
            try:
                facts = await session.transact(
                    message.envelope,
                    recipients,
                    message.content,
                    patience=max(patience - (connected - started), LEAST_PATIENCE),
                    stall=patience,
                )
            finally:
                self._pool.release(session)
            if reused and not fresh and _stale(facts):
                fresh = True
                continue
            return _report(recipients, facts, session, connected - started, loop.time() - connected)


def _stale(facts: Sequence[Fact]) -> bool:
    """Did a session that had been idle turn out to be dead, before anything of the message can have been accepted?

    It closed, or said 421, before the dot's octets were handed over: SparkPost drops idle sessions, and ends them after
    their hundredth message.
    """
    return all(
        (isinstance(fact, Failure) and fact.kind is FailureKind.LOST and fact.phase is not Phase.DOT)
        or (isinstance(fact, Answer) and fact.reply.code == 421 and fact.phase is Phase.MAIL)
        for fact in facts
    )


def _report(
    recipients: Sequence[Recipient], facts: Sequence[Fact], session: Session | None, connect: float, transaction: float
) -> AttemptReport:
    return AttemptReport(
        tuple((recipient, classify(fact)) for recipient, fact in zip(recipients, facts, strict=True)),
        str(session.endpoint) if session is not None else None,
        connect,
        transaction,
    )
