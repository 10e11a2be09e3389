"""How much is said to an endpoint before it has answered, and less of it for one that gets confused.

full         the next message's commands leave with the dot of the one before
transaction  MAIL, RCPT and DATA of one message leave together
off          one command at a time
"""

from enum import IntEnum

import structlog

from relay.core.login import Endpoint
from relay.observe import log as events

log = structlog.get_logger()


class Level(IntEnum):
    """From the most careful to the fastest."""

    OFF = 0
    TRANSACTION = 1
    FULL = 2


class Pipelining:
    """The level of each endpoint: the configured one, until replies and commands no longer line up there."""

    def __init__(self, configured: Level) -> None:
        self._configured = configured
        self._levels: dict[tuple[str, int], Level] = {}

    def level(self, endpoint: Endpoint) -> Level:
        return self._levels.get((endpoint.host, endpoint.port), self._configured)

    def step_down(self, endpoint: Endpoint, spoken: Level) -> None:
        """A connection on which this level was spoken has heard what its commands do not admit."""
        if spoken is Level.OFF or self.level(endpoint) is not spoken:
            return
        lower = Level(spoken - 1)
        self._levels[endpoint.host, endpoint.port] = lower
        log.warning(
            events.UPSTREAM_PIPELINING, endpoint=str(endpoint), level=lower.name.lower(), before=spoken.name.lower()
        )
