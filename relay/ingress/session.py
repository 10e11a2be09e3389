"""One client connection: the transport's side of the dialogue.

aiosmtpd's `SMTP` is the server class and keeps the session; the octets go through our own `Dialogue`: what one read
brought is worked through at once, and answered in one write. This class moves octets, keeps the one timer, begins TLS,
and has the dialogue's steps carried out. What takes its time is a task that the listener owns: a client that
half-closes or vanishes after its final dot decides nothing about its message any more.

An exception anywhere is a defect of ours: it is logged, the client hears `451 4.3.0` and nothing of the cause.
"""

import asyncio
import ssl
from collections.abc import Awaitable
from socket import AF_UNIX
from typing import Any, Final, cast

import structlog
from aiosmtpd.smtp import SMTP

from relay.config import IPAddress
from relay.core import reply
from relay.core.reply import Reply
from relay.ingress import errands
from relay.ingress.caller import Caller, handshake_problem
from relay.ingress.dialogue import Dialogue
from relay.ingress.pace import Pace
from relay.ingress.service import Service
from relay.ingress.steps import Authenticate, BeginTls, Step, TakeMessage
from relay.observe import log as events
from relay.sockets import peer_uid
from relay.timer import ProgressTimer
from relay.tls import serve_tls

log = structlog.get_logger()

TURN: Final = 128 * 1024  # octets of one read, after which others have their turn
READ_AHEAD: Final = 128 * 1024  # octets a client may send while it owes us patience; beyond, we stop reading
LINGER: Final = 1024 * 1024  # octets that a client may still send when we have hung up
STALL_SECONDS: Final = 10.0  # design, section 4 "Line ends"
CLOSE_SECONDS: Final = 10.0  # for the last reply to leave, and for TLS to shut down
QUIT_SECONDS: Final = 1.0  # for a client's QUIT, its close or its handshake when the relay is shutting down
HANDSHAKE_SECONDS: Final = 30.0
MEMORY_SECONDS: Final = 30.0  # for other messages to go; clients wait three minutes (RFC 5321 §4.5.3.2.5)


class SmtpSession(SMTP):
    """One connection to one listener; `sessions_of` makes the class that has what all of a listener's share."""

    def __init__(self, service: Service, session_id: str) -> None:
        self.id = session_id
        self.peername: Any = None
        self.peer: IPAddress | None = None
        self.client = ""
        self._service = service
        self._wire: asyncio.Transport
        self._caller: Caller
        self._dialogue: Dialogue
        self._ahead = service.settings.memory.share()
        self._timer = ProgressTimer(self.loop, self._expired)
        self._pace = Pace(service.command_timeout)
        self._received = 0
        self._busy = False
        self._securing = False  # the TLS handshake is under way
        self._logging_in = False
        self._eof = False
        self._linger_until = 0  # octets received in all
        self._reading_paused = False
        self._writing_paused = False
        self._draining = False
        self._answered = False
        self._gone = False

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        service = self._service
        self._wire = cast("asyncio.Transport", transport)
        self.session = self._create_session()
        self.session.peer = self.peername or transport.get_extra_info("peername")
        uid = None
        if not isinstance(self.session.peer, tuple):
            sock = transport.get_extra_info("socket")
            if sock.family != AF_UNIX:  # it was reset before it was accepted: nobody is there, and has no rights
                self._gone = True
                self._wire.abort()
                return
            uid = peer_uid(sock)
        self._caller = caller = Caller(service, self.id, self.session.peer, uid)
        self.peer, self.client = caller.address, caller.name
        plain_auth = caller.on_host or service.plain_auth_off_host
        self._dialogue = Dialogue(service.settings, caller.choose, caller, plain_auth=plain_auth)
        refusal = service.admit(self)
        caller.opened()
        if refusal is not None:
            self._end(refusal, "refused at connect")
            if service.implicit_tls:
                self._dialogue.out.clear()  # in clear, nobody would understand it
        elif service.implicit_tls:
            self._dialogue.begin_with_tls()
        else:
            self._dialogue.greet()
        self._work()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._linger_until:
            if self._received > self._linger_until:
                self._wire.abort()
            return
        self._dialogue.receive(data)
        if self._busy:
            self._keep_waiting()
        else:
            self._work()
            if len(data) >= TURN:
                self._give_way()

    def eof_received(self) -> bool:
        """A half-close: what was sent before it still counts, and on plain TCP its answer can still be given."""
        self._eof = True
        self._work()
        return not self._dialogue.client.tls

    def connection_lost(self, error: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        self._timer.end()
        self._dialogue.abandon()
        self._ahead.release()
        if not self._logging_in:
            self._service.forget(self)
        self._caller.closed(self._dialogue.messages, self._dialogue.farewell, lost=error is not None)

    def pause_writing(self) -> None:
        """The client does not read what it is answered: it is not read from either."""
        self._writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._work()

    # -- the listener's side ------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """No new mail: say 421 as soon as the message in hand is answered and the client has had a moment for its QUIT.

        Who has only just come, or has begun a transaction, may bring that one message: 421 would refuse it. Anybody
        else may have been answered just before, with the QUIT on its way.
        """
        self._draining = True
        client = self._dialogue.client
        client.leaving = self._answered or (self._dialogue.messages > 0 and not client.transaction.open)
        self._answered |= client.leaving
        if self._securing:
            self._timer.give(QUIT_SECONDS)
        self._work()

    def abort(self) -> None:
        """The time to drain is over."""
        if not self._gone:
            self._caller.reason = "aborted at shutdown"
            self._wire.abort()

    # -- work ---------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Let the dialogue go on as far as it can, and see to what it needs. While a step takes its time it cannot."""
        dialogue = self._dialogue
        if self._busy or self._gone or self._writing_paused:
            return
        if self._reading_paused:
            self._reading_paused = False
            self._wire.resume_reading()
        rest: Awaitable[None] | None = None
        try:
            while rest is None and (step := dialogue.advance()) is not None:
                rest = self._carry_out(step)
        except Exception:
            self._defect()
        if rest is None:
            if self._draining:
                self._take_leave()
            self._answered = False
        if dialogue.out:
            if not self._wire.is_closing():
                self._wire.write(bytes(dialogue.out))
            dialogue.out.clear()
        if rest is not None:
            self._busy = True
            self._timer.stop()
            self._pace.restart()
            self._keep_waiting()
            self._service.spawn(self._await(rest))
        elif dialogue.starved:
            self._await_memory()
        elif dialogue.closed or self._eof:
            # It may keep its end open for ever; where it has been told all, a stop does not wait for that.
            told = self._draining and not self._wire.get_write_buffer_size()
            self._timer.give(QUIT_SECONDS if told else CLOSE_SECONDS)
            self._hang_up()
        else:
            self._timer.until(self._deadline())

    def _take_leave(self) -> None:
        """Draining, with nothing in hand: say so, unless the client may still bring a message, or has just been
        answered. Then it is left a moment for its QUIT: some take a 421 in its place for the failure of the message.
        """
        dialogue = self._dialogue
        if dialogue.client.leaving and not (dialogue.closed or self._answered):
            self._end(reply.SHUTTING_DOWN, "shutdown")

    def _hang_up(self) -> None:
        """Close. Who is still sending has its octets taken and dropped for a while: a close with something unread is a
        reset, and would take our last word from the client.
        """
        if self._dialogue.quit or self._eof or not (self._received and self._wire.can_write_eof()):
            self._wire.close()
        elif not self._linger_until:
            self._linger_until = self._received + LINGER
            self._wire.write_eof()

    def _carry_out(self, step: Step) -> Awaitable[None] | None:
        """One step. What is left of it, if anything is, becomes a task that outlives the connection if it must."""
        match step:
            case TakeMessage():
                self._answered = True
                self._dialogue.client.leaving = self._draining
                return errands.take(step, self._service, self._caller, self._dialogue)
            case Authenticate():
                self._logging_in = True
                return errands.log_in(step, self._service, self._caller, self._dialogue)
            case BeginTls():
                return self._begin_tls()

    async def _await(self, rest: Awaitable[None]) -> None:
        try:
            await rest
        except Exception:
            self._defect()
        self._busy = False
        if self._logging_in:
            self._logging_in = False
            if self._gone:  # until now it counted: who hangs up and comes again must not heap up verifications
                self._service.forget(self)
        self._ahead.release()
        self._work()

    def _defect(self) -> None:
        log.exception(events.INTERNAL_ERROR, session=self.id)
        self._end(reply.INTERNAL_ERROR, "internal error")

    def _await_memory(self) -> None:
        """Read nothing more until there is room for what has been read."""
        self._pause_reading()
        self._timer.give(MEMORY_SECONDS)
        self._pace.restart()
        self._dialogue.await_memory(self._work_soon)

    def _work_soon(self) -> None:
        self.loop.call_soon(self._work)

    def _keep_waiting(self) -> None:
        """What comes while a step takes its time waits, and counts. Where it is much, no more of it is read."""
        waiting = self._dialogue.lines.waiting
        if waiting > READ_AHEAD or not self._ahead.reach(waiting):
            self._ahead.settle(waiting)
            self._pause_reading()

    def _give_way(self) -> None:
        """uvloop reads on for as long as there is more, up to 32 times 256 kB: others have their turn first."""
        if not (self._busy or self._reading_paused):
            self._pause_reading()
            self._work_soon()

    def _pause_reading(self) -> None:
        if not (self._reading_paused or self._gone):
            self._reading_paused = True
            self._wire.pause_reading()

    def _begin_tls(self) -> Awaitable[None]:
        assert self._service.tls is not None
        self._securing = self._reading_paused = True  # the ClientHello is for TLS to read
        handshake = serve_tls(
            self._wire,
            self,
            self._service.tls.context,
            handshake_seconds=HANDSHAKE_SECONDS,
            close_seconds=CLOSE_SECONDS,
        )
        return self._end_handshake(handshake)

    async def _end_handshake(self, handshake: Awaitable[asyncio.Transport | None]) -> None:
        try:
            secured = await handshake
        except (OSError, ssl.SSLError) as error:
            self._caller.reason = f"TLS handshake failed: {handshake_problem(error)}"
            error.__traceback__ = None  # it holds start_tls, which holds it, and with them all of this connection
            self._wire.abort()
            self.connection_lost(None)
            return
        if secured is None:
            self._caller.reason = "closed during the TLS handshake"
            self.connection_lost(None)
            return
        self._securing = self._reading_paused = False
        self._wire = secured
        self._caller.upgraded(secured.get_extra_info("ssl_object").version())
        self._dialogue.upgraded()
        if self._service.implicit_tls:
            self._dialogue.greet()

    def _end(self, answer: Reply, reason: str) -> None:
        self._caller.reason = reason
        self._dialogue.end(answer)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        """Until when the client may go on as it does where it is now."""
        dialogue, now = self._dialogue, self.loop.time()
        reader = dialogue.reader
        deadline = self._pace.deadline(now, dialogue.lines.taken, self._received, in_data=reader is not None)
        if reader is not None:
            return min(now + STALL_SECONDS, deadline) if reader.stalled else deadline
        return min(now + QUIT_SECONDS, deadline) if self._draining else deadline

    def _expired(self) -> None:
        dialogue = self._dialogue
        if dialogue.closed or self._writing_paused or self._securing:
            self._wire.abort()
        elif dialogue.starved:
            dialogue.do_without_memory()
            self._work()
        elif self._eof:
            self._wire.abort()
        else:
            if dialogue.reader is not None and dialogue.reader.stalled:
                self._end(reply.BARE_LF_STALL, "data ended with bare LF")
            elif self._draining:
                self._end(reply.SHUTTING_DOWN, "shutdown")
            elif self._pace.trickled:
                self._end(reply.TOO_SLOW, "too slow")
            else:
                self._end(reply.IDLE_TOO_LONG, "idle")
            self._work()


def sessions_of(service: Service, loop: asyncio.AbstractEventLoop) -> type[SmtpSession]:
    """The sessions of one listener: what aiosmtpd knows of any session stands in their class.

    It looks through all its methods to find that out, and once will do: for each connection it took longer than
    everything else.
    """
    known = vars(SMTP(handler=None, hostname=service.settings.hostname, ident="sparkpost-relay", loop=loop))
    return type("ListenerSession", (SmtpSession,), dict(known))
