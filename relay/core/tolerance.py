"""The leniencies that are shown to clients, by the names under which they are counted and logged."""

from enum import StrEnum


class Tolerance(StrEnum):
    """Something that a client should have done otherwise, and that its mail did not suffer for."""

    BARE_LF = "bare-lf"
    LONE_CR = "lone-cr"
    LONG_LINE = "long-line"
    NO_BRACKETS = "no-brackets"
    PATH_SPACING = "path-spacing"
    TLS_ON_PLAIN_PORT = "tls-on-plain-port"
