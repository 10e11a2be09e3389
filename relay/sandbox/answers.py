"""What the sandbox says, and what it does after saying it.

The texts of the ordinary dialogue are those of SparkPost's published transcript; the refusals are documented, or are
those of its engine where nothing better is known. `Answer` is the one value by which the dialogue, the magic addresses
and the modes of a port tell the connection what to do.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Self


class Then(Enum):
    """What follows the octets of an answer."""

    GO_ON = auto()
    START_TLS = auto()
    CLOSE = auto()  # in good order
    DROP = auto()  # at once, as a crash or a middlebox would
    DROP_ON_INPUT = auto()  # at the client's next octet
    HANG = auto()  # nothing more is read or said
    FLOOD = auto()  # the answer is repeated until the client leaves


@dataclass(frozen=True, slots=True)
class Answer:
    """`reply` after `delay` seconds, then `then`. No reply and GO_ON means: the usual answer, only later."""

    reply: bytes = b""
    then: Then = Then.GO_ON
    delay: float = 0.0

    @classmethod
    def verbatim(cls, reply: bytes) -> Self:
        """The answer that says `reply`; a 421 closes the connection (RFC 5321 §3.8)."""
        return cls(reply, Then.CLOSE if reply.startswith(b"421") else Then.GO_ON)

    @classmethod
    def line(cls, text: str) -> Self:
        """The answer of one line, given without its end; characters outside ASCII become `?`."""
        return cls.verbatim(text.encode("ascii", "replace") + b"\r\n")

    @property
    def confirms(self) -> bool:
        """Whether it is a reply of success, which a client can read to its end."""
        return self.reply.startswith((b"2", b"3")) and self.then is not Then.FLOOD

    @property
    def refuses(self) -> bool:
        return self.reply.startswith((b"4", b"5"))

    @property
    def overrules(self) -> bool:
        """Whether it stands instead of the command itself, not only of the reply to it."""
        return self.refuses or self.then is not Then.GO_ON

    def instead_of(self, usual: "Answer") -> "Answer":
        """This answer where `usual` would have been given."""
        if self.then is Then.GO_ON:
            return Answer(self.reply or usual.reply, usual.then, self.delay)
        return self


# -- the ordinary dialogue (transcript in fact sheet 1.2) --------------------------------------------------------------

MAIL_ACCEPTED: Final = Answer.line("250 2.0.0 MAIL FROM accepted")
RCPT_ACCEPTED: Final = Answer.line("250 2.0.0 RCPT TO accepted")
SEND_CONTENT: Final = Answer.line('354 3.0.0 continue.  finished with "\\r\\n.\\r\\n"')
TLS_READY: Final = Answer(b"220 2.0.0 continue\r\n", Then.START_TLS)
OK: Final = Answer.line("250 2.0.0 OK")
USERNAME_PROMPT: Final = Answer.line("334 VXNlcm5hbWU6")
PASSWORD_PROMPT: Final = Answer.line("334 UGFzc3dvcmQ6")
EMPTY_PROMPT: Final = Answer(b"334 \r\n")

AUTH_ACCEPTED: Final = Answer.line("235 2.0.0 Authed. Go on.")
AUTH_REFUSED: Final = Answer.line("535 5.7.8 Sorry.")
AUTH_ACCEPTED_NEWER: Final = Answer.line("235 2.7.0 Authentication successful")  # RFC 4954 wording, engine 4.3.1 on
AUTH_REFUSED_NEWER: Final = Answer.line("535 5.7.8 Authentication credentials invalid")

# -- refusals ----------------------------------------------------------------------------------------------------------

RELAYING_DENIED: Final = Answer.line("550 5.7.1 relaying denied")
BAD_REVERSE_PATH: Final = Answer.line("501 5.5.2 syntax error MAIL FROM")
BAD_FORWARD_PATH: Final = Answer.line("501 5.5.2 RCPT TO syntax error")
HELLO_NEEDED: Final = Answer.line("550 5.5.1 RFC2821 HELO/EHLO needed")
HELLO_NEEDS_NAME: Final = Answer.line("501 5.5.4 EHLO/HELO needs a name")
UNRECOGNIZED: Final = Answer.line("500 5.5.2 unrecognized command")
LINE_TOO_LONG: Final = Answer(b"500 5.5.2 line too long\r\n", Then.CLOSE)
NESTED_MAIL: Final = Answer.line("503 5.5.1 MAIL FROM already given")
RCPT_WITHOUT_MAIL: Final = Answer.line("503 5.5.1 RCPT TO without MAIL FROM")
DATA_WITHOUT_RCPT: Final = Answer.line("503 5.5.1 DATA without RCPT TO")
TLS_ALREADY: Final = Answer.line("503 5.5.1 TLS already active")
TLS_INJECTION: Final = Answer(b"554 5.5.1 commands were pipelined after STARTTLS\r\n", Then.CLOSE)
PIPELINING_NOT_OFFERED: Final = Answer(b"554 5.5.1 pipelining was not offered\r\n", Then.CLOSE)
AUTH_NEEDS_TLS: Final = Answer.line("530 5.7.0 Must issue a STARTTLS command first")
AUTH_ALREADY: Final = Answer.line("503 5.5.1 already authenticated")
AUTH_IN_TRANSACTION: Final = Answer.line("503 5.5.1 AUTH not permitted during a mail transaction")
AUTH_UNKNOWN: Final = Answer.line("504 5.5.4 unrecognized authentication type")
AUTH_SYNTAX: Final = Answer.line("501 5.5.2 cannot decode the AUTH response")
AUTH_CANCELLED: Final = Answer.line("501 5.7.0 authentication cancelled")

TOO_MANY_CONNECTIONS: Final = Answer.line("421 4.4.5 Service unavailable, concurrency limit reached")
TOO_MANY_MESSAGES: Final = Answer.line("421 4.4.5 Service unavailable, messages per connection limit reached")
TOO_MANY_RECIPIENTS: Final = Answer.line("452 4.5.3 Service unavailable, recipients per message limit reached")
IDLE_TOO_LONG: Final = Answer.line("421 4.4.2 idle for too long, closing connection")
TRANSACTION_FAILED: Final = Answer.line("451 4.3.0 transaction failed")
TOO_LARGE: Final = Answer.line("552 5.3.4 message size limit exceeded")


def unknown_parameter(keyword: str) -> Answer:
    """An ESMTP parameter whose extension was not offered (RFC 5321 §4.1.1.11)."""
    return Answer.line(f"555 5.5.4 unrecognized parameter {keyword}")


def accepted(token: str) -> Answer:
    return Answer.line(f"250 2.0.0 OK {token}")
