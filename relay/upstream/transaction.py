"""One mail transaction as the client's side of a dialogue: what to say, and what the replies mean. Pure.

A transaction is opened with a flight of commands, hears their replies in order, and answers with its next move. `MOVES`
says what may come of a reply; the rules are those of RFC 2920 §3.1 and of the design, section 4 "Flights":

* Every reply must be of a class that its command admits; anything else means that replies and commands no longer line
  up, and the connection is worth nothing any more.
* A 354 that will not be used is declined by a lone dot, and only where every recipient was refused: then no message can
  come of it. Any other ends the connection.
* Between all recipients or none (`whole`) and several recipients, DATA waits until all have been accepted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from relay.core.envelope import Envelope, Recipient
from relay.core.message import Content
from relay.core.outcome import Answer, Fact, Failure, FailureKind, Phase
from relay.core.reply import Reply

ADMITTED: Final[Mapping[Phase, tuple[int, ...]]] = {
    Phase.MAIL: (250,),
    Phase.RCPT: (250, 251),
    Phase.DATA: (354,),
    Phase.DOT: (250,),
}
_CLOSING: Final = 421


class Move(Enum):
    """What a transaction does next."""

    LISTEN = auto()  # more replies are on their way
    SPEAK = auto()  # the next flight of commands is to be said
    CONTENT = auto()  # the content and the final dot are to be sent
    DECLINE = auto()  # a lone dot is to be sent, which SparkPost must refuse
    RESET = auto()  # RSET is to be said
    DONE = auto()  # it is over, and the connection is free for the next one
    ABORT = auto()  # it is over, and so is the connection


@dataclass(frozen=True, slots=True)
class Features:
    """What the server offers under TLS, as far as it is to be used."""

    pipelining: bool
    eight_bit: bool
    size: bool


class Transaction:
    """One message, to some or all of its recipients. `facts` has what is known for each of them, in order; `confused`
    tells whether a reply was heard that its command does not admit.
    """

    def __init__(
        self, envelope: Envelope, recipients: Sequence[Recipient], content: Content, features: Features, *, whole: bool
    ) -> None:
        self.facts: list[Fact | None] = [None] * len(recipients)
        self.confused = False
        self._pipelining = features.pipelining
        self._data_early = features.pipelining and (len(recipients) == 1 or not whole)
        self._whole = whole
        self._commands = [_mail(envelope, content, features)]
        for recipient in recipients:
            self._commands.append(f"RCPT TO:<{recipient.address}>")
        self._said = 0
        self._heard = 0
        self._data: Reply | None = None
        self._leaving = False

    @property
    def phase(self) -> Phase:
        """What it waits for an answer to."""
        if self._heard == 0:
            return Phase.MAIL
        return Phase.RCPT if self._heard <= len(self.facts) else Phase.DATA

    def say(self) -> list[str]:
        """The commands of the next flight."""
        said = self._said
        if said == len(self._commands) or (said == 0 and self._data_early):
            self._commands.append("DATA")
        self._said = len(self._commands) if self._pipelining else said + 1
        return self._commands[said : self._said]

    def hear(self, reply: Reply) -> Move:
        """The reply to the next command that was said."""
        if self._leaving:
            return self._left(reply)
        phase = self.phase
        if reply.code not in ADMITTED[phase]:
            if reply.code == _CLOSING:
                return self._end(Answer(phase, reply))
            if reply.positive:
                self.confused = True
                text = f"{reply.code} is no answer to {phase.value.upper()}"
                return self._end(Failure(phase, FailureKind.PROTOCOL, text))
            self._refused(Answer(phase, reply))
        if phase is Phase.DATA:
            self._data = reply
        self._heard += 1
        if self._heard < self._said:
            return Move.LISTEN
        return self._onward()

    def _refused(self, answer: Answer) -> None:
        match answer.phase:
            case Phase.MAIL:
                self.facts = [answer] * len(self.facts)
            case Phase.RCPT:
                self.facts[self._heard - 1] = self.facts[self._heard - 1] or answer
            case _:
                self.conclude(answer)

    def _onward(self) -> Move:
        """All that was said has been answered."""
        more = self._heard < len(self.facts) + 1  # without PIPELINING: recipients that have not been named yet
        if more and not self._mail_refused:
            return Move.SPEAK
        if self._whole and any(self.facts):
            withheld = Failure(Phase.RCPT, FailureKind.WITHHELD, "not sent, because another recipient was refused")
            self.facts = [fact or withheld for fact in self.facts]
        if None in self.facts:
            return Move.SPEAK if self._data is None else Move.CONTENT
        self._leaving = True
        if self._data is None or self._data.code != 354:
            return Move.RESET
        # RFC 2920 §3.1: with every recipient refused a lone dot makes no message; behind a refused MAIL who knows.
        self.confused = self._mail_refused
        refused = all(isinstance(fact, Answer) and fact.phase is Phase.RCPT for fact in self.facts)
        return Move.DECLINE if refused else Move.ABORT

    @property
    def _mail_refused(self) -> bool:
        fact = self.facts[0]
        return isinstance(fact, Answer) and fact.phase is Phase.MAIL

    def _left(self, reply: Reply) -> Move:
        """The reply to RSET, or to a lone dot: whoever takes that for a message is not to be trusted with another."""
        declined = self._data is not None and self._data.code == 354
        self.confused = reply.positive and (declined or reply.code != 250)
        gone = reply.code == _CLOSING or self.confused or not (declined or reply.positive)
        return Move.ABORT if gone else Move.DONE

    def hear_dot(self, reply: Reply) -> Move:
        """The reply to the final dot, for all who get the content."""
        self.conclude(Answer(Phase.DOT, reply))
        self.confused = reply.code not in ADMITTED[Phase.DOT] and reply.positive
        return Move.ABORT if reply.code == _CLOSING or self.confused else Move.DONE

    def conclude(self, fact: Fact) -> None:
        """It ends here: that is what is known of everybody of whom nothing is known yet."""
        for number, known in enumerate(self.facts):
            if known is None:
                self.facts[number] = fact

    def _end(self, fact: Fact) -> Move:
        self.conclude(fact)
        return Move.ABORT


def _mail(envelope: Envelope, content: Content, features: Features) -> str:
    command = f"MAIL FROM:<{envelope.reverse_path}>"
    if features.eight_bit and content.eight_bit:
        command += " BODY=8BITMIME"
    if features.size:
        command += f" SIZE={content.size}"
    return command
