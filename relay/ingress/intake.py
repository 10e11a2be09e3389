"""The hinge: the one place that takes responsibility for a message (RFC 5321 §6.1), or refuses it.

A 250 after the final dot comes from here and from nowhere else. It means that SparkPost has said 250 while the
application waited, or that the message is committed to the spool. Whatever the spool cannot do now is done as if there
were none: SparkPost's answer is the answer, and the application's own retry is the queue.
"""

import asyncio
from collections.abc import Awaitable

from relay.core import reply
from relay.core.login import PASSTHROUGH
from relay.core.message import Message
from relay.core.outcome import Bounced, Delivered
from relay.core.ports import AttemptReport, Bearer, Courier, Effort, MailQueue, Permit, RunningAttempt
from relay.core.reply import Reply
from relay.core.spooled import SpoolUnavailable
from relay.ingress.answer import answer, answer_queued

SPOOLED_PATIENCE = 60.0  # seconds for the content to begin to leave, once the application need not wait for it


class CutThrough:
    """An Intake without a spool: SparkPost's answer is the answer."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    async def accept(self, message: Message, bearer: Bearer) -> Reply:
        """The deadline of the terms counts until the content begins to leave; after the dot we wait for SparkPost."""
        try:
            effort = Effort(bearer.terms.deadline, whole=True)
            report = await self._courier.deliver(message, message.envelope.recipients, bearer, effort)
        finally:
            message.content.close()
        return answer(report, message.queue_id, bearer.assignment)


class SpooledIntake:
    """An Intake with a spool: SparkPost's answer where it comes in time, else ours, once the message is safe."""

    def __init__(self, courier: Courier, mail_queue: MailQueue) -> None:
        self._courier = courier
        self._queue = mail_queue
        self._bare = CutThrough(courier)

    def accept(self, message: Message, bearer: Bearer) -> Awaitable[Reply]:
        if bearer.assignment.credential == PASSTHROUGH:
            return self._bare.accept(message, bearer)  # its key is the session's, and is stored nowhere
        if bearer.terms.queue or (self._courier.blocked(bearer.login) is not None and self._queue.problem is None):
            return self._store(message, bearer)
        if self._queue.problem is not None:
            return self._bare.accept(message, bearer)
        return self._attempt(message, bearer)

    async def _store(self, message: Message, bearer: Bearer) -> Reply:
        try:
            await self._queue.keep(message, bearer)
        except SpoolUnavailable as error:
            message.content.close()
            return reply.NO_ROOM if error.full else reply.SPOOL_UNAVAILABLE
        return reply.queued(message.queue_id)

    async def _attempt(self, message: Message, bearer: Bearer) -> Reply:
        """SparkPost's answer within the deadline. After that the message is ours, and the attempt goes on."""
        permit = Permit()
        attempt = asyncio.get_running_loop().create_task(
            self._courier.deliver(message, message.envelope.recipients, bearer, Effort(SPOOLED_PATIENCE, permit=permit))
        )
        try:
            done, _ = await asyncio.wait([attempt], timeout=bearer.terms.deadline)
        except asyncio.CancelledError:
            attempt.cancel()  # the relay is going down; the application has heard nothing, and will try again
            raise
        if not done:
            try:
                await self._queue.keep(message, bearer, attempt=RunningAttempt(attempt, permit))
            except SpoolUnavailable:
                await asyncio.wait([attempt])  # without a spool its outcome is all there is to say
            else:
                return reply.queued(message.queue_id)
        return await self._answer(message, bearer, attempt.result())

    async def _answer(self, message: Message, bearer: Bearer, report: AttemptReport) -> Reply:
        outcomes = [outcome for _, outcome in report.outcomes]
        if all(isinstance(outcome, Delivered) for outcome in outcomes):
            self._queue.enter(message, bearer, report)
        elif all(isinstance(outcome, Bounced) for outcome in outcomes):
            message.content.close()
        else:
            try:
                await self._queue.keep(message, bearer, report=report)
            except SpoolUnavailable:
                message.content.close()
            else:
                return answer_queued(report, message.queue_id)
        return answer(report, message.queue_id, bearer.assignment)
