"""What a reply or a failure means: the one place that knows.

Everything else in the relay carries facts. A `Fact` is what happened in a phase of the dialogue with SparkPost: an
`Answer` (it said something; over HTTPS an `HttpAnswer`) or a `Failure` (it did not, or not intelligibly). `classify`
turns a fact into one of four outcomes, with the scope it speaks about.

Three laws:
* A failure of transport is never permanent.
* A refused login is a fault of the login and never of the message (fact sheet 1.5).
* No intelligible reply once the dot, or the last octet of a request, has left is `Ambiguous`: SparkPost may have taken
  the message. It alone may lead to a second copy, so nothing may be sent again within the attempt because of it.

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
    any other                   no reply, by a defect of the relay          Deferred     message

Over HTTPS each request has one recipient (fact sheet 3.2, 3.3). Only an answer with an error code of SparkPost's own
can refuse a message for good, and a fault of the request as such is ours and no message's:

    RESPONSE  200                 the recipient was accepted                Delivered    message
    RESPONSE  200                 the recipient was rejected                Bounced      recipient
    RESPONSE  200, other 2yz      anything else                             Ambiguous    message
    RESPONSE  401                 any                                       Deferred     login      (LOGIN_REFUSED)
    RESPONSE  403                 any                                       Deferred     credential (NO_HTTP_GRANT)
    RESPONSE  420, any            any, "Exceed Sending Limit"               Deferred     credential (QUOTA)
    RESPONSE  400                 7000, 7001, 7004: the From domain         Bounced      message (UNCONFIGURED_DOMAIN)
    RESPONSE  400                 1901: not generated, on SparkPost's side  Deferred     message
    RESPONSE  400                 1902, 5002: the recipient                 Bounced      recipient
    RESPONSE  413, 422            1300 about the size                       Bounced      message    (TOO_LARGE)
    RESPONSE  422                 1300 about parsing, 1301                  Deferred     endpoint
    RESPONSE  422                 30xx: templates and MIME building         Deferred     message    (SMTP_ONLY)
    RESPONSE  400, 422            any other code                            Bounced      message
    RESPONSE  502, 504            any: a gateway knows no better            Ambiguous    message
    RESPONSE  429                 any                                       Deferred     credential (RATE_LIMIT)
    RESPONSE  other 5yz           any                                       Deferred     endpoint
    RESPONSE  any other           any                                       Deferred     endpoint
    RESPONSE                      no answer                                 Ambiguous    message
    any       SMTP_ONLY           HTTPS cannot carry the message            Deferred     message    (SMTP_ONLY)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple, Self

from relay.core.reply import EnhancedCode, Reply


class Phase(StrEnum):
    """Where in the dialogue with SparkPost.

    DOT begins when the final dot's octets are handed to the transport, RESPONSE when those that end a request are.
    """

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
    REQUEST = "request"  # of HTTP: on its way
    RESPONSE = "response"


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
    SMTP_ONLY = "smtp only"  # not sent, because HTTPS cannot carry it
    DEFECT = "defect"  # an error within the relay


class Cause(StrEnum):
    """Causes with a name of their own: they decide a hint or a delay."""

    LOGIN_REFUSED = "login refused"
    QUOTA = "quota"
    RECIPIENT_LIMIT = "too many recipients"
    UNCONFIGURED_DOMAIN = "unconfigured sending domain"
    MSYS_API = "X-MSYS-API"
    SUSPENDED = "account suspended"
    SANDBOX_DOMAIN = "sandbox domain"
    TOO_LARGE = "too large"
    NO_HTTP_GRANT = "no permission over HTTPS"  # of the key; SMTP may be open to it
    RATE_LIMIT = "too many requests"  # over HTTPS
    SMTP_ONLY = "only over SMTP"  # waits until a port of SMTP works


@dataclass(slots=True, unsafe_hash=True)
class Answer:
    """SparkPost's reply and the phase it answers. Whoever reads it never has to ask what it was about.

    As with replies, nobody changes facts and outcomes once they are made.
    """

    phase: Phase
    reply: Reply

    def __str__(self) -> str:
        return str(self.reply)


@dataclass(slots=True, unsafe_hash=True)
class HttpAnswer(Answer):
    """An answer of SparkPost's HTTP API, and as `reply` the SMTP reply that says the same to an application.

    `code` is that of SparkPost's first error, None if the answer has none in SparkPost's form; `accepted` says of a 200
    whether the recipient was accepted, None if that cannot be read.
    """

    status: int
    code: str | None
    text: str
    accepted: bool | None

    @classmethod
    def of(cls, status: int, *, code: str | None = None, text: str = "", accepted: bool | None = None) -> Self:
        """`text` is one line for people; of an accepted message it is `OK` and SparkPost's id, as in a 250."""
        meaning = _http_meaning(status, code, text, accepted)
        reply = Reply(meaning.reply, meaning.enhanced, text or f"HTTP status {status}")
        return cls(Phase.RESPONSE, reply, status, code, text, accepted)

    @property
    def elsewhere(self) -> bool:
        """Whether it says that SparkPost's API is not where it was asked for."""
        return 300 <= self.status < 400 or self.status in (404, 405)

    def __str__(self) -> str:
        return " ".join(part for part in ("HTTP", str(self.status), self.code, self.text) if part)


@dataclass(slots=True, unsafe_hash=True)
class Failure:
    """No usable reply in this phase. `detail` is one line for people: no secret, no stack."""

    phase: Phase
    kind: FailureKind
    detail: str

    def __str__(self) -> str:
        return self.detail


Fact = Answer | Failure


def defect(*, sent: bool) -> Failure:
    """What an attempt comes to in which the relay itself went wrong; `sent`: what ends a message may have left."""
    return Failure(Phase.RESPONSE if sent else Phase.REQUEST, FailureKind.DEFECT, "internal error in the relay")


# For recipients whose turn had not come when the attempt was to end.
STOPPING: Final = Failure(Phase.RCPT, FailureKind.WITHHELD, "not tried, as the relay is stopping")


@dataclass(slots=True, unsafe_hash=True)
class Outcome:
    """Base of the four; never made itself.

    `name` is as logs and metrics say it: delivered, deferred, bounced or ambiguous.
    """

    fact: Fact
    scope: Scope
    cause: Cause | None = None
    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__.lower()


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
        case HttpAnswer():
            meaning = _http_meaning(fact.status, fact.code, fact.text, fact.accepted)
            return meaning.kind(fact, meaning.scope, meaning.cause)
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
        case Failure(phase=Phase.DOT | Phase.RESPONSE):
            return Ambiguous(fact, Scope.MESSAGE)
        case Failure(kind=FailureKind.SMTP_ONLY):
            return Deferred(fact, Scope.MESSAGE, Cause.SMTP_ONLY)
        case Failure(kind=FailureKind.DEFECT):
            return Deferred(fact, Scope.MESSAGE)
        case Failure(kind=FailureKind.WITHHELD):
            return Deferred(fact, Scope.RECIPIENT)
        case Failure():
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


# -- HTTPS ------------------------------------------------------------------------------------------------------------


class _Meaning(NamedTuple):
    """What an HTTP answer comes to, and the SMTP reply that says so: its code, 4yz or 5yz as the outcome is."""

    kind: type[Outcome]
    scope: Scope
    reply: int
    enhanced: EnhancedCode
    cause: Cause | None = None


def _means(kind: type[Outcome], scope: Scope, reply: str, cause: Cause | None = None) -> _Meaning:
    said = Reply.parse(int(reply[:3]), [reply[4:]])
    assert said.enhanced is not None
    return _Meaning(kind, scope, said.code, said.enhanced, cause)


_TAKEN: Final = _means(Delivered, Scope.MESSAGE, "250 2.0.0")
_REJECTED: Final = _means(Bounced, Scope.RECIPIENT, "550 5.1.0")
_UNKNOWN: Final = _means(Ambiguous, Scope.MESSAGE, "451 4.4.2")
_OVER_QUOTA: Final = _means(Deferred, Scope.CREDENTIAL, "451 4.7.1", Cause.QUOTA)
_NOT_NOW: Final = _means(Deferred, Scope.ENDPOINT, "451 4.3.0")
_OUR_REQUEST: Final = _means(Deferred, Scope.ENDPOINT, "554 5.3.5")
_DOMAIN: Final = _means(Bounced, Scope.MESSAGE, "550 5.7.1", Cause.UNCONFIGURED_DOMAIN)
_SIZE: Final = _means(Bounced, Scope.MESSAGE, "552 5.3.4", Cause.TOO_LARGE)
_OPTIONS: Final = _means(Bounced, Scope.MESSAGE, "550 5.6.0", Cause.MSYS_API)
_NOT_OVER_HTTP: Final = _means(Deferred, Scope.MESSAGE, "451 4.6.0", Cause.SMTP_ONLY)
_REFUSED: Final = _means(Bounced, Scope.MESSAGE, "554 5.6.0")

_BY_STATUS: Final[Mapping[int, _Meaning]] = {
    401: _means(Deferred, Scope.LOGIN, "535 5.7.8", Cause.LOGIN_REFUSED),
    403: _means(Deferred, Scope.CREDENTIAL, "451 4.7.0", Cause.NO_HTTP_GRANT),
    409: _NOT_NOW,
    413: _SIZE,
    420: _OVER_QUOTA,
    429: _means(Deferred, Scope.CREDENTIAL, "451 4.7.0", Cause.RATE_LIMIT),
    502: _UNKNOWN,
    504: _UNKNOWN,
}
_BY_CODE: Final[Mapping[tuple[int, str], _Meaning]] = {
    (400, "1100"): _OPTIONS,  # a DKIM key that is not there or not verified
    (400, "1901"): _means(Deferred, Scope.MESSAGE, "451 4.3.0"),
    (400, "1902"): _means(Bounced, Scope.RECIPIENT, "550 5.7.1"),
    (400, "2008"): _means(Bounced, Scope.MESSAGE, "550 5.1.7"),
    (400, "5002"): _means(Bounced, Scope.RECIPIENT, "550 5.1.3"),
    (400, "7000"): _DOMAIN,
    (400, "7001"): _DOMAIN,
    (400, "7004"): _DOMAIN,
    (422, "1301"): _OUR_REQUEST,
    (422, "2002"): _OPTIONS,
    (422, "2007"): _OPTIONS,
    **{(422, code): _NOT_OVER_HTTP for code in ("3000", "3001", "3002", "3010", "3020")},
}
# One code stands for many faults: only the text tells them apart.
_BY_WORDS: Final[Mapping[str, _Meaning]] = {"message size": _SIZE, "ip pool": _OPTIONS, "parsing": _OUR_REQUEST}
_INVALID: Final = (422, "1300")


def _http_meaning(status: int, code: str | None, text: str, accepted: bool | None) -> _Meaning:
    """The row of the table; total."""
    words = text.lower()
    if 200 <= status < 300:
        if status != 200 or accepted is None:
            return _UNKNOWN
        return _TAKEN if accepted else _OVER_QUOTA if "exceed sending limit" in words else _REJECTED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if "exceed sending limit" in words:
        return _OVER_QUOTA
    if status >= 500:
        return _NOT_NOW
    if code is None or status not in (400, 422):
        return _OUR_REQUEST
    if (status, code) == _INVALID:
        return next((meaning for word, meaning in _BY_WORDS.items() if word in words), _REFUSED)
    if (status, code) in _BY_CODE:
        return _domain(words, _BY_CODE[status, code])
    return _REFUSED._replace(cause=cause_of(Reply(_REFUSED.reply, _REFUSED.enhanced, text)))


def _domain(words: str, meaning: _Meaning) -> _Meaning:
    """The sandbox domain shows up as an unconfigured one: the more telling name wins."""
    return meaning._replace(cause=Cause.SANDBOX_DOMAIN) if "sparkpostbox" in words else meaning
