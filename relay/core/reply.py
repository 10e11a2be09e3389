"""SMTP replies as values, and the catalogue of every reply the relay itself can utter.

A reply is a code, an enhanced status code (RFC 3463) and one line of text, and the three never travel glued together.
Replies to the application are one ASCII line of at most 512 octets (RFC 5321 §4.5.3.1.5).
"""

import math
import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, NamedTuple, Self

from relay.core.limit import Limit

MAX_LINE: Final = 512  # octets, CRLF included

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


class EnhancedCode(NamedTuple):
    """class.subject.detail of RFC 3463."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


@dataclass(slots=True, unsafe_hash=True)
class Reply:
    """One SMTP reply: `code` 200-599, `enhanced` where the reply has one, `text` of one line. Nobody changes them.

    `limit` is the limit of ours that the client has met, where that is the reason.
    """

    code: int
    enhanced: EnhancedCode | None
    text: str
    limit: Limit | None = field(default=None, compare=False)
    _wire: bytes | None = field(default=None, init=False, repr=False, compare=False)  # worked out once

    @classmethod
    def parse(cls, code: int, lines: list[str]) -> Self:
        """A reply from the wire: the enhanced code is split off each line and the lines are joined by a space.

        An enhanced code whose class contradicts the reply code stays in the text (RFC 2034 §4 wants them to agree).
        """
        enhanced = None
        texts = []
        for line in lines:
            match = _ENHANCED.match(line)
            if match and int(match[1]) == code // 100:
                enhanced = enhanced or EnhancedCode(int(match[1]), int(match[2]), int(match[3]))
                line = line[match.end() :]
            if line:
                texts.append(line)
        return cls(code, enhanced, " ".join(texts))

    @property
    def positive(self) -> bool:
        return self.code < 400

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def with_text(self, text: str) -> Self:
        return replace(self, text=text)

    def __str__(self) -> str:
        enhanced = f" {self.enhanced}" if self.enhanced is not None else ""
        return f"{self.code}{enhanced} {self.text}" if self.text else f"{self.code}{enhanced}"

    def wire(self) -> bytes:
        """The reply as one line of printable ASCII; text that would not fit is cut, and shows that it was.

        The space behind the code is sent without a text too (RFC 5321 §4.2; RFC 4954 §4 demands it of an empty 334).
        """
        if self._wire is None:
            line = str(self) if self.enhanced or self.text else f"{self.code} "
            if not (line.isascii() and line.isprintable()):
                line = _UNPRINTABLE.sub("?", line)
            if len(line) > MAX_LINE - 2:
                line = line[: MAX_LINE - 5] + "..."
            self._wire = line.encode("ascii") + b"\r\n"
        return self._wire


def multiline(code: int, lines: list[str]) -> bytes:
    """The octets of a multi-line reply (EHLO): one write, so that a client that reads once sees all of it."""
    head = [f"{code}-{line}\r\n" for line in lines[:-1]]
    return "".join([*head, f"{code} {lines[-1]}\r\n"]).encode("ascii")


def _reply(code: int, enhanced: str, text: str, limit: Limit | None = None) -> Reply:
    return Reply(code, _enhanced(enhanced), text, limit)


def _span(seconds: float) -> str:
    """A time to wait, as people say it; never less than it is."""
    whole = max(1, math.ceil(seconds))
    return f"{whole} s" if whole < 120 else f"{math.ceil(whole / 60)} min"


@cache
def _enhanced(code: str) -> EnhancedCode:
    """An enhanced code of the catalogue."""
    klass, subject, detail = code.split(".")
    return EnhancedCode(int(klass), int(subject), int(detail))


# -- the session ------------------------------------------------------------------------------------------------------

OK: Final = _reply(250, "2.0.0", "ok")
BYE: Final = _reply(221, "2.0.0", "bye")
HELP: Final = _reply(214, "2.0.0", "commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP QUIT")
VRFY: Final = _reply(252, "2.5.0", "send some mail, the answer comes after the final dot")
HELLO_FIRST: Final = _reply(503, "5.5.1", "say EHLO first")
HELLO_NEEDS_NAME: Final = _reply(501, "5.5.4", "EHLO and HELO need a host name")
UNKNOWN_COMMAND: Final = _reply(500, "5.5.2", "command not recognised")
NOT_IMPLEMENTED: Final = _reply(502, "5.5.1", "command not implemented")
NO_PARAMETERS: Final = _reply(501, "5.5.4", "this command takes no parameters")
LINE_TOO_LONG: Final = _reply(500, "5.5.2", "command line too long")
MIXED_LINE_ENDS: Final = _reply(500, "5.5.2", "line ends changed within the session")
TLS_ON_PLAIN_PORT: Final = _reply(
    500, "5.5.2", "this port begins in plain text: choose STARTTLS or no encryption, or use an implicit TLS listener"
)
HTTP_SPOKEN: Final = _reply(554, "5.5.1", "this is an SMTP server, HTTP is not spoken here")
TOO_MANY_ERRORS: Final = _reply(421, "4.7.0", "too many errors, closing the connection", Limit.ERRORS)
TOO_MANY_COMMANDS: Final = _reply(
    421, "4.7.0", "too many commands without a message, closing the connection", Limit.COMMANDS
)
IDLE_TOO_LONG: Final = _reply(421, "4.4.2", "idle too long, closing the connection", Limit.SILENCE)
TOO_SLOW: Final = _reply(421, "4.4.2", "too slow, closing the connection", Limit.SLOWNESS)
PROXY_HEADER: Final = _reply(421, "4.3.5", "a PROXY header is expected from this address", Limit.PROXY_HEADER)
SHUTTING_DOWN: Final = _reply(421, "4.3.2", "the relay is shutting down")
INTERNAL_ERROR: Final = _reply(451, "4.3.0", "internal error in the relay, try again later")


@cache
def greeting(hostname: str) -> Reply:
    return Reply(220, None, f"{hostname} ESMTP sparkpost-relay")


@cache
def hello(hostname: str) -> Reply:
    return Reply(250, None, hostname)


def welcome(hostname: str, offered: list[str]) -> Reply:
    """The reply to EHLO, a line for each extension behind the first one (RFC 5321 §4.1.1.1)."""
    answer = Reply(250, None, hostname)
    answer._wire = multiline(250, [hostname, *offered])
    return answer


def not_in_networks(address: str) -> Reply:
    return _reply(554, "5.7.1", f"{address} is not in this listener's networks", Limit.NETWORKS)


def too_many_connections(limit: int) -> Reply:
    return _reply(421, "4.7.0", f"more than {limit} connections, try again later", Limit.CONNECTIONS)


def too_many_connections_from(address: str, limit: int) -> Reply:
    return _reply(
        421,
        "4.7.0",
        f"more than {limit} connections from {address}, try again later",
        Limit.CONNECTIONS_PER_CLIENT,
    )


# -- STARTTLS and AUTH ------------------------------------------------------------------------------------------------

TLS_GO: Final = _reply(220, "2.0.0", "ready to start TLS")
TLS_NOT_OFFERED: Final = _reply(502, "5.5.1", "STARTTLS is not offered on this listener")
TLS_ACTIVE: Final = _reply(503, "5.5.1", "TLS is already active")
TLS_PIPELINED: Final = _reply(501, "5.5.2", "nothing may follow STARTTLS before its reply")
TLS_REQUIRED: Final = _reply(530, "5.7.0", "issue STARTTLS first")

AUTH_OK: Final = _reply(235, "2.7.0", "authentication successful")
AUTH_FAILED: Final = _reply(535, "5.7.8", "user name or password is wrong")
AUTH_NOT_OFFERED: Final = _reply(502, "5.5.1", "AUTH is not offered on this listener")
AUTH_MECHANISM_UNKNOWN: Final = _reply(504, "5.5.4", "this mechanism is not offered: use PLAIN or LOGIN")
AUTH_MALFORMED: Final = _reply(501, "5.5.2", "malformed AUTH: base64 expected")
AUTH_PLAIN_MALFORMED: Final = _reply(501, "5.5.2", "malformed AUTH PLAIN: NUL, user name, NUL, password expected")
AUTH_BAD_USER: Final = _reply(501, "5.5.2", "AUTH needs a user name of at most 320 printable characters")
AUTH_FOR_ANOTHER: Final = _reply(535, "5.7.8", "the authorization identity must be empty or the user name")
AUTH_CANCELLED: Final = _reply(501, "5.7.0", "authentication cancelled")
AUTH_LINE_TOO_LONG: Final = _reply(500, "5.5.6", "authentication exchange line is too long")
AUTH_ALREADY: Final = _reply(503, "5.5.1", "already authenticated")
AUTH_IN_TRANSACTION: Final = _reply(503, "5.5.1", "AUTH is not permitted within a mail transaction")
AUTH_NEEDS_TLS: Final = _reply(538, "5.7.11", "issue STARTTLS before AUTH")
AUTH_REQUIRED: Final = _reply(530, "5.7.0", "authentication required")
AUTH_FAILURES: Final = _reply(421, "4.7.0", "too many failed logins, closing the connection", Limit.AUTH_FAILURES)


def auth_challenge(challenge: str) -> Reply:
    """334 with an already base64-encoded challenge (RFC 4954 §4)."""
    return Reply(334, None, challenge)


def auth_banned(seconds: float) -> Reply:
    """Whether the password is right is not even looked at (RFC 4954 §6, 454)."""
    return _reply(454, "4.7.0", f"too many failed logins, try again in {_span(seconds)}", Limit.AUTH_BAN)


def auth_unavailable(cause: str) -> Reply:
    """Passthrough: SparkPost could not be asked whether the key is good (RFC 4954 §6, 454)."""
    return _reply(454, "4.7.0", f"the login could not be checked with SparkPost: {cause}")


# -- the envelope -----------------------------------------------------------------------------------------------------

MAIL_OK: Final = _reply(250, "2.1.0", "reverse-path ok")
RCPT_OK: Final = _reply(250, "2.1.5", "forward-path ok")
RCPT_AGAIN: Final = _reply(250, "2.1.5", "forward-path ok, and named before")
MAIL_SYNTAX: Final = _reply(501, "5.5.4", "syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX: Final = _reply(501, "5.5.4", "syntax: RCPT TO:<address> [parameters]")
MAIL_NESTED: Final = _reply(503, "5.5.1", "nested MAIL: a transaction is already open")
MAIL_FIRST: Final = _reply(503, "5.5.1", "say MAIL first")
RCPT_FIRST: Final = _reply(503, "5.5.1", "no valid recipients")
NULL_RECIPIENT: Final = _reply(501, "5.1.3", "a recipient needs an address")
SMTPUTF8_UNSUPPORTED: Final = _reply(553, "5.6.7", "internationalised addresses (SMTPUTF8) cannot be sent on")
BINARY_UNSUPPORTED: Final = _reply(501, "5.5.4", "BODY=BINARYMIME needs CHUNKING, which is not offered")
NO_IDENTITY: Final = _reply(550, "5.7.1", "no identity of this relay matches this sender and client")


def sender_syntax(problem: str) -> Reply:
    return _reply(501, "5.1.7", f"bad sender address: {problem}")


def recipient_syntax(problem: str) -> Reply:
    return _reply(501, "5.1.3", f"bad recipient address: {problem}")


def parameter_unknown(keyword: str) -> Reply:
    return _reply(555, "5.5.4", f"parameter {keyword} is not recognised")


def parameter_malformed(keyword: str) -> Reply:
    return _reply(501, "5.5.4", f"parameter {keyword} has a value that cannot be understood")


def too_many_recipients(limit: int) -> Reply:
    return _reply(452, "4.5.3", f"more than {limit} recipients, send the rest in another message", Limit.RECIPIENTS)


def too_many_messages(identity: str, limit: int, period: str, wait: float) -> Reply:
    """`period` is "minute" or "day"; `wait` the seconds until there is room again."""
    return _reply(
        451,
        "4.7.1",
        f"identity {identity} may send {limit} messages a {period}, try again in {_span(wait)}",
        Limit.MESSAGE_RATE,
    )


def sender_not_allowed(kind: str, address: str, identity: str) -> Reply:
    """`kind` is "reverse-path" or "header From"."""
    return _reply(550, "5.7.1", f"{kind} {address} is not among the senders of identity {identity}")


def header_from_unusable(identity: str) -> Reply:
    return _reply(
        550, "5.7.1", f"the message needs a single readable header From: identity {identity} lists its senders"
    )


# -- the content ------------------------------------------------------------------------------------------------------

DATA_GO: Final = Reply(354, None, "end data with <CR><LF>.<CR><LF>")
HEADER_TOO_LARGE: Final = _reply(552, "5.3.4", "header section over 1 MB")
LOOP: Final = _reply(554, "5.4.6", "too many Received lines: this looks like a mail loop")
BARE_LF_STALL: Final = _reply(451, "4.5.2", "bare LF before the final dot: this session began with CRLF")


SPOOL_UNAVAILABLE: Final = _reply(451, "4.3.0", "the relay's spool is unavailable, try again later")
NO_ROOM: Final = _reply(452, "4.3.1", "the relay has no room for this message, try again later")
NO_MEMORY: Final = _reply(452, "4.3.1", "the relay has no room for this message, try again later", Limit.DATA_MEMORY)


def not_to_be_asked(what: str, identity: str) -> Reply:
    """`what` a message asks of SparkPost that its identity does not let applications ask for."""
    return _reply(550, "5.7.1", f"identity {identity} does not let applications set {what}: see its sparkpost.accept")


def smtp_api_unusable(problem: str) -> Reply:
    """`problem` in SparkPost's words, which say X-MSYS-API."""
    return _reply(550, "5.6.0", problem)


def line_too_long(limit: int) -> Reply:
    return _reply(554, "5.6.0", f"a line of the message is over {limit} octets", Limit.LINE_LENGTH)


def message_too_large(limit: int) -> Reply:
    return _reply(552, "5.3.4", f"message over {limit} octets", Limit.MESSAGE_SIZE)


# -- what became of a message, in our words where SparkPost's own do not fit ------------------------------------------


def queued(queue_id: str) -> Reply:
    return _reply(250, "2.0.0", f"queued as {queue_id}")


def partly_refused(queue_id: str, refused: int, recipients: int) -> Reply:
    """SparkPost has refused some recipients for good; the others are served or queued."""
    return _reply(
        250,
        "2.0.0",
        f"accepted as {queue_id}, but {refused} of {recipients} recipients were refused: see queue show {queue_id}",
    )


def sparkpost_unreachable(cause: str, queue_id: str) -> Reply:
    return _reply(451, "4.4.1", f"SparkPost cannot be reached: {cause} ({queue_id})")


def login_refused(credential: str, said: str, queue_id: str) -> Reply:
    return _reply(451, "4.3.5", f"SparkPost refused the relay's credential {credential}: {said} ({queue_id})")


def own_key_refused(said: str, queue_id: str) -> Reply:
    """The key is the one that the application itself presented, and no credential of ours."""
    return _reply(
        451, "4.3.5", f"SparkPost refused the API key that the application logged in with: {said} ({queue_id})"
    )


def relay_misconfigured(said: str, queue_id: str) -> Reply:
    """SparkPost answered something that is our fault and not the message's (design 3.3)."""
    return _reply(451, "4.3.5", f"SparkPost and the relay disagree: {said} ({queue_id})")


def message_not_sent(queue_id: str) -> Reply:
    """A defect of ours kept it back."""
    return INTERNAL_ERROR.with_text(f"{INTERNAL_ERROR.text} ({queue_id})")


def maybe_delivered(cause: str, queue_id: str) -> Reply:
    return _reply(
        451, "4.4.2", f"SparkPost fell silent after the final dot ({cause}), it may be delivered ({queue_id})"
    )
