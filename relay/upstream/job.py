"""A transaction on its way over a session."""

import asyncio

from relay.core.message import Content
from relay.core.outcome import Fact
from relay.core.ports import Effort
from relay.upstream.transaction import Transaction


class Job:
    """One transaction, what it is to carry, when it must have come to its 354, and who waits for its facts."""

    def __init__(
        self,
        transaction: Transaction,
        content: Content,
        effort: Effort,
        deadline: float,
        done: "asyncio.Future[list[Fact]]",
    ) -> None:
        self.transaction = transaction
        self.content = content
        self.effort = effort
        self.deadline = deadline
        self.done = done
        self.dot_sent = False
        self.stream: asyncio.Task[None] | None = None

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result([fact for fact in self.transaction.facts if fact is not None])

    def end(self, fact: Fact) -> None:
        """It ends here, and that is all there is to say to whom nothing has been said yet."""
        self.transaction.conclude(fact)
        self.finish()
