"""A policy's decision, for tests that need one and do not care which."""

from relay.core.login import Assignment
from relay.policy.identity import Decision


def decision(identity: str = "default", credential: str = "default", subaccount: int | None = None) -> Decision:
    """What matching a rule without restrictions gives."""
    return Decision(Assignment(identity, credential, subaccount), senders=(), max_recipients=1000)
