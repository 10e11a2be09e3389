"""One client connection: the transport's side of the dialogue.

aiosmtpd's `SMTP` is the server class and keeps the session; the octets go through our own `Dialogue`. This class moves
octets, keeps the one timer, begins TLS, and carries out the dialogue's steps, each in a task that the listener owns: a
client that half-closes or vanishes after its final dot decides nothing about its message any more.

An exception anywhere is a defect of ours: it is logged, the client hears `451 4.3.0` and nothing of the cause.
"""

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, cast

import structlog
from aiosmtpd.smtp import SMTP

from relay.core import reply
from relay.core.login import Login
from relay.core.ports import Bearer, Clock
from relay.core.reply import Reply
from relay.core.secret import MASK, Secret
from relay.ingress.auth import Authenticated
from relay.ingress.dialogue import Authenticate, BeginTls, Dialogue, DialogueSettings, Step, TakeMessage
from relay.ingress.reception import Provenance, Reception
from relay.observe import log as events
from relay.observe.metrics import Metrics
from relay.policy.identity import Client, Decision, Identities

log = structlog.get_logger()

READ_AHEAD: Final = 256 * 1024  # octets a client may send while it owes us patience; beyond, we stop reading
STALL_SECONDS: Final = 10.0  # design, section 4 "Line ends"
CLOSE_SECONDS: Final = 10.0  # for the last reply to leave, and for TLS to shut down
QUIT_SECONDS: Final = 1.0  # for a client's QUIT when the relay is shutting down
HANDSHAKE_SECONDS: Final = 30.0
AUTH_DELAY: Final = 1.0  # after the first failed login; doubled at each further one
NEVER: Final = float("inf")
_LOOKS_LIKE_A_KEY: Final = re.compile(r"[0-9A-Fa-f]{32,}")  # an API key typed where the user name belongs

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Authenticator(Protocol):
    """Finds out whether what a client presents is true."""

    async def authenticate(self, user: str, password: Secret) -> Authenticated: ...


@dataclass(frozen=True, slots=True)
class Service:
    """Everything the sessions of one listener share."""

    listener: str
    settings: DialogueSettings
    tls: ssl.SSLContext | None
    implicit_tls: bool
    identities: Identities
    bearer: Callable[[Decision, Login | None], Bearer]
    authenticator: Authenticator | None
    reception: Reception
    clock: Clock
    metrics: Metrics
    command_timeout: float
    plain_auth_off_host: bool
    admit: Callable[["SmtpSession"], Reply | None]
    forget: Callable[["SmtpSession"], None]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(slots=True)
class _Tally:
    """What one connection brought, for its last log line."""

    messages: int = 0
    reason: str = "closed by the client"
    tolerances: set[str] = field(default_factory=set)


class SmtpSession(SMTP):
    """One connection to one listener."""

    def __init__(self, service: Service, session_id: str) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(handler=None, hostname=service.settings.hostname, ident="sparkpost-relay", loop=loop)
        self.id = session_id
        self.peer: IPAddress | None = None
        self._service = service
        self._client = Client(listener=service.listener, address=None)
        self._wire: asyncio.Transport
        self._dialogue: Dialogue
        self._task: asyncio.Task[None] | None = None
        self._tally = _Tally()
        self._passthrough: Login | None = None
        self._eof = False
        self._reading_paused = False
        self._writing_paused = False
        self._draining = False
        self._deadline = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self.peer = peer_address(self.session.peer)
        self._client = Client(listener=self._service.listener, address=self.peer)
        on_host = self.peer is not None and self.peer.is_loopback
        self._dialogue = Dialogue(
            self._service.settings,
            lambda reverse_path: self._service.identities.choose(self._client, reverse_path),
            self,
            plain_auth=on_host or self._service.plain_auth_off_host,
        )
        refusal = self._service.admit(self)
        log.info(events.LINK_OPEN, session=self.id, listener=self._service.listener, peer=str(self.peer))
        if refusal is not None:
            self._end(refusal, "refused at connect")
            if self._service.implicit_tls:
                self._dialogue.out.clear()  # in clear, nobody would understand it
        elif self._service.implicit_tls:
            self._dialogue.begin_with_tls()
        else:
            self._dialogue.greet()
        self._work()

    def data_received(self, data: bytes) -> None:
        self._dialogue.receive(data)
        if self._task is None:
            self._work()
        if self._dialogue.waiting > READ_AHEAD:
            self._pause_reading()

    def eof_received(self) -> bool:
        """A half-close: what was sent before it still counts, and on plain TCP its answer can still be given."""
        self._eof = True
        if self._task is None:
            self._work()
        return not self._dialogue.tls

    def connection_lost(self, error: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        self._dialogue.abandon()
        self._service.forget(self)
        log.info(
            events.LINK_CLOSE,
            session=self.id,
            listener=self._service.listener,
            reason="connection lost" if error else self._tally.reason,
            messages=self._tally.messages,
        )

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._task is None:
            self._work()

    # -- the dialogue's side ------------------------------------------------------------------------------------------

    def replied(self, verb: str, answer: Reply) -> None:
        self._service.metrics.replies.labels(str(answer.code)).inc()
        if answer.code >= 400 and verb != "DOT":  # the reception tells of messages
            log.info(
                events.TX_REJECTED,
                session=self.id,
                listener=self._service.listener,
                command=verb,
                reply=str(answer),
            )

    def tolerated(self, kind: str) -> None:
        self._service.metrics.tolerances.labels(kind).inc()
        if kind not in self._tally.tolerances:
            self._tally.tolerances.add(kind)
            log.info(events.TOLERANCE, session=self.id, peer=str(self.peer), kind=kind)

    def drain(self) -> None:
        """No new mail: say 421 now, or as soon as the message in hand is answered."""
        self._draining = True
        if self._task is None and not self._gone:
            self._work()

    def abort(self) -> None:
        """The time to drain is over."""
        if not self._gone:
            self._tally.reason = "aborted at shutdown"
            self._wire.abort()

    # -- work ---------------------------------------------------------------------------------------------------------

    def _work(self, *, answered: bool = False) -> None:
        """Let the dialogue go on as far as it can, and see to what it needs.

        `answered`: a message has just got its reply. When draining, the client is left a moment for its QUIT then: some
        take a 421 in its place for the failure of the message.
        """
        if self._gone or self._writing_paused:
            return
        if self._reading_paused:
            self._reading_paused = False
            self._wire.resume_reading()
        try:
            step = self._dialogue.advance()
        except Exception:
            log.exception(events.INTERNAL_ERROR, session=self.id)
            self._end(reply.INTERNAL_ERROR, "internal error")
            step = None
        if step is None and self._draining and not (self._dialogue.closed or self._dialogue.in_data or answered):
            self._end(reply.SHUTTING_DOWN, "shutdown")
        self._flush()
        if step is not None:
            self._wait(NEVER)
            if isinstance(step, BeginTls):
                self._pause_reading()  # the ClientHello is for TLS to read
            self._task = self._service.spawn(self._carry_out(step))
        elif self._dialogue.closed or self._eof:
            self._wait(CLOSE_SECONDS)
            self._wire.close()
        else:
            self._wait(min(self._service.command_timeout, self._patience()))

    async def _carry_out(self, step: Step) -> None:
        """One step, in a task that outlives the connection if it must."""
        try:
            match step:
                case BeginTls():
                    await self._begin_tls()
                case Authenticate(user, password):
                    await self._log_in(user, password)
                case TakeMessage():
                    await self._take(step)
        except Exception:
            log.exception(events.INTERNAL_ERROR, session=self.id)
            self._end(reply.INTERNAL_ERROR, "internal error")
        self._task = None
        self._work(answered=isinstance(step, TakeMessage))

    def _patience(self) -> float:
        """How long the client may stay silent where it is now, if that is less than the limit for commands."""
        if self._dialogue.stalled:
            return STALL_SECONDS
        return QUIT_SECONDS if self._draining and not self._dialogue.in_data else NEVER

    def _pause_reading(self) -> None:
        if not (self._reading_paused or self._gone):
            self._reading_paused = True
            self._wire.pause_reading()

    async def _begin_tls(self) -> None:
        assert self._service.tls is not None
        try:
            secured = await self.loop.start_tls(
                self._wire,
                self,
                self._service.tls,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=CLOSE_SECONDS,
            )
        except (OSError, ssl.SSLError) as error:
            self._tally.reason = f"TLS handshake failed: {handshake_problem(error)}"
            self._wire.abort()
            self.connection_lost(None)
            return
        if secured is None:
            self._tally.reason = "closed during the TLS handshake"
            self.connection_lost(None)
            return
        self._reading_paused = False
        self._wire = secured
        self._client = replace(self._client, login=None, proved=frozenset(), passthrough=False)
        self._passthrough = None
        self._dialogue.upgraded()
        if self._service.implicit_tls:
            self._dialogue.greet()

    async def _log_in(self, user: str, password: Secret) -> None:
        assert self._service.authenticator is not None
        result = await self._service.authenticator.authenticate(user, password)
        failed = result.login is None
        log.log(
            30 if failed else 20,
            events.LINK_AUTH,
            session=self.id,
            listener=self._service.listener,
            login=(MASK if _LOOKS_LIKE_A_KEY.fullmatch(user) else user) if failed else result.login,
            ok=not failed,
            reply=str(result.answer),
        )
        if failed:
            self._service.metrics.auth_failures.inc()
            await self._service.clock.sleep(AUTH_DELAY * 2**self._dialogue.auth_failures)
        else:
            self._client = replace(
                self._client, login=result.login, proved=result.proved, passthrough=result.passthrough is not None
            )
            self._passthrough = result.passthrough
        self._dialogue.authenticated(result.answer, result.login)

    async def _take(self, step: TakeMessage) -> None:
        passthrough = self._passthrough
        answer = await self._service.reception.receive(
            step.envelope,
            step.content,
            step.decision,
            lambda: self._service.bearer(step.decision, passthrough),
            Provenance(
                session=self.id,
                listener=self._service.listener,
                helo=self._dialogue.helo,
                peer=str(self.peer),
                protocol=self._protocol(),
            ),
        )
        if answer.positive:
            self._tally.messages += 1
        self._dialogue.accepted(answer)

    def _protocol(self) -> str:
        """The `with` word of the Received line (RFC 3848)."""
        if not self._dialogue.extended:
            return "SMTP"
        return "ESMTP" + "S" * self._dialogue.tls + "A" * (self._dialogue.login is not None)

    def _end(self, answer: Reply, reason: str) -> None:
        self._tally.reason = reason
        self._dialogue.end(answer)

    def _flush(self) -> None:
        if self._dialogue.out and not self._wire.is_closing():
            self._wire.write(bytes(self._dialogue.out))
        self._dialogue.out.clear()

    # -- the timer: one handle, moved only when it would fire too late -------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """From now on the client has `seconds` to make progress."""
        if self._gone:
            return
        self._deadline = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._deadline == NEVER else self.loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._gone or self.loop.time() < self._deadline:
            self._set_timer()
        elif self._dialogue.closed or self._eof or self._writing_paused:
            self._wire.abort()
        elif self._dialogue.stalled:
            self._end(reply.BARE_LF_STALL, "data ended with bare LF")
            self._work()
        elif self._draining:
            self._end(reply.SHUTTING_DOWN, "shutdown")
            self._work()
        else:
            self._end(reply.IDLE_TOO_LONG, "idle")
            self._work()


def peer_address(peername: Any) -> IPAddress | None:
    """The client's IP address; an IPv4 client of a dual-stack socket is the IPv4 address. None for a Unix socket."""
    if not isinstance(peername, tuple):
        return None
    address = ipaddress.ip_address(peername[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def handshake_problem(error: Exception) -> str:
    """Why TLS did not come about, in one line."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__
