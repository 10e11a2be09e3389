"""How much of a client's speech that brings no mail a session bears."""

from typing import Final

from relay.core.limit import Limit
from relay.core.reply import Reply

MAX_ERRORS: Final = 20  # refused commands since the last message, as Postfix's smtpd_hard_error_limit
MAX_IDLE_COMMANDS: Final = 100  # commands that carry no mail since the last message
MAX_VAIN_RECIPIENTS: Final = 100_000  # since the last message: a long list, and nobody waits for the end of a longer
MAX_PUT_OFF: Final = 100  # commands since the last message that were told to come later, and came at once
MAX_AUTH_FAILURES: Final = 3

MAIL_VERBS: Final = frozenset({"MAIL", "RCPT", "DATA", "AUTH", "STARTTLS"})


class Patience:
    """The counts of one session. Each method says whether it is over."""

    __slots__ = ("_errors", "_idle_commands", "_put_off", "_vain_recipients", "auth_failures")

    def __init__(self) -> None:
        self._errors = 0
        self._idle_commands = 0
        self._put_off = 0
        self._vain_recipients = 0
        self.auth_failures = 0

    def message_accepted(self) -> None:
        """What came before is forgiven."""
        self._errors = self._idle_commands = self._put_off = self._vain_recipients = 0

    def tried_by_command(self, verb: str) -> bool:
        """By one that is none of MAIL_VERBS."""
        self._idle_commands += 1
        return self._idle_commands > MAX_IDLE_COMMANDS and verb != "QUIT"

    def tried_by_recipient(self) -> bool:
        """By one that is refused, or was named before: a fault of the address list, not of the client's speech."""
        self._vain_recipients += 1
        return self._vain_recipients > MAX_VAIN_RECIPIENTS

    def tried_by_refusal(self, verb: str, answer: Reply) -> bool:
        if verb == "RCPT":
            return self.tried_by_recipient()
        if answer.permanent:
            self._errors += 1
            return self._errors >= MAX_ERRORS
        if verb == "DOT":  # a whole message was brought
            return False
        self._put_off += 1
        return self._put_off >= MAX_PUT_OFF

    def tried_by_login(self, answer: Reply) -> bool:
        """A login has failed; only what was refused for good counts, and what was not even looked at."""
        self.auth_failures += answer.permanent or answer.limit is Limit.AUTH_BAN
        return self.auth_failures >= MAX_AUTH_FAILURES
