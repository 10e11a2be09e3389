"""One authenticated connection to SparkPost and the transactions on it.

The commands of a transaction leave in one flight where PIPELINING is offered (RFC 2920), the content follows the 354
with back-pressure, and small content takes the final dot with it in one write. From the moment the dot's octets are
handed to the transport, having no reply means that nobody knows: a failure then is of phase DOT, and only then.

A session that was cancelled, timed out, or heard anything that its commands do not admit is aborted and never used
again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay.core.envelope import Envelope, Recipient
from relay.core.login import Endpoint, Login
from relay.core.message import Content
from relay.core.outcome import Answer, Fact, Failure, FailureKind, Phase
from relay.core.ports import Effort, Permit
from relay.core.reply import Reply
from relay.upstream.replies import Gibberish, ReplyReader
from relay.upstream.stuffing import stuffed

QUIT_SECONDS: Final = 2.0
LEAVE_SECONDS: Final = 2.0  # the application waits, with its refusal already known
_ACCEPTED: Final = {Phase.MAIL: (250,), Phase.RCPT: (250, 251), Phase.DATA: (354,), Phase.DOT: (250,)}


@dataclass(frozen=True, slots=True)
class Features:
    """What the server offers under TLS."""

    pipelining: bool
    eight_bit: bool
    size: bool


@dataclass(frozen=True, slots=True)
class SessionTimeouts:
    """Seconds: for the reply to a command, for the content to move on, for the reply to the final dot."""

    command: float
    data_progress: float
    final_dot: float


class TransactionFailed(Exception):
    """The transaction is over; `fact` is what ended it."""

    def __init__(self, fact: Fact) -> None:
        super().__init__(str(fact))
        self.fact = fact


class Session(asyncio.Protocol):
    """A connection that is logged in. One transaction at a time."""

    def __init__(
        self,
        transport: asyncio.Transport,
        login: Login,
        endpoint: Endpoint,
        features: Features,
        timeouts: SessionTimeouts,
    ) -> None:
        self.login = login
        self.endpoint = endpoint
        self.messages = 0
        self._transport = transport
        self._features = features
        self._timeouts = timeouts
        self._reader = ReplyReader()
        self._replies: deque[Reply] = deque()
        self._expected = 0
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._phase = Phase.MAIL
        self._broken: FailureKind | None = None
        self._detail = ""

    def __repr__(self) -> str:
        return f"<Session {self.login} on {self.endpoint}, {self.messages} messages>"

    @property
    def usable(self) -> bool:
        """False once it is closed, broken, or has said something nobody asked for."""
        return self._broken is None and not self._transport.is_closing() and self._reader.empty and not self._replies

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._replies.extend(self._reader.feed(data))
        except Gibberish as error:
            self._break(FailureKind.PROTOCOL, f"{error}")
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._break(FailureKind.LOST, "connection reset" if error else "connection closed")

    def eof_received(self) -> None:
        self._break(FailureKind.LOST, "connection closed")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _break(self, kind: FailureKind, detail: str) -> None:
        if self._broken is None:
            self._broken, self._detail = kind, detail
        self._news.set()
        self._writable.set()
        self._transport.abort()

    def abort(self) -> None:
        """Close without a word: the state of the dialogue is unknown or does not matter."""
        self._break(FailureKind.LOST, "aborted")

    # -- one transaction ----------------------------------------------------------------------------------------------

    async def transact(
        self, envelope: Envelope, recipients: Sequence[Recipient], content: Content, effort: Effort, *, patience: float
    ) -> list[Fact]:
        """Send one message in one transaction; the fact for each recipient, in order.

        `patience` seconds for everything up to 354, then the effort's at most without progress. Aborts if cancelled.
        """
        self.messages += 1
        facts: list[Fact | None] = [None] * len(recipients)
        try:
            async with asyncio.timeout(patience) as limit:
                answers = await self._envelope(envelope, recipients, content, whole=effort.whole)
                limit.reschedule(None)
                facts = _facts(answers, len(recipients), whole=effort.whole)
                if None in facts:
                    stall = min(effort.patience, self._timeouts.data_progress)
                    fact = await self._content(content, stall, effort.permit)
                    facts = [known or fact for known in facts]
                else:
                    await self._leave(answers)
        except TransactionFailed as failed:
            if isinstance(failed.fact, Failure) or failed.fact.reply.code == 421:
                self.abort()
            return [known or failed.fact for known in facts]
        except TimeoutError:
            self.abort()
            text = f"SparkPost did not answer within {patience:.1f} s"
            return [Failure(self._phase, FailureKind.DEADLINE, text)] * len(recipients)
        except BaseException:
            self.abort()
            raise
        return [known for known in facts if known is not None]

    async def _envelope(
        self, envelope: Envelope, recipients: Sequence[Recipient], content: Content, *, whole: bool
    ) -> list[Answer]:
        """The answers to MAIL, RCPT and, as far as there was a point, DATA."""
        mail = f"MAIL FROM:<{envelope.reverse_path}>"
        if self._features.eight_bit and content.eight_bit:
            mail += " BODY=8BITMIME"
        if self._features.size:
            mail += f" SIZE={content.size}"
        commands = [(Phase.MAIL, mail), *((Phase.RCPT, f"RCPT TO:<{recipient}>") for recipient in recipients)]
        # DATA joins the flight, unless a refused recipient among several must keep the content back.
        data_early = self._features.pipelining and (len(recipients) == 1 or not whole)
        if data_early:
            commands.append((Phase.DATA, "DATA"))
        answers = await self._converse(commands)
        if not data_early and None in _facts(answers, len(recipients), whole=whole):
            answers += await self._converse([(Phase.DATA, "DATA")])
        return answers

    async def _converse(self, commands: list[tuple[Phase, str]]) -> list[Answer]:
        """Say the commands, in one flight if that is offered, and hear their answers.

        Raises TransactionFailed when an answer does not come, is of no class its command admits, or ends the session.
        """
        if self._features.pipelining:
            self._write("".join(f"{command}\r\n" for _, command in commands).encode())
            return [await self._answer(phase, self._timeouts.command) for phase, _ in commands]
        answers = []
        for phase, command in commands:
            self._write(f"{command}\r\n".encode())
            answers.append(await self._answer(phase, self._timeouts.command))
            if answers[-1].reply.code not in _ACCEPTED[phase] and phase is Phase.MAIL:
                break
        return answers

    async def _answer(self, phase: Phase, seconds: float) -> Answer:
        reply = await self._reply(phase, seconds)
        answer = Answer(phase, reply)
        if reply.code == 421:
            raise TransactionFailed(answer)
        if reply.positive and reply.code not in _ACCEPTED[phase]:
            raise TransactionFailed(
                Failure(phase, FailureKind.PROTOCOL, f"{reply.code} is no answer to {phase.value.upper()}")
            )
        return answer

    async def _reply(self, phase: Phase, seconds: float) -> Reply:
        self._phase = phase
        try:
            async with asyncio.timeout(seconds):
                while not self._replies:
                    if self._broken is not None:
                        raise TransactionFailed(
                            Failure(phase, self._broken, f"{self._detail} at {phase.value.upper()}")
                        )
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            text = f"no answer to {phase.value.upper()} within {seconds:g} s"
            raise TransactionFailed(Failure(phase, FailureKind.TIMEOUT, text)) from error
        return self._replies.popleft()

    async def _leave(self, answers: list[Answer]) -> None:
        """Leave no transaction behind; a session that cannot do that soon is given up, and hides no refusal (D2.7).

        A 354 that will not be used is declined by a lone dot, which is safe only when every recipient was refused
        (RFC 2920 §3.1).
        """
        declined = answers[-1].reply.code == 354
        if declined and answers[0].reply.code != 250:
            self.abort()
            return
        self._write(b".\r\n" if declined else b"RSET\r\n")
        try:
            reply = await self._reply(answers[-1].phase, min(LEAVE_SECONDS, self._timeouts.command))
        except TransactionFailed:
            self.abort()
            return
        if reply.positive if declined else reply.code != 250:
            self.abort()

    async def _content(self, content: Content, progress: float, permit: Permit) -> Fact:
        """The content and the final dot; the fact for all who get it."""
        pending = b""
        for chunk in stuffed(content, eight_bit_ok=self._features.eight_bit):
            if pending:
                await self._send(pending, progress)
            pending = chunk
        if self._replies or self._broken is not None:
            return await self._interrupted()
        if not permit.ask():
            self.abort()
            return Failure(Phase.DATA, FailureKind.LEASE, "the claim on the message ran out before the final dot")
        self._transport.write(pending + b".\r\n")
        answer = Answer(Phase.DOT, await self._reply(Phase.DOT, self._timeouts.final_dot))
        if answer.reply.code == 421 or (answer.reply.positive and answer.reply.code != 250):
            self.abort()
        return answer

    async def _send(self, octets: bytes, seconds: float) -> None:
        """Some content, at the pace the peer takes it."""
        if self._replies or self._broken is not None:
            raise TransactionFailed(await self._interrupted())
        self._transport.write(octets)
        if self._writable.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._writable.wait()
        except TimeoutError as error:
            text = f"the content stood still for {seconds:g} s"
            raise TransactionFailed(Failure(Phase.DATA, FailureKind.TIMEOUT, text)) from error

    async def _interrupted(self) -> Fact:
        """A reply came before the final dot, or the connection broke: that is the answer, and nothing more is sent."""
        if not self._replies:
            assert self._broken is not None
            return Failure(Phase.DATA, self._broken, f"{self._detail} while the content was sent")
        answer = Answer(Phase.DATA, self._replies.popleft())
        self.abort()
        return answer

    def _write(self, octets: bytes) -> None:
        if self._broken is None:
            self._transport.write(octets)

    async def quit(self) -> None:
        """Say goodbye if there is anybody to hear it, then close at once: TLS need not be waited for (D2.16)."""
        if self.usable:
            self._write(b"QUIT\r\n")
            with contextlib.suppress(TransactionFailed):
                await self._reply(Phase.MAIL, QUIT_SECONDS)
        self.abort()


def _facts(answers: list[Answer], count: int, *, whole: bool) -> list[Fact | None]:
    """Which fact holds for which recipient after the envelope; None for who gets the content.

    `whole`: all of them or none. DATA may not have been said yet.
    """
    mail, *others = answers
    if mail.reply.code != 250:
        return [mail] * count
    facts: list[Fact | None] = [answer if answer.reply.code >= 400 else None for answer in others[:count]]
    if whole and any(facts):
        withheld = Failure(Phase.RCPT, FailureKind.WITHHELD, "not sent, because another recipient was refused")
        return [known or withheld for known in facts]
    refused = [answer for answer in others[count:] if answer.reply.code != 354]
    return [known or refused[0] for known in facts] if refused else facts
