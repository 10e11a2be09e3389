"""What we answer to MAIL, RCPT and DATA, and the envelope that results. Pure: no octets, no sockets, no clock.

A transaction lasts from MAIL to the final dot (RFC 5321 §3.3). Whose mail it is gets decided at MAIL, when login,
listener, network and reverse-path are all known; the decision stands for the whole transaction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from relay.core import reply
from relay.core.envelope import (
    Address,
    Envelope,
    Home,
    InternationalAddress,
    PathError,
    Recipient,
    ReversePath,
    parse_parameters,
    read_path,
)
from relay.core.notification import is_envelope_id, is_notify, is_original_recipient
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.policy import admission
from relay.policy.identity import Decision

# Parameters of extensions that are not offered but that clients send all the same; taken, so that their mail passes.
_MAIL_KEYWORDS: Final = frozenset({"SIZE", "BODY", "AUTH", "RET", "ENVID", "SMTPUTF8"})
_RCPT_KEYWORDS: Final = {"NOTIFY": is_notify, "ORCPT": is_original_recipient}

_SPACED: Final = frozenset({Tolerance.COMMAND_SPACING})
_IN_ORDER: Final[frozenset[Tolerance]] = frozenset()

Parameters = dict[str, str | None]
_Meant = tuple[str, str, str | None, str | None]
Choose = Callable[[ReversePath], Decision | Reply]


@dataclass(frozen=True, slots=True)
class EnvelopeLimits:
    """`message_size` in octets, `recipients` per message."""

    message_size: int
    recipients: int


class Transaction:
    """One mail transaction after another within a session; `choose` decides whose mail it is.

    `home` is where names without a domain belong.
    """

    __slots__ = ("_choose", "_home", "_known", "_limits", "_recipients", "_sender", "tolerances")

    def __init__(self, limits: EnvelopeLimits, choose: Choose, home: Home) -> None:
        self._limits = limits
        self._home = home
        self._choose = choose
        self.tolerances: set[Tolerance] = set()
        self._known: _Accepted | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the transaction: RSET, EHLO, the end of data."""
        self._sender: _Accepted | None = None
        self._recipients: dict[_Meant, Recipient] = {}

    def forget(self) -> None:
        """The client is somebody else from now on."""
        self.reset()
        self._known = None

    @property
    def open(self) -> bool:
        """Between MAIL and the end of data."""
        return self._sender is not None

    def mail(self, argument: str) -> Reply:
        """MAIL: `argument` is everything behind the verb."""
        if self._sender is not None:
            return reply.MAIL_NESTED
        sender = self._known
        if sender is None or sender.argument != argument:  # many say the same MAIL again and again
            accepted = self._accept(argument)
            if isinstance(accepted, Reply):
                return accepted
            sender = accepted
        self._sender = sender
        self._known = sender if sender.decision.rate is None else None  # next time it may be one message too many
        if sender.mail.tolerances:
            self.tolerances |= sender.mail.tolerances
        return reply.MAIL_OK

    def _accept(self, argument: str) -> "_Accepted | Reply":
        mail = _read_mail(argument, self._limits.message_size, self._home.origin)
        if isinstance(mail, Reply):
            return mail
        decision = self._choose(mail.reverse_path)
        if isinstance(decision, Reply):
            return decision
        refusal = admission.reverse_path(decision, mail.reverse_path)
        if refusal is not None:
            return refusal
        return _Accepted(argument, mail, decision, admission.recipient_limit(decision, self._limits.recipients))

    def rcpt(self, argument: str) -> Reply:
        """RCPT: `argument` is everything behind the verb."""
        if self._sender is None:
            return reply.MAIL_FIRST
        word, _, rest = argument.partition(":")
        if word != "TO" and word.strip(" \t").upper() != "TO":
            return reply.RCPT_SYNTAX
        try:
            path = read_path(rest, self._home)
        except InternationalAddress:
            return reply.SMTPUTF8_UNSUPPORTED
        except PathError as error:
            return reply.recipient_syntax(str(error))
        if path.address is None:
            return reply.NULL_RECIPIENT
        recipient = _recipient(path.address, path.rest)
        if isinstance(recipient, Reply):
            return recipient
        meant = _meant_by(recipient)
        again = meant in self._recipients
        if not again and len(self._recipients) >= self._sender.most_recipients:
            return reply.too_many_recipients(self._sender.most_recipients)
        if path.tolerances:
            self.tolerances |= path.tolerances
        if word != "TO":
            self.tolerances |= _spaced(word)
        if again:
            return reply.RCPT_AGAIN
        self._recipients[meant] = recipient
        return reply.RCPT_OK

    def data(self, argument: str) -> Reply:
        """DATA: the content may begin if there is somebody to send it to."""
        if argument.strip():
            return reply.NO_PARAMETERS
        if self._sender is None:
            return reply.MAIL_FIRST
        if not self._recipients:
            return reply.RCPT_FIRST
        return reply.DATA_GO

    def take(self) -> tuple[Envelope, Decision]:
        """The envelope at the end of data and whose it is; the transaction is over."""
        assert self._sender is not None
        sender = self._sender
        mail = sender.mail
        recipients = tuple(self._recipients.values())
        envelope = Envelope(mail.reverse_path, recipients, mail.body, mail.ret, mail.envid)
        self.reset()
        return envelope, sender.decision


@lru_cache(maxsize=256)  # of a client that makes a connection for each message, too, MAIL is the same again and again
def _read_mail(argument: str, message_size: int, origin: str | None) -> "_Mail | Reply":
    """What a MAIL says, or what is wrong with it whoever says it; `message_size` is how large a message may be."""
    word, _, rest = argument.partition(":")
    if word.strip(" \t").upper() != "FROM":
        return reply.MAIL_SYNTAX
    try:
        path = read_path(rest, Home(origin))
    except InternationalAddress:
        return reply.SMTPUTF8_UNSUPPORTED
    except PathError as error:
        return reply.sender_syntax(str(error))
    parameters = parse_parameters(path.rest)
    if isinstance(parameters, Reply):
        return parameters
    refusal = _mail_parameters(parameters, message_size)
    if refusal is not None:
        return refusal
    body = parameters.get("BODY")
    return _Mail(
        ReversePath(path.address),
        body=body.upper() if body else None,
        ret=parameters.get("RET"),
        envid=parameters.get("ENVID"),
        tolerances=path.tolerances | _spaced(word),
    )


def _mail_parameters(parameters: Parameters, message_size: int) -> Reply | None:
    for keyword, value in parameters.items():
        if keyword not in _MAIL_KEYWORDS:
            return reply.parameter_unknown(keyword)
        match keyword, (value or "").upper():
            case "SMTPUTF8", _:
                return reply.SMTPUTF8_UNSUPPORTED
            case "SIZE", size if not (size.isascii() and size.isdigit() and len(size) <= 20):
                return reply.parameter_malformed(keyword)
            case "SIZE", size if int(size) > message_size:
                return reply.message_too_large(message_size)
            case "BODY", "BINARYMIME":
                return reply.BINARY_UNSUPPORTED
            case "BODY", body if body not in {"7BIT", "8BITMIME"}:
                return reply.parameter_malformed(keyword)
            case "RET", ret if ret not in {"FULL", "HDRS"}:
                return reply.parameter_malformed(keyword)
            case "ENVID", _ if not is_envelope_id(value):
                return reply.parameter_malformed(keyword)
            case _:
                continue
    return None


def _recipient(address: Address, rest: str) -> Recipient | Reply:
    """A recipient with the parameters that stand behind its path."""
    if not rest:
        return Recipient(address)
    parameters = parse_parameters(rest)
    if isinstance(parameters, Reply):
        return parameters
    for keyword, value in parameters.items():
        if keyword not in _RCPT_KEYWORDS:
            return reply.parameter_unknown(keyword)
        if not _RCPT_KEYWORDS[keyword](value):
            return reply.parameter_malformed(keyword)
    return Recipient(address, parameters.get("NOTIFY"), parameters.get("ORCPT"))


def _meant_by(recipient: Recipient) -> _Meant:
    """What is the same for a recipient that is named twice: of each RCPT SparkPost makes a message, so once is enough.

    The case of the domain means nothing (RFC 5321 §2.4); with other DSN parameters it is another recipient.
    """
    local, domain = recipient.address
    return local, domain.lower(), recipient.notify, recipient.orcpt


def _spaced(word: str) -> frozenset[Tolerance]:
    """White space around the FROM or TO of a command, where none belongs."""
    return _SPACED if word[:1].isspace() or word[-1:].isspace() else _IN_ORDER


@dataclass(frozen=True, slots=True)
class _Mail:
    """What a MAIL says."""

    reverse_path: ReversePath
    body: str | None
    ret: str | None
    envid: str | None
    tolerances: frozenset[Tolerance]


@dataclass(slots=True)
class _Accepted:
    """A MAIL that was accepted, and what it means in this session as long as the client stays who it is."""

    argument: str
    mail: _Mail
    decision: Decision
    most_recipients: int
