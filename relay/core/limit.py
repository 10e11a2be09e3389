"""The limits that clients can meet, by the names under which each meeting is counted."""

from enum import StrEnum


class Limit(StrEnum):
    """Something that a client wanted more of than it may have."""

    AUTH_BAN = "auth-ban"
    AUTH_FAILURES = "auth-failures"
    COMMANDS = "commands"
    CONNECTIONS = "connections"
    CONNECTIONS_PER_CLIENT = "connections-per-client"
    DATA_MEMORY = "data-memory"
    ERRORS = "errors"
    LINE_LENGTH = "line-length"
    MESSAGE_RATE = "message-rate"
    MESSAGE_SIZE = "message-size"
    NETWORKS = "networks"
    PROXY_HEADER = "proxy-header"
    RECIPIENTS = "recipients"
    SILENCE = "silence"
    SLOWNESS = "slowness"
