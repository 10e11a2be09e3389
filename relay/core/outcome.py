"""What a reply or a failure means: the one place that knows.

Everything else in the relay carries facts. A `Fact` is what happened in a phase of the dialogue with SparkPost: an
`Answer` (it said something) or a `Failure` (it did not, or not intelligibly). `classify` turns a fact into one of four
outcomes, with the scope it speaks about.

Three laws:
* A failure of transport is never permanent.
* A refused login is a fault of the login and never of the message (fact sheet 1.5).
* No intelligible reply once the dot has left is `Ambiguous`: SparkPost may have taken the message. It alone may lead to
  a second copy, so nothing may be sent again within the attempt because of it.

    phase                       reply                                       outcome      scope
    BANNER, EHLO, STARTTLS      any refusal                                 Deferred     endpoint
    AUTH                        4yz                                         Deferred     endpoint
    AUTH                        5yz                                         Deferred     login      (LOGIN_REFUSED)
    MAIL … DOT                  421, 500, 502, 503                          Deferred     endpoint
    MAIL … DOT                  530, 534, 535, 538, "relaying denied"       Deferred     login      (LOGIN_REFUSED)
    MAIL … DOT                  any, "Exceed Sending Limit"                 Deferred     credential (QUOTA)
    RCPT                        452, 552 with x.5.3 or no enhanced code     Deferred     recipient  (RECIPIENT_LIMIT)
    MAIL, DATA, DOT / RCPT      other 4yz                                   Deferred     message / recipient
    MAIL, DATA, DOT / RCPT      other 5yz                                   Bounced      message / recipient
    DOT                         250                                         Delivered    message
    DOT                         no reply, or a positive one that is not 250 Ambiguous    message
    any other                   no reply                                    Deferred     endpoint
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relay.core.reply import Reply


class Phase(StrEnum):
    """Where in the dialogue with SparkPost. DOT begins when the final dot's octets are handed to the transport."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


class Scope(StrEnum):
    """What a fact speaks about; a delay or a circuit applies to just that."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    LOGIN = "login"
    CREDENTIAL = "credential"
    ENDPOINT = "endpoint"


class FailureKind(StrEnum):
    """How an answer failed to come."""

    REFUSED = "refused"  # connection refused or host unreachable
    TIMEOUT = "timeout"
    LOST = "lost"  # closed or reset
    UNVERIFIED = "unverified"  # a certificate that does not verify
    HANDSHAKE = "handshake"  # TLS did not come about
    NOT_OFFERED = "not offered"  # STARTTLS or AUTH LOGIN missing from EHLO
    PROTOCOL = "protocol"  # octets that are no reply, or a reply its command does not admit
    UNRESOLVED = "unresolved"  # the name has no address
    WITHHELD = "withheld"  # not sent because another recipient of the message was refused
    DEADLINE = "deadline"  # the time the application will wait ran out
    LEASE = "lease"  # the dot was not sent, because the claim on the message was running out


class Cause(StrEnum):
    """Causes with a name of their own: they decide a hint or a delay."""

    LOGIN_REFUSED = "login refused"
    QUOTA = "quota"
    RECIPIENT_LIMIT = "too many recipients"
    UNCONFIGURED_DOMAIN = "unconfigured sending domain"
    MSYS_API = "X-MSYS-API"
    SUSPENDED = "account suspended"
    SANDBOX_DOMAIN = "sandbox domain"


@dataclass(frozen=True, slots=True)
class Answer:
    """SparkPost's reply and the phase it answers. Whoever reads it never has to ask what it was about."""

    phase: Phase
    reply: Reply

    def __str__(self) -> str:
        return str(self.reply)


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable reply in this phase. `detail` is one line for people: no secret, no stack."""

    phase: Phase
    kind: FailureKind
    detail: str

    def __str__(self) -> str:
        return self.detail


Fact = Answer | Failure


@dataclass(frozen=True, slots=True)
class Outcome:
    """Base of the four; never made itself."""

    fact: Fact
    scope: Scope
    cause: Cause | None = None

    @property
    def name(self) -> str:
        """As logs and metrics say it: delivered, deferred, bounced or ambiguous."""
        return type(self).__name__.lower()


class Delivered(Outcome):
    """SparkPost said 250 to the final dot: the responsibility is its own now."""


class Deferred(Outcome):
    """Not now. Trying again later is right."""


class Bounced(Outcome):
    """SparkPost will never take this; trying again is pointless."""


class Ambiguous(Outcome):
    """The dot was sent and no reply came: it may have been delivered."""


_TRANSACTION: Final = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT})
_OUR_FAULT: Final = frozenset({421, 500, 502, 503})
_LOGIN_FAULT: Final = frozenset({530, 534, 535, 538})

# Text is looked at only for causes that have no code of their own (fact sheet 1.4, 1.5).
_CAUSES: Final[Mapping[str, Cause]] = {
    "exceed sending limit": Cause.QUOTA,
    "unconfigured sending domain": Cause.UNCONFIGURED_DOMAIN,
    "x-msys-api": Cause.MSYS_API,
    "smtpapi": Cause.MSYS_API,
    "suspended": Cause.SUSPENDED,
    "sparkpostbox": Cause.SANDBOX_DOMAIN,
    "sandbox": Cause.SANDBOX_DOMAIN,
}


def cause_of(reply: Reply) -> Cause | None:
    """The named cause a refusal speaks of, if any."""
    text = reply.text.lower()
    # The sandbox domain shows up as an unconfigured domain: the more telling name wins.
    if "sparkpostbox" in text:
        return Cause.SANDBOX_DOMAIN
    return next((cause for words, cause in _CAUSES.items() if words in text), None)


def classify(fact: Fact) -> Outcome:
    """The meaning of one fact. Total: every fact has exactly one outcome."""
    match fact:
        case Failure(phase=Phase.DOT):
            return Ambiguous(fact, Scope.MESSAGE)
        case Failure(kind=FailureKind.WITHHELD):
            return Deferred(fact, Scope.RECIPIENT)
        case Failure():
            return Deferred(fact, Scope.ENDPOINT)
        case Answer(phase=Phase.DOT, reply=reply) if reply.code == 250:
            return Delivered(fact, Scope.MESSAGE)
        case Answer(phase=Phase.DOT, reply=reply) if reply.positive:
            return Ambiguous(fact, Scope.MESSAGE)
        case Answer(phase=Phase.AUTH, reply=reply) if reply.permanent:
            return Deferred(fact, Scope.LOGIN, Cause.LOGIN_REFUSED)
        case Answer(phase=phase) if phase in _TRANSACTION:
            return _transaction_refusal(fact)
        case Answer():
            return Deferred(fact, Scope.ENDPOINT)


def _transaction_refusal(answer: Answer) -> Outcome:
    """A refusal within MAIL … DOT."""
    reply, phase = answer.reply, answer.phase
    cause = cause_of(reply)
    if cause is Cause.QUOTA:
        return Deferred(answer, Scope.CREDENTIAL, cause)
    if reply.code in _LOGIN_FAULT or "relaying denied" in reply.text.lower():
        return Deferred(answer, Scope.LOGIN, Cause.LOGIN_REFUSED)
    if reply.code in _OUR_FAULT or reply.positive:
        return Deferred(answer, Scope.ENDPOINT)
    scope = Scope.RECIPIENT if phase is Phase.RCPT else Scope.MESSAGE
    if phase is Phase.RCPT and _too_many_recipients(reply):
        return Deferred(answer, scope, Cause.RECIPIENT_LIMIT)
    return Bounced(answer, scope, cause) if reply.permanent else Deferred(answer, scope, cause)


def _too_many_recipients(reply: Reply) -> bool:
    """452, and the 552 that RFC 5321 §4.5.3.1.10 tells clients to read as 452, when they speak of the recipients."""
    if reply.code not in {452, 552}:
        return False
    return reply.enhanced is None or (reply.enhanced.subject, reply.enhanced.detail) == (5, 3)
