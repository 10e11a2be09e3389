"""What we answer to MAIL, RCPT and DATA, and the envelope that results. Pure: no octets, no sockets, no clock.

A transaction lasts from MAIL to the final dot (RFC 5321 §3.3). Whose mail it is gets decided at MAIL, when login,
listener, network and reverse-path are all known; the decision stands for the whole transaction.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.core import reply
from relay.core.envelope import (
    Address,
    Envelope,
    InternationalAddress,
    Path,
    PathError,
    Recipient,
    ReversePath,
    parse_parameters,
    split_path,
)
from relay.core.reply import Reply
from relay.policy import admission
from relay.policy.identity import Decision

_FROM: Final = re.compile(r"\s*FROM\s*:(.*)", re.IGNORECASE | re.DOTALL)
_TO: Final = re.compile(r"\s*TO\s*:(.*)", re.IGNORECASE | re.DOTALL)

# Parameters of extensions that are not offered but that clients send all the same; taken, so that their mail passes.
_MAIL_KEYWORDS: Final = frozenset({"SIZE", "BODY", "AUTH", "RET", "ENVID", "SMTPUTF8"})
_RCPT_KEYWORDS: Final = frozenset({"NOTIFY", "ORCPT"})

Parameters = dict[str, str | None]
Choose = Callable[[ReversePath], Decision | Reply]


@dataclass(frozen=True, slots=True)
class EnvelopeLimits:
    """`message_size` in octets, `recipients` per message."""

    message_size: int
    recipients: int


class Transaction:
    """One mail transaction after another within a session; `choose` decides whose mail it is."""

    def __init__(self, limits: EnvelopeLimits, choose: Choose) -> None:
        self._limits = limits
        self._choose = choose
        self.tolerances: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Forget the transaction: RSET, EHLO, the end of data."""
        self._reverse_path: ReversePath | None = None
        self._parameters: Parameters = {}
        self._recipients: list[Recipient] = []
        self._decision: Decision | None = None

    @property
    def open(self) -> bool:
        """Between MAIL and the end of data."""
        return self._reverse_path is not None

    def mail(self, argument: str) -> Reply:
        """MAIL: `argument` is everything behind the verb."""
        if self.open:
            return reply.MAIL_NESTED
        match = _FROM.fullmatch(argument)
        if match is None:
            return reply.MAIL_SYNTAX
        try:
            path = split_path(match[1])
            reverse_path = ReversePath(Address.parse(path.text) if path.text else None)
        except InternationalAddress:
            return reply.SMTPUTF8_UNSUPPORTED
        except PathError as error:
            return reply.sender_syntax(str(error))
        parameters = parse_parameters(path.rest)
        if isinstance(parameters, Reply):
            return parameters
        decision = self._mail_parameters(parameters) or self._choose(reverse_path)
        if isinstance(decision, Reply):
            return decision
        refusal = admission.reverse_path(decision, reverse_path)
        if refusal is not None:
            return refusal
        self._tolerate(path)
        self._reverse_path, self._parameters, self._decision = reverse_path, parameters, decision
        return reply.MAIL_OK

    def _mail_parameters(self, parameters: Parameters) -> Reply | None:
        for keyword, value in parameters.items():
            if keyword not in _MAIL_KEYWORDS:
                return reply.parameter_unknown(keyword)
            match keyword, (value or "").upper():
                case "SMTPUTF8", _:
                    return reply.SMTPUTF8_UNSUPPORTED
                case "SIZE", size if not (size.isascii() and size.isdigit() and len(size) <= 20):
                    return reply.parameter_malformed(keyword)
                case "SIZE", size if int(size) > self._limits.message_size:
                    return reply.message_too_large(self._limits.message_size)
                case "BODY", "BINARYMIME":
                    return reply.BINARY_UNSUPPORTED
                case "BODY", body if body not in {"7BIT", "8BITMIME"}:
                    return reply.parameter_malformed(keyword)
                case "RET", ret if ret not in {"FULL", "HDRS"}:
                    return reply.parameter_malformed(keyword)
                case _:
                    continue
        return None

    def rcpt(self, argument: str) -> Reply:
        """RCPT: `argument` is everything behind the verb."""
        if self._decision is None:
            return reply.MAIL_FIRST
        match = _TO.fullmatch(argument)
        if match is None:
            return reply.RCPT_SYNTAX
        try:
            path = split_path(match[1])
            if not path.text:
                return reply.NULL_RECIPIENT
            address = Address.parse(path.text)
        except InternationalAddress:
            return reply.SMTPUTF8_UNSUPPORTED
        except PathError as error:
            return reply.recipient_syntax(str(error))
        parameters = parse_parameters(path.rest)
        if isinstance(parameters, Reply):
            return parameters
        unknown = next((keyword for keyword in parameters if keyword not in _RCPT_KEYWORDS), None)
        if unknown is not None:
            return reply.parameter_unknown(unknown)
        limit = admission.recipient_limit(self._decision, self._limits.recipients)
        if len(self._recipients) >= limit:
            return reply.too_many_recipients(limit)
        self._tolerate(path)
        self._recipients.append(Recipient(address, parameters.get("NOTIFY"), parameters.get("ORCPT")))
        return reply.RCPT_OK

    def data(self, argument: str) -> Reply:
        """DATA: the content may begin if there is somebody to send it to."""
        if argument.strip():
            return reply.NO_PARAMETERS
        if not self.open:
            return reply.MAIL_FIRST
        if not self._recipients:
            return reply.RCPT_FIRST
        return reply.DATA_GO

    def take(self) -> tuple[Envelope, Decision]:
        """The envelope at the end of data and whose it is; the transaction is over."""
        assert self._reverse_path is not None
        assert self._decision is not None
        body = self._parameters.get("BODY")
        envelope = Envelope(
            reverse_path=self._reverse_path,
            recipients=tuple(self._recipients),
            body=body.upper() if body else None,
            ret=self._parameters.get("RET"),
            envid=self._parameters.get("ENVID"),
        )
        decision = self._decision
        self.reset()
        return envelope, decision

    def _tolerate(self, path: Path) -> None:
        if not path.bracketed:
            self.tolerances.add("no-brackets")
        if path.spaced:
            self.tolerances.add("path-spacing")
