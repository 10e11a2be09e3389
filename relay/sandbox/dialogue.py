"""The dialogue of one connection, as a machine without sockets: octets in, answers out.

`receive` takes what came from the client, `next_answer` gives the answers to it one by one, in order, until more octets
are needed. Whoever drives it does what each answer says and does not ask for the next before that is done; so commands
that come in one packet are answered one after the other, and after STARTTLS nothing is read before the handshake.

An answer is decided in this order: the fixed replies of the rules and the mode of the port, then what SparkPost would
refuse, then the faults that addresses ask for.
"""

import base64
import logging
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from typing import Final

from relay.sandbox import answers as say
from relay.sandbox.answers import Answer, Then
from relay.sandbox.content import ContentReader, refusal
from relay.sandbox.faults import Stage, fault_of
from relay.sandbox.modes import Mode
from relay.sandbox.paths import MAIL_ARGUMENT, RCPT_ARGUMENT, Path
from relay.sandbox.records import Accepted, LoginAttempt, Session
from relay.sandbox.rules import Login, Rules

_log = logging.getLogger(__name__)

HOST: Final = "smtp.sparkpostmail.com"
NODE: Final = "node-7.sandbox.invalid"  # SparkPost's nodes greet under a name of their own too

_MAX_LINE: Final = 12_288  # octets; RFC 4954 §4 wants so much for AUTH, and to the other commands it does no harm

# The extension that must have been offered for an ESMTP parameter to be taken.
_MAIL_PARAMETERS: Final = {"BODY": "8BITMIME", "AUTH": "AUTH", "SIZE": "SIZE", "RET": "DSN", "ENVID": "DSN"}
_RCPT_PARAMETERS: Final = {"NOTIFY": "DSN", "ORCPT": "DSN"}
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §4


@dataclass(slots=True)
class _Transaction:
    reverse_path: Path
    recipients: list[str] = field(default_factory=list)
    faults: dict[Stage, Answer] = field(default_factory=dict)  # asked for by its addresses, the first for each stage

    def strike(self, path: Path, usual: Answer) -> Answer:
        """The answer to the command that names `path`; a fault that strikes later is noted."""
        fault = fault_of(path.local_part)
        if fault is None:
            return usual
        stage, answer = fault
        if stage is Stage.COMMAND:
            return answer.instead_of(usual)
        self.faults.setdefault(stage, answer)
        return usual


class Dialogue:
    """One connection's dialogue.

    peer: the client's address and port as EHLO repeats them. new_token: a fresh id for the 250. deposit: takes each
    accepted message before its 250 is given.
    """

    def __init__(
        self,
        rules: Rules,
        mode: Mode,
        session: Session,
        peer: str,
        new_token: Callable[[], str],
        deposit: Callable[[Accepted], None],
    ) -> None:
        self._rules = rules
        self._mode = mode
        self._session = session
        self._peer = peer
        self._new_token = new_token
        self._deposit = deposit
        self._input = bytearray()
        self._content: ContentReader | None = None
        self._on_line: Callable[[bytes], Answer] = self._command
        self._greeted = False
        self._offered: frozenset[str] = frozenset()
        self._login: Login | None = None
        self._transaction: _Transaction | None = None

    # -- octets in, answers out ----------------------------------------------------------------------------------------

    def greet(self) -> Answer:
        """What is said, or done, when the connection opens."""
        usual = Answer.line(f"220 2.0.0 {HOST} ESMTP ecelerity 4.1.5.48834 r(Core:4.1.5.3) {formatdate()}")
        return (self._fixed("BANNER") or usual).instead_of(usual)

    def receive(self, octets: bytes) -> None:
        self._input += octets

    def next_answer(self) -> Answer | None:
        """The next answer that is due, or None until more octets have come."""
        answer = self._read_line() if self._content is None else self._read_content(self._content)
        if answer is not None and self._input and "PIPELINING" in self._mode.withheld:
            return say.PIPELINING_NOT_OFFERED
        return answer

    @property
    def holds_input(self) -> bool:
        """Whether something has come that is not answered yet."""
        return bool(self._input)

    def tls_established(self, version: str) -> None:
        """After the handshake nothing that was said before it counts (RFC 3207 §4.2)."""
        self._session.tls = version
        self._greeted = False
        self._transaction = None

    def _read_line(self) -> Answer | None:
        end = self._input.find(b"\r\n")
        if end > _MAX_LINE or (end < 0 and len(self._input) > _MAX_LINE):
            return say.LINE_TOO_LONG
        if end < 0:
            return None
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        return self._on_line(line)

    def _read_content(self, content: ContentReader) -> Answer | None:
        if not content.take(self._input):
            return None
        self._content = None
        return self._end_of_data(content.content())

    # -- commands ------------------------------------------------------------------------------------------------------

    def _command(self, line: bytes) -> Answer:
        verb, _, argument = line.partition(b" ")
        name = verb.upper().decode("latin-1")
        handler = _HANDLERS.get(name)
        if handler is None or name in self._mode.withheld:
            return say.UNRECOGNIZED
        fixed = self._fixed(name)
        if fixed is None or name == "AUTH":  # there it is the outcome of the whole exchange
            return handler(self, argument)
        if fixed.overrules:
            return fixed
        usual = handler(self, argument)
        return fixed.instead_of(usual) if usual.confirms else usual

    def _fixed(self, verb: str) -> Answer | None:
        """What the rules or the mode of the port want answered to `verb`, whatever it says."""
        if verb in self._rules.replies:
            return Answer.verbatim(self._rules.replies[verb])
        return self._mode.at.get(verb)

    def _ehlo(self, argument: bytes) -> Answer:
        if not argument.strip():
            return say.HELLO_NEEDS_NAME
        self._greeted = True
        self._transaction = None
        lines = [line for line in self._extensions() if line not in self._mode.withheld]
        self._offered = frozenset(re.split("[ =]", line, maxsplit=1)[0].upper() for line in lines)
        random.shuffle(lines)
        lines.insert(0, f"{NODE} says EHLO to {self._peer}")
        return Answer("".join([*(f"250-{line}\r\n" for line in lines[:-1]), f"250 {lines[-1]}\r\n"]).encode("ascii"))

    def _extensions(self) -> list[str]:
        """AUTH only under TLS, where its old form stands beside the proper one (fact sheet 1.2)."""
        common = ["ENHANCEDSTATUSCODES", "PIPELINING", "8BITMIME"]
        if self._session.tls is None:
            return [*common, "STARTTLS"]
        return [*common, "AUTH=LOGIN PLAIN", "AUTH LOGIN PLAIN", *self._rules.extensions]

    def _helo(self, argument: bytes) -> Answer:
        if not argument.strip():
            return say.HELLO_NEEDS_NAME
        self._greeted = True
        self._transaction = None
        self._offered = frozenset()
        return Answer.line(f"250 {NODE} says HELO to {self._peer}")

    def _starttls(self, argument: bytes) -> Answer:
        if self._session.tls is not None:
            return say.TLS_ALREADY
        return say.TLS_INJECTION if self._input else say.TLS_READY

    def _mail(self, argument: bytes) -> Answer:
        rules = self._rules
        if not self._greeted:
            return say.HELLO_NEEDED
        if self._transaction is not None:
            return say.NESTED_MAIL
        path = Path.parse(MAIL_ARGUMENT, argument)
        if path is None:
            return say.BAD_REVERSE_PATH
        if rules.messages_per_connection is not None and self._session.messages >= rules.messages_per_connection:
            return say.TOO_MANY_MESSAGES
        if strange := self._not_offered(path.parameters, _MAIL_PARAMETERS):
            return say.unknown_parameter(strange)
        size = path.parameters.get("SIZE", "0")
        if _SIZE.fullmatch(size) is None:
            return say.BAD_REVERSE_PATH
        if int(size) > rules.message_size:
            return say.TOO_LARGE
        transaction = _Transaction(path)
        answer = transaction.strike(path, say.MAIL_ACCEPTED)
        if answer.confirms:
            self._transaction = transaction
        return answer

    def _rcpt(self, argument: bytes) -> Answer:
        transaction = self._transaction
        if transaction is None:
            return say.RCPT_WITHOUT_MAIL
        path = Path.parse(RCPT_ARGUMENT, argument)
        if path is None:
            return say.BAD_FORWARD_PATH
        if self._login is None:
            return say.RELAYING_DENIED
        if strange := self._not_offered(path.parameters, _RCPT_PARAMETERS):
            return say.unknown_parameter(strange)
        limit = self._rules.recipients_per_message
        if limit is not None and len(transaction.recipients) >= limit:
            return say.TOO_MANY_RECIPIENTS
        answer = transaction.strike(path, say.RCPT_ACCEPTED)
        if answer.confirms:
            transaction.recipients.append(path.address)
        return answer

    def _not_offered(self, parameters: Mapping[str, str], known: Mapping[str, str]) -> str | None:
        """A parameter whose extension was not offered on this connection."""
        return next((name for name in parameters if known.get(name) not in self._offered), None)

    def _data(self, argument: bytes) -> Answer:
        if self._transaction is None or not self._transaction.recipients:
            return say.DATA_WITHOUT_RCPT
        fault = self._transaction.faults.get(Stage.DATA)
        if fault is not None and fault.refuses:
            self._transaction = None
            return fault
        self._content = ContentReader(self._rules.message_size)
        return fault or say.SEND_CONTENT

    def _rset(self, argument: bytes) -> Answer:
        self._transaction = None
        return say.OK

    def _noop(self, argument: bytes) -> Answer:
        return say.OK

    def _quit(self, argument: bytes) -> Answer:
        return Answer(f"221 2.3.0 {NODE} closing connection\r\n".encode("ascii"), Then.CLOSE)

    # -- AUTH ----------------------------------------------------------------------------------------------------------

    def _auth(self, argument: bytes) -> Answer:
        if self._session.tls is None:
            return say.AUTH_NEEDS_TLS
        if not self._greeted:
            return say.HELLO_NEEDED
        if self._login is not None:
            return say.AUTH_ALREADY
        if self._transaction is not None:
            return say.AUTH_IN_TRANSACTION
        mechanism, _, initial_response = argument.partition(b" ")
        then: Callable[[str], Answer]
        match mechanism.upper():
            case b"LOGIN":
                prompt, then = say.USERNAME_PROMPT, self._auth_login
            case b"PLAIN":
                prompt, then = say.EMPTY_PROMPT, self._auth_plain
            case _:
                return say.AUTH_UNKNOWN
        return self._respond(then, initial_response) if initial_response else self._ask(prompt, then)

    def _ask(self, prompt: Answer, then: Callable[[str], Answer]) -> Answer:
        """Prompt, and take the next line as the response to it."""
        self._on_line = partial(self._respond, then)
        return prompt

    def _respond(self, then: Callable[[str], Answer], line: bytes) -> Answer:
        self._on_line = self._command
        if line == b"*":
            return say.AUTH_CANCELLED
        try:
            response = base64.b64decode(line, validate=True).decode()
        except ValueError:
            return say.AUTH_SYNTAX
        return then(response)

    def _auth_login(self, user: str) -> Answer:
        return self._ask(say.PASSWORD_PROMPT, partial(self._verify, "LOGIN", user))

    def _auth_plain(self, response: str) -> Answer:
        match response.split("\0"):
            case [_, user, api_key]:
                return self._verify("PLAIN", user, api_key)
        return say.AUTH_SYNTAX

    def _verify(self, mechanism: str, user: str, api_key: str) -> Answer:
        fixed = self._fixed("AUTH")
        overruled = fixed is not None and fixed.overrules
        self._login = None if overruled else self._rules.login(user, api_key)
        self._session.logins.append(LoginAttempt(user, mechanism, accepted=self._login is not None))
        newer = self._rules.newer_texts
        if self._login is None:
            usual = say.AUTH_REFUSED_NEWER if newer else say.AUTH_REFUSED
            return fixed if fixed is not None and overruled else usual
        usual = say.AUTH_ACCEPTED_NEWER if newer else say.AUTH_ACCEPTED
        return (fixed or usual).instead_of(usual)

    # -- the final dot -------------------------------------------------------------------------------------------------

    def _end_of_data(self, content: bytes | None) -> Answer:
        """`content` is None if it was over the limit."""
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        self._session.messages += 1
        fixed = self._fixed("DOT")
        if fixed is not None and fixed.refuses:
            return fixed
        if content is None:
            return say.TOO_LARGE
        if refused := refusal(content, self._rules):
            return refused
        token = self._new_token()
        usual = say.accepted(token)
        answer = (fixed or transaction.faults.get(Stage.DOT, usual)).instead_of(usual)
        if not answer.refuses:
            try:
                self._accept(transaction, content, token, ambiguous=not answer.confirms)
            except OSError as error:
                _log.error("an accepted message could not be stored: %s", error)
                return say.TRANSACTION_FAILED
        return answer

    def _accept(self, transaction: _Transaction, content: bytes, token: str, *, ambiguous: bool) -> None:
        login = self._login
        assert login is not None  # no recipient was accepted without
        self._deposit(
            Accepted(
                content=content,
                reverse_path=transaction.reverse_path.address,
                recipients=tuple(transaction.recipients),
                mail_parameters=transaction.reverse_path.parameters,
                auth_user=login.user,
                api_key=login.api_key,
                subaccount=login.subaccount,
                port=self._session.port,
                connection=self._session.number,
                token=token,
                received_at=datetime.now(UTC),
                ambiguous=ambiguous,
            )
        )


_HANDLERS: Final[Mapping[str, Callable[[Dialogue, bytes], Answer]]] = {
    "EHLO": Dialogue._ehlo,
    "HELO": Dialogue._helo,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth,
    "MAIL": Dialogue._mail,
    "RCPT": Dialogue._rcpt,
    "DATA": Dialogue._data,
    "RSET": Dialogue._rset,
    "NOOP": Dialogue._noop,
    "QUIT": Dialogue._quit,
}
