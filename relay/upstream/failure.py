"""How a way to SparkPost fails: with a fact."""

from relay.core.outcome import Answer, Fact, Phase


class UpstreamFailure(Exception):
    """An attempt came to nothing; `fact` says in which phase and why."""

    def __init__(self, fact: Fact) -> None:
        super().__init__(str(fact))
        self.fact = fact


def not_now(fact: Fact) -> bool:
    """A greeting of 4yz: the service is there and wants to be left alone, so no other port is tried."""
    return isinstance(fact, Answer) and fact.phase is Phase.BANNER and fact.reply.transient
