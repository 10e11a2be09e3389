"""The server's side of one SMTP session, sans-IO: octets in, replies and steps out.

`receive` takes octets as they come, many pipelined commands at once or one octet at a time (RFC 2920). `advance` works
through them, collects the replies in `out`, and stops at a `Step`: something only the outside can do (log somebody in,
begin TLS, take a message). The outside does it and says so by `authenticated`, `upgraded` or `accepted`. Once `closed`,
what is in `out` is the last word.

Where content comes for which there is no memory, `advance` stops too and the octets stay where they are; `starved` says
so. How the octets were cut never makes a difference to what is answered or taken.
"""

import re
from collections.abc import Callable
from typing import Final, cast

from relay.core import reply
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.ingress.auth import AuthExchange, Presented
from relay.ingress.conversation import COMMANDS, Conversation
from relay.ingress.data import DataReader
from relay.ingress.lines import TLS_HANDSHAKE, CommandLines, Mishap
from relay.ingress.patience import MAIL_VERBS, Patience
from relay.ingress.steps import Authenticate, BeginTls, DialogueSettings, Observer, Step, TakeMessage
from relay.ingress.transaction import Choose

# Said by something that is no mail client and that must not get further: a browser made to post to this port.
_HTTP_VERBS: Final = frozenset({"GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "HOST:"})

_COMMAND = re.compile(r"([ \t]*)([^ \t]*)([ \t]?)(.*)", re.DOTALL)


class Dialogue:
    """One session. `plain_auth` says whether AUTH may be used before TLS on this connection."""

    __slots__ = (
        "_auth",
        "_observer",
        "_patience",
        "_settings",
        "_step",
        "client",
        "closed",
        "farewell",
        "lines",
        "messages",
        "out",
        "quit",
        "reader",
        "receive",
        "starved",
    )

    def __init__(self, settings: DialogueSettings, choose: Choose, observer: Observer, *, plain_auth: bool) -> None:
        self._settings = settings
        self._observer = observer
        self.client = Conversation(settings, choose, plain_auth=plain_auth)
        self.out = bytearray()
        self.lines = CommandLines(observer.tolerated)
        self.receive = self.lines.add  # octets from the client; they wait until `advance` comes to them
        self._patience = Patience()
        self.reader: DataReader | None = None  # of the content that comes now, between DATA and the final dot
        self._auth: AuthExchange | None = None
        self._step: Step | None = None
        self.messages = 0  # that were accepted
        self.starved = False
        self.closed = False
        self.farewell: Reply | None = None  # what we have ended it with
        self.quit = False  # by the client's wish

    # -- what the outside calls ---------------------------------------------------------------------------------------

    def greet(self) -> None:
        self.out += reply.greeting(self._settings.hostname).wire()

    def begin_with_tls(self) -> None:
        """Implicit TLS: the handshake comes before the greeting."""
        self._step = BeginTls()

    @property
    def auth_failures(self) -> int:
        return self._patience.auth_failures

    def advance(self) -> Step | None:
        """Work on until octets run out or memory does (None), or something must happen outside."""
        while not self.closed:
            if self._step is not None:
                step, self._step = self._step, None
                return step
            if self.reader is not None:
                if not self._read_data(self.reader):
                    return None
                continue
            line = self.lines.next(in_auth=self._auth is not None)
            if line is None:
                return None
            if isinstance(line, Mishap):
                self._mishap(line)
            elif self._auth is not None:
                self._auth_continue(self._auth.respond(line.decode("latin-1")))
            else:
                self._command(line)
        return None

    def accepted(self, answer: Reply) -> None:
        """The outcome of TakeMessage."""
        if answer.positive:
            self.messages += 1
            self._patience.message_accepted()
        self._say("DOT", answer)

    def authenticated(self, answer: Reply, login: str | None) -> None:
        """The outcome of Authenticate: `login` is None when it failed."""
        self.client.authenticated(login)
        self._say("AUTH", answer)
        if login is None and self._patience.tried_by_login(answer):
            self._close_with("AUTH", reply.AUTH_FAILURES)

    def upgraded(self) -> None:
        """TLS is on."""
        self.client.upgraded()

    def await_memory(self, served: Callable[[], None]) -> None:
        """Where the dialogue is starved: `served` is called when it can go on."""
        if self.reader is not None:
            self.reader.wait_for_memory(self.lines.waiting, served)

    def do_without_memory(self) -> None:
        """It has been starved for too long: the message will be refused, and what comes of it is dropped."""
        if self.reader is not None:
            self.reader.give_up()

    def end(self, answer: Reply) -> None:
        """The outside ends the session: idle, shutting down, a stalled DATA."""
        self._close_with("", answer)

    def abandon(self) -> None:
        """The client is gone: release what an unfinished message holds, and what else was sent."""
        self.closed = True
        self.lines.take_all()
        if self.reader is not None:
            self.reader.discard()
            self.reader = None

    # -- lines --------------------------------------------------------------------------------------------------------

    def _mishap(self, mishap: Mishap) -> None:
        match mishap:
            case Mishap.MIXED_LINE_ENDS:
                self._close_with("", reply.MIXED_LINE_ENDS)
            case Mishap.TLS_HANDSHAKE:
                self._hang_up_on_tls()
            case Mishap.TOO_LONG if self._auth is not None:
                self._auth = None
                self._say("AUTH", reply.AUTH_LINE_TOO_LONG)
            case Mishap.TOO_LONG:
                self._say("", reply.LINE_TOO_LONG)

    def _hang_up_on_tls(self) -> None:
        self._observer.tolerated(Tolerance.TLS_ON_PLAIN_PORT)
        self._close_with("", reply.TLS_ON_PLAIN_PORT)

    def _command(self, line: bytes) -> None:
        text = line.decode("latin-1").rstrip(" \t")
        verb, _, argument = text.partition(" ")
        command = COMMANDS.get(verb)
        if command is None:
            verb, argument = self._oddly_written(text)
            command = COMMANDS.get(verb)
        if verb not in MAIL_VERBS and self._patience.tried_by_command(verb):
            self._close_with(_told(verb), reply.TOO_MANY_COMMANDS)
        elif command is not None:
            self._answer(verb, command(self.client, argument))
        elif verb == "AUTH":
            self._auth_command(argument)
        elif line.startswith(TLS_HANDSHAKE):
            self._hang_up_on_tls()
        elif verb in _HTTP_VERBS:
            self._close_with(verb, reply.HTTP_SPOKEN)
        else:
            self._say(_told(verb), reply.UNKNOWN_COMMAND)

    def _oddly_written(self, text: str) -> tuple[str, str]:
        """Verb and argument of a command in small letters (RFC 5321 §2.4), or with white space where none belongs."""
        before, verb, between, argument = cast("re.Match[str]", _COMMAND.fullmatch(text)).groups()
        verb = verb.upper()
        if (before or between == "\t") and (verb in COMMANDS or verb == "AUTH"):
            self._observer.tolerated(Tolerance.COMMAND_SPACING)
        return verb, argument

    def _answer(self, verb: str, answer: Reply) -> None:
        """Say what a command is answered, and do what that entails."""
        if answer is reply.DATA_GO:
            assert self.lines.line_end is not None
            settings = self._settings
            self.reader = DataReader(settings.data, self.lines.line_end, settings.memory.share(), settings.drafts)
        elif answer is reply.TLS_GO:
            if self.lines.waiting:
                # Commands sent in clear must not be read as if they had come under TLS (CVE-2011-0411).
                self._close_with(verb, reply.TLS_PIPELINED)
                return
            self._step = BeginTls()
        elif answer is reply.RCPT_AGAIN and self._patience.tried_by_recipient():
            self._close_with(verb, reply.TOO_MANY_ERRORS)
            return
        elif answer is reply.BYE or answer is reply.SHUTTING_DOWN:
            self.quit = answer is reply.BYE
            self._close_with(verb, answer)
            return
        self._say(verb, answer)
        if self.client.transaction.tolerances:
            self._report_tolerances(self.client.transaction.tolerances)

    # -- AUTH and DATA ------------------------------------------------------------------------------------------------

    def _auth_command(self, argument: str) -> None:
        refusal = self.client.auth_refusal()
        if refusal is not None:
            self._say("AUTH", refusal)
            return
        self._auth = AuthExchange()
        self._auth_continue(self._auth.begin(argument))

    def _auth_continue(self, result: Reply | Presented) -> None:
        if self._auth is not None and self._auth.tolerated:
            self._auth.tolerated = False
            self._observer.tolerated(Tolerance.AUTH_FORM)
        if isinstance(result, Presented):
            self._auth = None
            self._step = Authenticate(result.user, result.password)
            return
        if result.code != 334:
            self._auth = None
        self._say("AUTH", result)

    def _read_data(self, reader: DataReader) -> bool:
        """Feed what has arrived to the content; False when its end is still to come, or its memory."""
        waiting = self.lines.waiting
        if not waiting:
            return False
        self.starved = not reader.admits(waiting)
        if self.starved:
            return False
        rest = reader.feed(self.lines.take_all())
        if rest is None:
            return False
        if rest:
            self.lines.add(rest)
        self.reader = None
        envelope, decision = self.client.transaction.take()
        kinds = reader.tolerances
        if envelope.body == "8BITMIME":
            kinds.discard(Tolerance.EIGHT_BIT)
        if kinds:
            self._report_tolerances(kinds)
        refusal = reader.refusal
        if refusal is None:
            self._step = TakeMessage(envelope, decision, reader.content())
        else:
            reader.discard()
            self._say("DATA", refusal)
        return True

    # -- answers ------------------------------------------------------------------------------------------------------

    def _say(self, verb: str, answer: Reply) -> None:
        self.out += answer.wire()
        self._observer.replied(verb, answer)
        if answer.code >= 400 and self._patience.tried_by_refusal(verb, answer):
            self._close_with(verb, reply.TOO_MANY_ERRORS)

    def _close_with(self, verb: str, answer: Reply) -> None:
        if self.closed:
            return
        self.out += answer.wire()
        self._observer.replied(verb, answer)
        self.farewell = answer
        self.abandon()

    def _report_tolerances(self, kinds: set[Tolerance]) -> None:
        while kinds:
            self._observer.tolerated(kinds.pop())


def _told(verb: str) -> str:
    """What is no command may be anything, a password that came too late among it: it is not repeated."""
    return verb if verb in COMMANDS or verb in _HTTP_VERBS else "?"
