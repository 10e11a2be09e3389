"""The leniencies that are shown to clients, by the names under which they are counted and logged."""

from enum import StrEnum


class Tolerance(StrEnum):
    """Something that a client should have done otherwise, and that its mail did not suffer for."""

    AUTH_FORM = "auth-form"
    BARE_LF = "bare-lf"
    COMMAND_SPACING = "command-spacing"
    EIGHT_BIT = "eight-bit"
    HELO_NAME = "helo-name"
    HELO_ONLY = "helo-only"
    LONE_CR = "lone-cr"
    LONG_LINE = "long-line"
    NO_BRACKETS = "no-brackets"
    NO_DATE = "no-date"
    NO_DOMAIN = "no-domain"
    NO_MESSAGE_ID = "no-message-id"
    NUL = "nul"
    OLD_TLS = "old-tls"
    PATH_SPACING = "path-spacing"
    TLS_ON_PLAIN_PORT = "tls-on-plain-port"
    TRAILING_DOT = "trailing-dot"
