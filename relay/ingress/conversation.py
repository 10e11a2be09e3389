"""What a client has said of itself so far, and what is answered to each command on account of it. Pure.

Each verb is one method from its argument to the reply. What a reply entails, such as that content follows it, is the
dialogue's business. Commands and their rules are RFC 5321 §4.1 and §4.3, AUTH is RFC 4954, STARTTLS RFC 3207.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from relay.core import reply
from relay.core.envelope import Address, Home
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.ingress.steps import DialogueSettings
from relay.ingress.transaction import Choose, Transaction

_LABEL: Final = "[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?"
_FULL_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+\.?")
_NEED_LOGIN: Final = frozenset({"required", "passthrough"})
_PROTOCOLS: Final = {
    (False, False): "ESMTP",
    (False, True): "ESMTPA",
    (True, False): "ESMTPS",
    (True, True): "ESMTPSA",
}
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f.:]+\]", re.IGNORECASE)


class Conversation:
    """One session as its commands see it. `plain_auth` says whether AUTH may be used before TLS on this connection.

    `leaving`: no more mail is taken in it, because the relay is shutting down.
    """

    __slots__ = (
        "_needs_login",
        "_plain_auth",
        "_settings",
        "extended",
        "helo",
        "leaving",
        "login",
        "protocol",
        "tls",
        "transaction",
    )

    def __init__(self, settings: DialogueSettings, choose: Choose, *, plain_auth: bool) -> None:
        self._settings = settings
        self._plain_auth = plain_auth
        self._needs_login = settings.auth in _NEED_LOGIN
        self.leaving = False
        self.tls = False
        self.extended = False
        self.helo = ""
        self.login: str | None = None
        self.protocol = "SMTP"  # the `with` word of the Received line (RFC 3848)
        self.transaction = Transaction(settings.envelope, choose, _home_of(settings.hostname, settings.origin))

    def upgraded(self) -> None:
        """TLS is on: what was said before it never happened (RFC 3207 §4.2)."""
        self.tls = True
        self.extended = False
        self.helo = ""
        self.authenticated(None)

    def authenticated(self, login: str | None) -> None:
        """From now on the client is somebody else."""
        self.login = login
        self._name_protocol()
        self.transaction.forget()

    def _name_protocol(self) -> None:
        self.protocol = _PROTOCOLS[self.tls, self.login is not None] if self.extended else "SMTP"

    # -- commands -----------------------------------------------------------------------------------------------------

    def ehlo(self, argument: str) -> Reply:
        name = argument.strip()
        if not name:
            return reply.HELLO_NEEDS_NAME
        self._introduced(name, extended=True)
        offer, tls = self._settings, self.tls
        auth = offer.auth != "none" and (tls or self._plain_auth)
        return _welcome(offer.hostname, offer.envelope.message_size, offer.starttls and not tls, auth)

    def helo_(self, argument: str) -> Reply:
        name = argument.strip()
        if not name:
            return reply.HELLO_NEEDS_NAME
        self._introduced(name, extended=False)
        return reply.hello(self._settings.hostname)

    def _introduced(self, name: str, *, extended: bool) -> None:
        self.transaction.reset()
        self.helo = name
        self.extended = extended
        self._name_protocol()
        if not is_full_name(name):
            self.transaction.tolerances.add(Tolerance.HELO_NAME)

    def starttls(self, argument: str) -> Reply:
        """220 means that TLS may begin, if nothing has come behind the command."""
        if self.tls:
            return reply.TLS_ACTIVE
        if not self._settings.starttls:
            return reply.TLS_NOT_OFFERED
        return reply.NO_PARAMETERS if argument.strip() else reply.TLS_GO

    def auth_refusal(self) -> Reply | None:
        """Why AUTH is out of place now; None if it is not."""
        if self._settings.auth == "none":
            return reply.AUTH_NOT_OFFERED
        if not (self.tls or self._plain_auth):
            return reply.AUTH_NEEDS_TLS
        if not self.helo:
            return reply.HELLO_FIRST
        if self.login is not None:
            return reply.AUTH_ALREADY
        if self.transaction.open:
            return reply.AUTH_IN_TRANSACTION
        return None

    def mail(self, argument: str) -> Reply:
        """421 means that the session ends."""
        if self.leaving:
            return reply.SHUTTING_DOWN
        if not self.helo:
            return reply.HELLO_FIRST
        if self._needs_login and self.login is None:
            return reply.AUTH_REQUIRED if self.tls or self._plain_auth else reply.TLS_REQUIRED
        answer = self.transaction.mail(argument)
        if not self.extended and answer.positive:
            self.transaction.tolerances.add(Tolerance.HELO_ONLY)
        return answer

    def rcpt(self, argument: str) -> Reply:
        return self.transaction.rcpt(argument)

    def data(self, argument: str) -> Reply:
        """354 means that the content comes next."""
        return self.transaction.data(argument)

    def rset(self, argument: str) -> Reply:
        self.transaction.reset()
        return reply.OK

    def noop(self, argument: str) -> Reply:
        return reply.OK

    def quit(self, argument: str) -> Reply:
        return reply.BYE

    def vrfy(self, argument: str) -> Reply:
        return reply.VRFY

    def expn(self, argument: str) -> Reply:
        return reply.NOT_IMPLEMENTED

    def help(self, argument: str) -> Reply:
        return reply.HELP


COMMANDS: Final[Mapping[str, Callable[[Conversation, str], Reply]]] = {
    "MAIL": Conversation.mail,
    "RCPT": Conversation.rcpt,
    "DATA": Conversation.data,
    "EHLO": Conversation.ehlo,
    "HELO": Conversation.helo_,
    "STARTTLS": Conversation.starttls,
    "RSET": Conversation.rset,
    "NOOP": Conversation.noop,
    "QUIT": Conversation.quit,
    "VRFY": Conversation.vrfy,
    "EXPN": Conversation.expn,
    "HELP": Conversation.help,
}


@lru_cache(maxsize=1024)
def is_full_name(name: str) -> bool:
    """Is it what EHLO and HELO want (RFC 5321 §4.1.1.1): a full host name, or an address literal?"""
    if _LITERAL.fullmatch(name):
        return True
    return bool(_FULL_NAME.fullmatch(name)) and name.lower().rstrip(".") != "localhost.localdomain"


@lru_cache(maxsize=64)
def _home_of(hostname: str, origin: str | None) -> Home:
    """The postmaster of this relay has its name; nobody reads that mail where it is none that mail could reach."""
    reached = is_full_name(hostname) and not hostname.startswith("[")
    return Home(origin, Address("postmaster", hostname) if reached else None)


@lru_cache(maxsize=64)
def _welcome(hostname: str, message_size: int, starttls: bool, auth: bool) -> Reply:
    """The reply to EHLO: our name and what is offered."""
    offered = ["PIPELINING", f"SIZE {message_size}", "8BITMIME", "ENHANCEDSTATUSCODES"]
    if starttls:
        offered.append("STARTTLS")
    if auth:
        # The second form is for clients older than RFC 2554, which look for nothing else.
        offered += ["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"]
    return reply.welcome(hostname, offered)
