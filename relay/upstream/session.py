"""One authenticated connection to SparkPost, and the transactions on it, one behind the other in one stream.

The content of a message, its dot, and MAIL, RCPT and DATA of the next leave in one flight (RFC 2920 lets commands
follow a message), so a message costs one round trip while there are more. Who speaks has *the floor*: from MAIL to the
dot. Replies come in order; each is handed to the transaction that it answers.

From the moment the dot's octets are handed to the transport, having no reply means that nobody knows: a failure then is
of phase DOT, and only then. A connection that breaks tells every transaction on it where it stood: those whose dot had
not left were certainly not accepted, and may be sent elsewhere at once.

A transaction that waits behind another's dot has nothing to lose: when that takes long it leaves, and the connection is
given up as soon as the dot has been answered. One on a connection that has rested leaves it if nothing is heard soon:
NAT forgets, peers vanish. A session that was cancelled, timed out, or heard what is no answer is never used again.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from relay.core.envelope import Envelope, Recipient
from relay.core.login import Endpoint, Login
from relay.core.message import Content
from relay.core.outcome import Answer, Fact, Failure, FailureKind, Phase
from relay.core.ports import Effort
from relay.core.reply import Reply
from relay.observe import log as events
from relay.timer import NEVER, ProgressTimer
from relay.upstream.job import Job
from relay.upstream.outflow import Outflow
from relay.upstream.replies import Gibberish, ReplyReader
from relay.upstream.stuffing import stuffed
from relay.upstream.timeouts import BEHIND_SECONDS, LEAVE_SECONDS, REST_SECONDS, SUSPECT_SECONDS, SessionTimeouts
from relay.upstream.transaction import Features, Move, Transaction

log = structlog.get_logger()

QUIT_SECONDS: Final = 2.0

_TOO_LATE: Final = Failure(Phase.MAIL, FailureKind.DEADLINE, "the messages before it on the connection take long")


class Session(asyncio.Protocol):
    """A connection that is logged in."""

    def __init__(
        self,
        transport: asyncio.Transport,
        login: Login,
        endpoint: Endpoint,
        features: Features,
        timeouts: SessionTimeouts,
        *,
        messages: int,
        chained: bool,
        on_misbehaviour: Callable[[], None],
    ) -> None:
        """`messages`: how many it carries before it says goodbye. `chained`: a transaction may begin before the one
        before it has been answered. `on_misbehaviour` is called when replies do not fit the commands.
        """
        self.login = login
        self.endpoint = endpoint
        self.messages = 0
        self.pushed_back = False  # it was asked to be spared
        self.suspect = False  # it had rested, and has not been heard since
        self._transport = transport
        self._features = features
        self._timeouts = timeouts
        self._limit = messages
        self._chained = chained and features.pipelining
        self._on_misbehaviour = on_misbehaviour
        self._loop = asyncio.get_running_loop()
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._expected: deque[Job] = deque()  # whose reply comes next; one entry for each
        self._unsaid = 0  # of them, the last ones: what they answer is still in `_out`
        self._floor: Job | None = None
        self._next: deque[Job] = deque()
        self._outflow = Outflow(transport)
        self._broken = False
        self._doomed = False
        self._answered = 0  # final dots
        self._goodbye: asyncio.Future[None] | None = None
        self._head_since = self._loop.time()  # while nothing is expected: when it was heard last
        self._timer = ProgressTimer(self._loop, self._expired)

    # -- what the pool asks -------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """False once it is closed, broken, given up, said goodbye to, or has said something nobody asked for."""
        ended = self._broken or self._doomed or self._goodbye is not None or self._transport.is_closing()
        return not ended and self._reader.empty

    @property
    def takes_more(self) -> bool:
        """May another transaction be begun before those on it are over?"""
        return self._chained and self.usable

    # -- one transaction ----------------------------------------------------------------------------------------------

    async def transact(
        self, envelope: Envelope, recipients: Sequence[Recipient], content: Content, effort: Effort, *, patience: float
    ) -> list[Fact]:
        """Send one message in one transaction; the fact for each recipient, in order.

        `patience` seconds for everything up to 354, then the effort's at most without progress. Aborts if cancelled.
        """
        transaction = Transaction(envelope, recipients, content, self._features, whole=effort.whole)
        job = Job(transaction, content, effort, self._loop.time() + patience, self._loop.create_future())
        if self._broken or self._doomed or self._goodbye is not None:
            job.end(Failure(Phase.MAIL, FailureKind.LOST, "connection closed at MAIL"))
            return await job.done
        self.messages += 1
        self._next.append(job)
        self._go_on()
        try:
            return await job.done
        except asyncio.CancelledError:
            if job in self._next:
                self._next.remove(job)
            elif job.done.cancelled():  # else its answer has come, and the dialogue goes on
                self._break(FailureKind.LOST, "aborted")
            raise

    # -- speaking -----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Give the floor to the next transaction if it is free, and send what there is to say."""
        while self._floor is None and self._next and (self._chained or not self._expected):
            job = self._next.popleft()
            if self._loop.time() >= job.deadline:
                job.end(_TOO_LATE)
            else:
                self._floor = job
                self._speak(job)
        self._flush()
        self._arm()

    def _speak(self, job: Job) -> None:
        commands = job.transaction.say()
        self._out.append("\r\n".join([*commands, ""]).encode())
        self._expect(job, len(commands))

    def _expect(self, job: Job, replies: int = 1) -> None:
        if not self._expected:
            self.suspect = self._loop.time() >= self._head_since + REST_SECONDS
            self._head_since = self._loop.time()
        self._expected.extend([job] * replies)
        self._unsaid += replies

    def _flush(self) -> None:
        if self._out and not self._broken:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._unsaid = 0

    def _send_content(self, job: Job) -> None:
        """The content and the final dot: small content at once, large content at the pace the peer takes it."""
        chunks = stuffed(job.content, eight_bit_ok=self._features.eight_bit)
        try:
            first, second = next(chunks, b""), next(chunks, None)
        except OSError as error:
            self._unreadable(job, error)
            return
        except Exception:
            self._defect()
            return
        if second is None:
            self._send_dot(job, first)
        else:
            job.stream = self._loop.create_task(self._stream(job, first, itertools.chain([second], chunks)))

    def _send_dot(self, job: Job, octets: bytes) -> None:
        """The last of the content with the dot behind it; the floor is free then."""
        if not job.effort.permit.ask():
            text = "the claim on the message ran out before the final dot"
            job.transaction.conclude(Failure(Phase.DATA, FailureKind.LEASE, text))
            self._break(FailureKind.LOST, "aborted")
            return
        self._out.append(octets + b".\r\n")
        job.dot_sent = True
        job.deadline = NEVER
        self._expect(job)
        self._floor = None
        if self.messages >= self._limit:
            self._part()

    def _part(self) -> None:
        """Say goodbye, with the last dot if it has not left yet, when nothing more is to be said."""
        if self._floor is None and not self._next and self._goodbye is None:
            self._goodbye = self._loop.create_future()
            self._out.append(b"QUIT\r\n")

    async def _stream(self, job: Job, first: bytes, rest: Iterator[bytes]) -> None:
        seconds = min(job.effort.patience, self._timeouts.data_progress)
        job.deadline = NEVER
        try:
            last = await self._outflow.pour(first, rest, seconds)
        except TimeoutError:
            text = f"the content stood still for {seconds:g} s"
            job.transaction.conclude(Failure(Phase.DATA, FailureKind.TIMEOUT, text))
            self._break(FailureKind.TIMEOUT, text)
        except OSError as error:
            self._unreadable(job, error)
        except Exception:
            self._defect()
        else:
            if last is not None:
                self._send_dot(job, last)
                self._go_on()

    def _defect(self) -> None:
        """Of ours, in what the content goes through; the place is in the log."""
        log.exception(events.INTERNAL_ERROR)
        self._break(FailureKind.LOST, "aborted")

    def _unreadable(self, job: Job, error: OSError) -> None:
        text = f"the content cannot be read: {error.strerror}"
        job.transaction.conclude(Failure(Phase.DATA, FailureKind.LOST, text))
        self._break(FailureKind.LOST, text)

    # -- hearing ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.suspect = False
        try:
            self._reader.feed(data, self._hear)
        except Gibberish as error:
            self._on_misbehaviour()
            self._break(FailureKind.PROTOCOL, str(error))
            return
        self._go_on()

    def _hear(self, reply: Reply) -> None:
        if self._broken:
            return
        if len(self._expected) == self._unsaid:
            self._unasked(reply)
            return
        job = self._expected.popleft()
        # 421 to a later MAIL is how a server ends a connection that has carried enough.
        if reply.code == 421 and (job.transaction.phase is not Phase.MAIL or not self._answered):
            self.pushed_back = True
        self._head_since = self._loop.time()
        if job.dot_sent:
            self._answered += 1
            move = job.transaction.hear_dot(reply)
        else:
            move = job.transaction.hear(reply)
        match move:
            case Move.LISTEN:
                pass
            case Move.CONTENT:
                self._send_content(job)
            case Move.DONE:
                if self._floor is job:
                    self._floor = None
                job.finish()
                if self._doomed and all(other.done.done() for other in self._expected):
                    self._break(FailureKind.LOST, "given up")
            case Move.SPEAK:
                self._speak(job)
            case Move.DECLINE | Move.RESET:
                self._out.append(b".\r\n" if move is Move.DECLINE else b"RSET\r\n")
                self._expect(job)
                job.deadline = self._loop.time() + min(LEAVE_SECONDS, self._timeouts.command)
            case Move.ABORT:
                job.finish()
                if job.transaction.confused:
                    self._on_misbehaviour()
                self._break(FailureKind.LOST, "connection given up")

    def _unasked(self, reply: Reply) -> None:
        """A reply to nothing that has left: a refusal is the answer to content that is on its way, else a farewell."""
        if self._goodbye is not None and not self._expected:
            if not self._goodbye.done():
                self._goodbye.set_result(None)
            return
        job = self._expected[0] if self._expected else self._floor
        confused = job is not None and reply.positive
        if confused:
            self._on_misbehaviour()
        elif job is not None and (job.dot_sent or job.stream is not None):
            job.transaction.conclude(Answer(Phase.DATA, reply))
        self._break(FailureKind.PROTOCOL if confused else FailureKind.LOST, f"unasked for: {reply}")

    def connection_lost(self, error: Exception | None) -> None:
        self._break(FailureKind.LOST, "connection reset" if error else "connection closed")

    def eof_received(self) -> None:
        self._break(FailureKind.LOST, "connection closed")

    def pause_writing(self) -> None:
        self._outflow.pause()

    def resume_writing(self) -> None:
        self._outflow.resume()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        """When something must have happened."""
        due = NEVER
        if self._expected:
            head = self._expected[0]
            due = self._head_since + self._limit_of(head)
            if self._floor is not None and self._floor is not head and not self._doomed:
                due = min(due, self._head_since + BEHIND_SECONDS)
        if self._floor is not None:
            due = min(due, self._floor.deadline)
            if self._floor.stream is not None:  # nothing else limits how long it takes
                due = min([due, *(job.deadline for job in self._next)])
        return due

    def _limit_of(self, head: Job | None) -> float:
        limit = self._timeouts.final_dot if head is not None and head.dot_sent else self._timeouts.command
        return min(limit, SUSPECT_SECONDS) if self.suspect else limit

    def _arm(self) -> None:
        if not self._broken:
            self._timer.until(self._deadline())

    def _expired(self) -> None:
        now = self._loop.time()
        for job in [job for job in self._next if now >= job.deadline]:
            self._next.remove(job)
            job.end(_TOO_LATE)
        if now >= self._deadline():
            self._overdue(now)
        self._arm()

    def _overdue(self, now: float) -> None:
        floor, head = self._floor, self._expected[0] if self._expected else None
        limit = self._limit_of(head)
        if floor is not None and head is not floor and head is not None and now < self._head_since + limit:
            # Somebody's dot is being thought about. Who waits behind it goes elsewhere: nothing of it was accepted.
            text = "another message on the connection takes long"
            kind = FailureKind.DEADLINE if now >= floor.deadline else FailureKind.LOST
            floor.end(Failure(floor.transaction.phase, kind, text))
            for job in self._next:
                job.end(Failure(Phase.MAIL, FailureKind.LOST, text))
            self._next.clear()
            self._floor = None
            self._doomed = True
        elif floor is not None and now >= floor.deadline:
            phase = floor.transaction.phase
            text = f"SparkPost did not answer {phase.value.upper()} in time"
            floor.transaction.conclude(Failure(phase, FailureKind.DEADLINE, text))
            self._break(FailureKind.TIMEOUT, text)
        else:
            self._break(FailureKind.LOST if self.suspect else FailureKind.TIMEOUT, f"no answer within {limit:g} s")

    # -- its end ------------------------------------------------------------------------------------------------------

    def _break(self, kind: FailureKind, detail: str) -> None:
        """Close without a word, and tell every transaction where it stood.

        `kind` is for the one that was under way; those behind it have merely lost their connection.
        """
        if self._broken:
            return
        self._broken = True
        jobs = [*self._expected, *([self._floor] if self._floor is not None else []), *self._next]
        unsaid = jobs[len(self._expected) - self._unsaid :]
        self._expected.clear()
        self._next.clear()
        self._floor = None
        for job in jobs:
            phase = Phase.DOT if job.dot_sent and job not in unsaid else job.transaction.phase
            job.end(Failure(phase, kind if job is jobs[0] else FailureKind.LOST, f"{detail} at {phase.value.upper()}"))
        self._outflow.stop()
        self._out.clear()
        self._timer.end()
        if self._goodbye is not None and not self._goodbye.done():
            self._goodbye.set_result(None)
        self._transport.abort()

    def abort(self) -> None:
        """Close without a word: the state of the dialogue is unknown or does not matter."""
        self._break(FailureKind.LOST, "aborted")

    def end_after(self, messages: int) -> None:
        """Carry so many in all, and say goodbye behind the last one's dot; at once, if that has left."""
        self._limit = messages
        if self.messages >= messages and self._expected:
            self._part()
            self._go_on()

    async def quit(self) -> None:
        """Say goodbye if there is anybody to hear it, then close at once: TLS need not be waited for (D2.16)."""
        if self.usable and not self._expected:
            self._part()
            self._flush()
        if self._goodbye is not None and not self._broken:
            await asyncio.wait([self._goodbye], timeout=QUIT_SECONDS)
        self.abort()
