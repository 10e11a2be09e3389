"""How long each phase with SparkPost may take, in seconds."""

from dataclasses import dataclass


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
