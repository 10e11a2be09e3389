"""The log: structured events with a fixed vocabulary, as JSON lines or for a terminal.

Every event name is a constant here with its meaning, and the documentation lists them; nothing logs a free-form
sentence. Secrets are masked by their type before anything is rendered; addresses are shown, masked or hashed as
`log.addresses` says.
"""

import asyncio
import hashlib
import logging
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from relay.observe.json_log import Edit, from_level
from relay.observe.lines import LineWriter

LISTENER_NO_IPV6: Final = "listener.no_ipv6"
LISTENER_UNCLAIMED: Final = "listener.unclaimed"
LINK_OPEN: Final = "link.open"
LINK_AUTH: Final = "link.auth"
LINK_AUTH_CLOSED: Final = "link.auth_closed"
LINK_CLOSE: Final = "link.close"
LINK_NO_HEADER: Final = "link.no_header"
TX_ACCEPTED: Final = "tx.accepted"
TX_REJECTED: Final = "tx.rejected"
QUEUE_DEFERRED: Final = "queue.deferred"
QUEUE_BOUNCED: Final = "queue.bounced"
QUEUE_EXPIRED: Final = "queue.expired"
QUEUE_HELD: Final = "queue.held"
QUEUE_RECLAIMED: Final = "queue.reclaimed"
QUEUE_COMMAND: Final = "queue.command"
SPOOL_AWAITED: Final = "spool.awaited"
SPOOL_DOWN: Final = "spool.down"
SPOOL_UP: Final = "spool.up"
SPOOL_BALLAST: Final = "spool.ballast"
SPOOL_MIGRATED: Final = "spool.migrated"
SPOOL_QUARANTINED: Final = "spool.quarantined"
ATTEMPT_DONE: Final = "attempt.done"
UPSTREAM_FALLBACK: Final = "upstream.fallback"
UPSTREAM_PIPELINING: Final = "upstream.pipelining"
UPSTREAM_SPARED: Final = "upstream.spared"
UPSTREAM_DOWN: Final = "upstream.down"
UPSTREAM_UP: Final = "upstream.up"
UPSTREAM_NO_GRANT: Final = "upstream.no_grant"
CREDENTIAL_REFUSED: Final = "credential.refused"
CREDENTIAL_RESTORED: Final = "credential.restored"
CREDENTIAL_ROTATED: Final = "credential.rotated"
CONFIG_RELOADED: Final = "config.reloaded"
TOLERANCE: Final = "tolerance"
RELAY_STARTED: Final = "relay.started"
RELAY_STOPPING: Final = "relay.stopping"
RELAY_STOPPED: Final = "relay.stopped"
ADMIN_UNAVAILABLE: Final = "admin.unavailable"
LOG_INTERRUPTED: Final = "log.interrupted"
INTERNAL_ERROR: Final = "internal.error"

EVENTS: Final[Mapping[str, str]] = {
    LISTENER_NO_IPV6: "a listener takes IPv4 alone, as this host has no IPv6",
    LISTENER_UNCLAIMED: "systemd passes a socket that no listener takes: who connects to it waits in vain",
    LINK_OPEN: "a client has connected to a listener",
    LINK_AUTH: "a client has logged in, or failed to",
    LINK_AUTH_CLOSED: "AUTH is closed to a client or to a login for a time, because of failed logins",
    LINK_NO_HEADER: "a proxy has not said whose connection it is; nobody is served on it",
    LINK_CLOSE: "a client connection has ended; why, and how many messages it brought",
    TX_ACCEPTED: "a message was accepted: the relay answered 250 after the final dot",
    TX_REJECTED: "a command or a message of a client was refused, with the reply it got",
    QUEUE_DEFERRED: "a stored message could not be sent now and will be tried again",
    QUEUE_BOUNCED: "a recipient of a stored message was refused for good",
    QUEUE_EXPIRED: "a recipient of a stored message was given up, because the message is over age",
    QUEUE_HELD: "a stored message waits for the operator, and why",
    QUEUE_RECLAIMED: "an attempt was broken off by the end of the relay; its message may be sent twice",
    QUEUE_COMMAND: "an operator has moved a stored message",
    SPOOL_AWAITED: "another process has the spool; it is waited for a little at the start",
    SPOOL_DOWN: "the spool cannot be written; mail that needs it is refused for now",
    SPOOL_UP: "the spool can be written again",
    SPOOL_BALLAST: "the disk is full: what was put by for mail that is stored already was given up",
    SPOOL_MIGRATED: "the spool was brought up to the schema of this version",
    SPOOL_QUARANTINED: "something in the spool was damaged or nobody's, and was put aside",
    ATTEMPT_DONE: "one attempt at one recipient is over, with everything that is known about it",
    UPSTREAM_FALLBACK: "mail now goes by another port, or by HTTPS, because the preferred one is blocked",
    UPSTREAM_PIPELINING: "an endpoint's replies did not fit; less is said to it before it has answered, from now on",
    UPSTREAM_SPARED: "an upstream has asked to be spared: it gets fewer connections, and more again as it takes mail",
    UPSTREAM_DOWN: "no port of an upstream can be used, or its HTTPS",
    UPSTREAM_UP: "an upstream that was down can be used again",
    UPSTREAM_NO_GRANT: "HTTPS is no way for a credential, because its key lacks the permission",
    CREDENTIAL_REFUSED: "SparkPost refused a login",
    CREDENTIAL_RESTORED: "SparkPost accepts a login that it had refused",
    CREDENTIAL_ROTATED: "a credential has another key from now on, because its file has changed, or cannot be read",
    CONFIG_RELOADED: "a listener has another certificate from now on, as its files have changed, or cannot be used",
    TOLERANCE: "a leniency was shown to a client",
    RELAY_STARTED: "all listeners are open",
    RELAY_STOPPING: "a signal to stop has come; messages in flight are finished first",
    RELAY_STOPPED: "the last message is done and all connections are closed",
    ADMIN_UNAVAILABLE: "the admin server is not where it would be by default, and why; mail is not affected",
    LOG_INTERRUPTED: "so many lines of the log could not be written, and are lost or late; mail is not affected",
    INTERNAL_ERROR: "a defect of the relay; the client was told 451 and nothing of the cause, or stored mail waits",
}

# Fields that hold e-mail addresses, single or in a list.
_ADDRESS_FIELDS: Final = ("reverse_path", "recipient", "recipients")
# Fields of text in which somebody may have repeated one, ours as well as SparkPost; many a login is one. It is looked
# for where a word, or what is quoted, begins and nowhere within, and each is read once: the time that takes grows with
# the text, and not with its square.
_TEXT_FIELDS: Final = ("reply", "reason", "login")
_ADDRESS: Final = re.compile(
    r'(?:(?<!\\)"(?:[^"\\]|\\.)*+"|(?<![^\s<>(),;:"@])[^\s<>(),;:"@]++)@(?:\[[^\[\]\s@]*+\]|\w[\w-]*(?:\.\w[\w-]*)*)'
)


def masked(address: str) -> str:
    """`john@example.com` → `j***@example.com`: enough to recognise, not enough to write to."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}***{at}{domain}" if at else address


def hashed(address: str) -> str:
    """The domain in clear and a digest of the whole address: the same address always gives the same text."""
    _, at, domain = address.rpartition("@")
    return f"{hashlib.sha256(address.encode()).hexdigest()[:12]}{at}{domain}" if at else address


_ADDRESS_STYLES: Final[Mapping[str, Callable[[str], str] | None]] = {"plain": None, "masked": masked, "hashed": hashed}


def configure(
    *,
    form: str,
    level: str,
    addresses: str,
    stream: TextIO = sys.stderr,
    loop: asyncio.AbstractEventLoop | None = None,
) -> None:
    """Set up logging for the process.

    `form`: "auto" (console on a terminal, else JSON), "console" or "json". `level`: "debug" … "error". `addresses`:
    "plain", "masked" or "hashed". `loop`: the one that runs, where it is the only one that ever will. Its lines wait
    for the end of its turn (see `lines`), and loggers need not ask at each event whether the log was set up anew.
    """
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    restyle = partial(_restyle_addresses, _ADDRESS_STYLES[addresses])
    writer = LineWriter(stream, _interrupted, loop)
    structlog.configure(
        processors=[] if form == "json" else _for_a_terminal(restyle),
        wrapper_class=from_level(level, restyle) if form == "json" else structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=loop is not None,
    )
    # aiosmtpd logs every connection and every command on "mail.log", credentials included at debug level; the relay's
    # own events say what is worth saying.
    logging.getLogger("mail").setLevel(logging.CRITICAL)
    # aiohttp tells of requests that make no sense, in lines of its own.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)


def _interrupted(missing: int) -> None:
    structlog.get_logger().warning(LOG_INTERRUPTED, lines=missing)


def _for_a_terminal(restyle: Edit) -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda logger, method, event: restyle(event),
        structlog.dev.ConsoleRenderer(pad_event_to=18, exception_formatter=structlog.dev.plain_traceback),
    ]


def _restyle_addresses(style: Callable[[str], str] | None, event: EventDict) -> EventDict:
    if style is None:
        return event
    for field in _ADDRESS_FIELDS:
        value = event.get(field)
        if isinstance(value, str):
            event[field] = style(value)
        elif isinstance(value, (list, tuple)):
            event[field] = [style(item) for item in value]
    for field in _TEXT_FIELDS:
        value = event.get(field)
        if isinstance(value, str) and "@" in value:
            event[field] = _ADDRESS.sub(lambda found: style(found[0]), value)
    return event
