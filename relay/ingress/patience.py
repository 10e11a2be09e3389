"""How much of a client's speech that brings no mail a session bears."""

from typing import Final

from relay.core.reply import Reply

MAX_ERRORS: Final = 20  # refused commands since the last message, as Postfix's smtpd_hard_error_limit
MAX_IDLE_COMMANDS: Final = 100  # commands that carry no mail since the last message
MAX_AUTH_FAILURES: Final = 3

MAIL_VERBS: Final = frozenset({"MAIL", "RCPT", "DATA", "AUTH", "STARTTLS"})


class Patience:
    """The counts of one session. Each method says whether it is over."""

    def __init__(self) -> None:
        self._errors = 0
        self._idle_commands = 0
        self.auth_failures = 0

    def message_accepted(self) -> None:
        """What came before is forgiven."""
        self._errors = self._idle_commands = 0

    def tried_by_command(self, verb: str) -> bool:
        if verb in MAIL_VERBS:
            return False
        self._idle_commands += 1
        return self._idle_commands > MAX_IDLE_COMMANDS and verb != "QUIT"

    def tried_by_refusal(self, verb: str, answer: Reply) -> bool:
        # A refused recipient is a fault of the address list, not of the client's speech.
        if not answer.permanent or verb == "RCPT":
            return False
        self._errors += 1
        return self._errors >= MAX_ERRORS

    def tried_by_login(self, answer: Reply) -> bool:
        """A login has failed; only what was refused for good counts."""
        self.auth_failures += answer.permanent
        return self.auth_failures >= MAX_AUTH_FAILURES
