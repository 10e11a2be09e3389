"""The hinge: the one place that takes responsibility for a message (RFC 5321 §6.1), or refuses it.

A 250 after the final dot comes from here and from nowhere else. Here it means that SparkPost has said 250 while the
application waited (cut-through); what SparkPost cannot take now is 451, and the application's own retry is the queue.
"""

from relay.core.message import Message
from relay.core.ports import Bearer, Courier
from relay.core.reply import Reply
from relay.ingress.answer import answer


class CutThrough:
    """An Intake without a spool: SparkPost's answer is the answer."""

    def __init__(self, courier: Courier, deadline: float) -> None:
        """`deadline`: seconds an application is kept waiting for its content to begin to leave."""
        self._courier = courier
        self._deadline = deadline

    async def accept(self, message: Message, bearer: Bearer) -> Reply:
        report = await self._courier.deliver(message, message.envelope.recipients, bearer, patience=self._deadline)
        return answer(report, message.queue_id, bearer.assignment)
