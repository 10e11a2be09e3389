"""How long each phase with SparkPost may take, in seconds."""

from dataclasses import dataclass
from typing import Final

LEAVE_SECONDS: Final = 2.0  # the application waits, with its refusal already known
BEHIND_SECONDS: Final = 3.0  # how long a transaction waits behind the dot of another before it goes elsewhere
REST_SECONDS: Final = 5.0  # after which a connection may have died unnoticed
SUSPECT_SECONDS: Final = 2.0  # how long it may be silent then: the application still waits for what follows


@dataclass(frozen=True, slots=True)
class HandshakeTimeouts:
    """To connect, for the greeting, for the reply to a command."""

    connect: float
    banner: float
    command: float


@dataclass(frozen=True, slots=True)
class SessionTimeouts:
    """For the reply to a command, for the content to move on, for the reply to the final dot."""

    command: float
    data_progress: float
    final_dot: float
