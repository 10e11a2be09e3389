"""The server's side of one SMTP session, sans-IO: octets in, replies and steps out.

`receive` takes octets as they come, many pipelined commands at once or one octet at a time. `advance` works through
them, collects the replies in `out`, and stops at a `Step`: something only the outside can do (log somebody in, begin
TLS, take a message). The outside does it and says so by `authenticated`, `upgraded` or `accepted`. Once `closed`, what
is in `out` is the last word.

Commands and their rules are RFC 5321 §4.1 and §4.3, AUTH is RFC 4954, STARTTLS is RFC 3207, pipelining RFC 2920.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from relay.core import reply
from relay.core.envelope import Envelope
from relay.core.message import Content
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.ingress.auth import AuthExchange, Presented
from relay.ingress.data import DataLimits, DataReader, LineEnd
from relay.ingress.transaction import Choose, EnvelopeLimits, Transaction
from relay.policy.identity import Decision

COMMAND_LIMIT: Final = 4096  # octets; RFC 5321 §4.5.3.1.4 asks for 512, RFC 3461 adds parameters
AUTH_LIMIT: Final = 12_288  # octets; RFC 4954 §4.5
MAX_ERRORS: Final = 20  # refused commands since the last message, as Postfix's smtpd_hard_error_limit
MAX_IDLE_COMMANDS: Final = 100  # commands that carry no mail since the last message
MAX_AUTH_FAILURES: Final = 3

_MAIL_VERBS: Final = frozenset({"MAIL", "RCPT", "DATA", "AUTH", "STARTTLS"})
# Said by something that is no mail client and that must not get further: a browser made to post to this port.
_HTTP_VERBS: Final = frozenset({"GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "HOST:"})
_TLS_HANDSHAKE: Final = b"\x16\x03"


@dataclass(frozen=True, slots=True)
class DialogueSettings:
    """What a listener offers; the same object for all its sessions.

    `auth` is "none", "optional", "required" or "passthrough"; `starttls` whether STARTTLS is offered.
    """

    hostname: str
    auth: str
    starttls: bool
    envelope: EnvelopeLimits
    data: DataLimits


class Observer(Protocol):
    """Who is told of what happens in the dialogue."""

    def replied(self, verb: str, answer: Reply) -> None:
        """`verb` is what was answered; "DOT" for the end of data, "" where there was no command."""
        ...

    def tolerated(self, kind: str) -> None: ...


@dataclass(frozen=True, slots=True)
class BeginTls:
    """TLS comes after what is in `out`: the 220 to STARTTLS, or nothing where TLS comes first."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Somebody presents a user name and a password."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class TakeMessage:
    """The final dot has come. `content.body` must be closed by whoever takes this step."""

    envelope: Envelope
    decision: Decision
    content: Content


Step = BeginTls | Authenticate | TakeMessage


class Dialogue:
    """One session. `plain_auth` says whether AUTH may be used before TLS on this connection."""

    def __init__(self, settings: DialogueSettings, choose: Choose, observer: Observer, *, plain_auth: bool) -> None:
        self._settings = settings
        self._observer = observer
        self._plain_auth = plain_auth
        self.tls = False
        self.extended = False
        self.helo = ""
        self.login: str | None = None
        self.out = bytearray()
        self._transaction = Transaction(settings.envelope, choose)
        self._buffer = b""
        self._line_end: LineEnd | None = None
        self._overlong = False
        self._reader: DataReader | None = None
        self._auth: AuthExchange | None = None
        self._step: Step | None = None
        self._errors = 0
        self._idle_commands = 0
        self._auth_failures = 0
        self.closed = False

    # -- what the outside calls ---------------------------------------------------------------------------------------

    def greet(self) -> None:
        self.out += reply.greeting(self._settings.hostname).wire()

    def begin_with_tls(self) -> None:
        """Implicit TLS: the handshake comes before the greeting."""
        self._step = BeginTls()

    def receive(self, octets: bytes) -> None:
        """Octets from the client; they wait until `advance` comes to them."""
        self._buffer = self._buffer + octets if self._buffer else octets

    @property
    def waiting(self) -> int:
        """Octets received that `advance` has not come to."""
        return len(self._buffer)

    @property
    def in_data(self) -> bool:
        return self._reader is not None

    @property
    def stalled(self) -> bool:
        """In data, and the client seems to believe that it has ended it (see DataReader.stalled)."""
        return self._reader is not None and self._reader.stalled

    def advance(self) -> Step | None:
        """Work on until octets run out (None) or something must happen outside."""
        while not self.closed:
            if self._step is not None:
                step, self._step = self._step, None
                return step
            if self._reader is not None:
                if not self._read_data(self._reader):
                    return None
                continue
            line = self._next_line()
            if line is None:
                return None
            if self._auth is not None:
                self._auth_line(self._auth, line)
            else:
                self._command(line)
        return None

    def accepted(self, answer: Reply) -> None:
        """The outcome of TakeMessage."""
        if answer.positive:
            self._errors = self._idle_commands = 0
        self._say("DOT", answer)

    def authenticated(self, answer: Reply, login: str | None) -> None:
        """The outcome of Authenticate: `login` is None when it failed."""
        self.login = login
        self._say("AUTH", answer)
        if login is None and answer.permanent:
            self._auth_failures += 1
            if self._auth_failures >= MAX_AUTH_FAILURES:
                self._close_with("AUTH", reply.AUTH_FAILURES)

    @property
    def auth_failures(self) -> int:
        return self._auth_failures

    def upgraded(self) -> None:
        """TLS is on: what was said before it never happened (RFC 3207 §4.2)."""
        self.tls = True
        self.extended = False
        self.helo = ""
        self.login = None
        self._transaction.reset()

    def end(self, answer: Reply) -> None:
        """The outside ends the session: idle, shutting down, a stalled DATA."""
        self._close_with("", answer)

    def abandon(self) -> None:
        """The client is gone: release what an unfinished message holds."""
        self.closed = True
        if self._reader is not None:
            self._reader.discard()
            self._reader = None

    # -- lines --------------------------------------------------------------------------------------------------------

    def _next_line(self) -> bytes | None:
        """The next command line without its end, or None until there is one."""
        end = self._buffer.find(b"\n")
        limit = AUTH_LIMIT if self._auth is not None or self._buffer[:5].upper() == b"AUTH " else COMMAND_LIMIT
        if end < 0 or end > limit:
            if self._line_end is None and self._foreign_protocol(self._buffer):
                return None
            if end < 0:
                if len(self._buffer) > limit:
                    self._overlong, self._buffer = True, self._buffer[-1:]  # it may be the CR of the line end
                return None
            self._overlong = True
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        line_end = LineEnd.CRLF if line.endswith(b"\r") else LineEnd.LF
        if self._line_end is None:
            self._line_end = line_end
            if line_end is LineEnd.LF:
                self._observer.tolerated("bare-lf")
        elif line_end is not self._line_end:
            self._close_with("", reply.MIXED_LINE_ENDS)
            return None
        if self._overlong:
            self._overlong = False
            self._refuse_overlong()
            return None if self.closed else self._next_line()
        return line[:-1] if line_end is LineEnd.CRLF else line

    def _refuse_overlong(self) -> None:
        if self._auth is not None:
            self._auth = None
            self._say("AUTH", reply.AUTH_LINE_TOO_LONG)
        else:
            self._say("", reply.LINE_TOO_LONG)

    def _foreign_protocol(self, octets: bytes) -> bool:
        if not octets.startswith(_TLS_HANDSHAKE):
            return False
        self._observer.tolerated("tls-on-plain-port")
        self._close_with("", reply.TLS_ON_PLAIN_PORT)
        return True

    # -- commands -----------------------------------------------------------------------------------------------------

    def _command(self, line: bytes) -> None:
        verb, _, argument = line.decode("latin-1").strip(" \t").partition(" ")
        verb = verb.upper()
        # What is no command may be anything, a password that came too late among it: it is not repeated.
        told = verb if verb in _COMMANDS or verb in _HTTP_VERBS else "?"
        if verb not in _MAIL_VERBS:
            self._idle_commands += 1
            if self._idle_commands > MAX_IDLE_COMMANDS and verb != "QUIT":
                self._close_with(told, reply.TOO_MANY_COMMANDS)
                return
        command = _COMMANDS.get(verb)
        if command is not None:
            command(self, argument)
        elif line.startswith(_TLS_HANDSHAKE):
            self._foreign_protocol(line)
        elif verb in _HTTP_VERBS:
            self._close_with(verb, reply.HTTP_SPOKEN)
        else:
            self._say(told, reply.UNKNOWN_COMMAND)

    def _ehlo(self, argument: str) -> None:
        self._hello(argument, extended=True)

    def _helo(self, argument: str) -> None:
        self._hello(argument, extended=False)

    def _hello(self, argument: str, *, extended: bool) -> None:
        name = argument.strip()
        if not name:
            self._say("EHLO" if extended else "HELO", reply.HELLO_NEEDS_NAME)
            return
        self._transaction.reset()
        self.helo, self.extended = name, extended
        if not extended:
            self._say("HELO", reply.hello(self._settings.hostname))
            return
        self.out += reply.multiline(250, [self._settings.hostname, *self._extensions()])

    def _extensions(self) -> list[str]:
        offered = ["PIPELINING", f"SIZE {self._settings.envelope.message_size}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        if self._settings.starttls and not self.tls:
            offered.append("STARTTLS")
        if self._settings.auth != "none" and (self.tls or self._plain_auth):
            # The second form is for clients older than RFC 2554, which look for nothing else.
            offered += ["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"]
        return offered

    def _starttls(self, argument: str) -> None:
        if not self._settings.starttls:
            self._say("STARTTLS", reply.TLS_ACTIVE if self.tls else reply.TLS_NOT_OFFERED)
        elif self.tls:
            self._say("STARTTLS", reply.TLS_ACTIVE)
        elif argument.strip():
            self._say("STARTTLS", reply.NO_PARAMETERS)
        elif self._buffer:
            # Commands sent in clear must not be read as if they had come under TLS (CVE-2011-0411).
            self._close_with("STARTTLS", reply.TLS_PIPELINED)
        else:
            self._say("STARTTLS", reply.TLS_GO)
            self._step = BeginTls()

    def _auth_command(self, argument: str) -> None:
        refusal = self._auth_refusal()
        if refusal is not None:
            self._say("AUTH", refusal)
            return
        self._auth = AuthExchange()
        self._auth_continue(self._auth.begin(argument))

    def _auth_refusal(self) -> Reply | None:
        if self._settings.auth == "none":
            return reply.AUTH_NOT_OFFERED
        if not (self.tls or self._plain_auth):
            return reply.AUTH_NEEDS_TLS
        if not self.helo:
            return reply.HELLO_FIRST
        if self.login is not None:
            return reply.AUTH_ALREADY
        if self._transaction.open:
            return reply.AUTH_IN_TRANSACTION
        return None

    def _auth_line(self, exchange: AuthExchange, line: bytes) -> None:
        self._auth_continue(exchange.respond(line.decode("latin-1")))

    def _auth_continue(self, result: Reply | Presented) -> None:
        if isinstance(result, Presented):
            self._auth = None
            self._step = Authenticate(result.user, result.password)
            return
        if result.code != 334:
            self._auth = None
        self._say("AUTH", result)

    def _mail(self, argument: str) -> None:
        if not self.helo:
            self._say("MAIL", reply.HELLO_FIRST)
        elif self._settings.auth in {"required", "passthrough"} and self.login is None:
            tls_first = not (self.tls or self._plain_auth)
            self._say("MAIL", reply.TLS_REQUIRED if tls_first else reply.AUTH_REQUIRED)
        else:
            self._say("MAIL", self._transaction.mail(argument))
            self._report_tolerances(self._transaction.tolerances)

    def _rcpt(self, argument: str) -> None:
        self._say("RCPT", self._transaction.rcpt(argument))
        self._report_tolerances(self._transaction.tolerances)

    def _data(self, argument: str) -> None:
        answer = self._transaction.data(argument)
        if answer is reply.DATA_GO:
            assert self._line_end is not None
            self._reader = DataReader(self._settings.data, self._line_end)
        self._say("DATA", answer)

    def _read_data(self, reader: DataReader) -> bool:
        """Feed what has arrived to the content; False when its end is still to come."""
        octets, self._buffer = self._buffer, b""
        rest = reader.feed(octets)
        if rest is None:
            return False
        self._buffer, self._reader = rest, None
        self._report_tolerances(reader.tolerances)
        envelope, decision = self._transaction.take()
        if reader.refusal is not None:
            self._say("DATA", reader.refusal)
        else:
            self._step = TakeMessage(envelope, decision, reader.content())
        return True

    def _rset(self, argument: str) -> None:
        self._transaction.reset()
        self._say("RSET", reply.OK)

    def _noop(self, argument: str) -> None:
        self._say("NOOP", reply.OK)

    def _quit(self, argument: str) -> None:
        self._close_with("QUIT", reply.BYE)

    def _vrfy(self, argument: str) -> None:
        self._say("VRFY", reply.VRFY)

    def _expn(self, argument: str) -> None:
        self._say("EXPN", reply.NOT_IMPLEMENTED)

    def _help(self, argument: str) -> None:
        self._say("HELP", reply.HELP)

    # -- answers ------------------------------------------------------------------------------------------------------

    def _say(self, verb: str, answer: Reply) -> None:
        self.out += answer.wire()
        self._observer.replied(verb, answer)
        if answer.permanent and verb != "RCPT":
            # A refused recipient is a fault of the address list, not of the client's speech.
            self._errors += 1
            if self._errors >= MAX_ERRORS:
                self._close_with(verb, reply.TOO_MANY_ERRORS)

    def _close_with(self, verb: str, answer: Reply) -> None:
        if self.closed:
            return
        self.out += answer.wire()
        self._observer.replied(verb, answer)
        self.abandon()

    def _report_tolerances(self, kinds: set[str]) -> None:
        while kinds:
            self._observer.tolerated(kinds.pop())


_COMMANDS: Final[Mapping[str, Callable[[Dialogue, str], None]]] = {
    "EHLO": Dialogue._ehlo,
    "HELO": Dialogue._helo,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth_command,
    "MAIL": Dialogue._mail,
    "RCPT": Dialogue._rcpt,
    "DATA": Dialogue._data,
    "RSET": Dialogue._rset,
    "NOOP": Dialogue._noop,
    "QUIT": Dialogue._quit,
    "VRFY": Dialogue._vrfy,
    "EXPN": Dialogue._expn,
    "HELP": Dialogue._help,
}
