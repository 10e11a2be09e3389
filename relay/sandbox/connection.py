"""One connection: octets between a socket and its `Dialogue`, what each answer says to do, and the clock.

A Protocol rather than a task with streams: answers are found and written in the very call that brought the octets, all
answers to one packet in one write. Only the TLS handshake needs a task; every other wait is a timer, so that `abort`
ends everything at once.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final, cast

from relay.sandbox.answers import IDLE_TOO_LONG, Answer, Then
from relay.sandbox.dialogue import Dialogue
from relay.sandbox.records import Direction, Exchange, Session
from relay.tls import serve_tls

_HANDSHAKE_TIMEOUT: Final = 30.0
_TLS_CLOSE_TIMEOUT: Final = 1.0  # a client that never answers close_notify is not waited for
_FLOOD_BUFFER: Final = 1 << 18
_FLOOD_PAUSE: Final = 0.005


class _State(Enum):
    READY = auto()
    BUSY = auto()  # an answer is being carried out: what comes in meanwhile waits in the dialogue
    TRAPPED = auto()  # the next octet drops the connection
    DEAF = auto()  # nothing that comes in matters any more


class Connection(asyncio.Protocol):
    """Drives the dialogue that `welcome` gives it, until the connection is lost; then calls `lost`.

    welcome: called when connected; the record to keep, the dialogue, and the answer that opens it. context: for
    STARTTLS. delay: seconds before each flight of replies. idle_timeout: seconds of the client's silence that are put
    up with. record: whether the session keeps a transcript.
    """

    _session: Session
    _dialogue: Dialogue

    def __init__(
        self,
        welcome: Callable[[asyncio.Transport], tuple[Session, Dialogue, Answer]],
        lost: Callable[["Connection"], None],
        context: ssl.SSLContext,
        *,
        delay: float,
        idle_timeout: float,
        record: bool,
    ) -> None:
        self._welcome = welcome
        self._lost = lost
        self._context = context
        self._delay = delay
        self._idle_timeout = idle_timeout
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._state = _State.READY
        self._transport: asyncio.Transport | None = None
        self._aborted = False
        self.leaving = False  # the goodbye is said; what is left is TLS taking its leave
        self._last_word = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None  # of the answer in hand
        self._handshake: asyncio.Task[None] | None = None

    @property
    def takes_room(self) -> bool:
        """Connected, and not told goodbye: of a burst many are accepted before the first is connected."""
        return self._transport is not None and not self.leaving

    def abort(self) -> None:
        """Drop the connection at once, or as soon as it is made."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    # -- called by the transport ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._session, self._dialogue, greeting = self._welcome(self._transport)
        if self._aborted:
            self._transport.abort()
            return
        self._idle_timer = self._loop.call_later(self._idle_timeout, self._watch_idleness)
        self._answer([], greeting)

    def data_received(self, data: bytes) -> None:
        self._last_word = self._loop.time()
        self._note(Direction.CLIENT, data)
        if self._state is _State.TRAPPED:
            self.abort()
        elif self._state is not _State.DEAF:
            self._dialogue.receive(data)
            if self._state is _State.READY:
                self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._session.open = False
        for timer in (self._idle_timer, self._timer):
            if timer is not None:
                timer.cancel()
        self._lost(self)

    # -- answering -----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Answer what has come, in one flight, up to an answer that takes time or does more than speak."""
        flight: list[bytes] = []
        while (answer := self._dialogue.next_answer()) is not None:
            if answer.delay or answer.then is not Then.GO_ON:
                self._answer(flight, answer)
                return
            flight.append(answer.reply)
        if flight:
            self._answer(flight, Answer())

    def _answer(self, flight: list[bytes], last: Answer) -> None:
        """Say the replies of `flight` and the `last` one together, and do what that one says."""
        octets = b"".join([*flight, last.reply])
        delay = self._delay + last.delay
        if delay:
            self._state = _State.BUSY
            self._timer = self._loop.call_later(delay, self._carry_out, octets, last)
        else:
            self._carry_out(octets, last)

    def _carry_out(self, octets: bytes, answer: Answer) -> None:
        transport = self._transport
        assert transport is not None  # timers end with the connection
        if octets:
            self._note(Direction.SERVER, octets)
            transport.write(octets)
        match answer.then:
            case Then.GO_ON:
                if self._state is _State.BUSY:
                    self._resume()
            case Then.START_TLS:
                self._state = _State.BUSY
                handshake = serve_tls(
                    transport,
                    self,
                    self._context,
                    handshake_seconds=_HANDSHAKE_TIMEOUT,
                    close_seconds=_TLS_CLOSE_TIMEOUT,
                )
                self._handshake = self._loop.create_task(self._end_handshake(handshake))
            case Then.CLOSE:
                self._state = _State.DEAF
                self.leaving = True
                transport.close()
            case Then.DROP:
                transport.abort()
            case Then.DROP_ON_INPUT:
                self._state = _State.TRAPPED
                if self._dialogue.holds_input:
                    transport.abort()
            case Then.HANG:
                self._state = _State.DEAF
            case Then.FLOOD:
                self._state = _State.DEAF
                self._flood(answer.reply)

    def _resume(self) -> None:
        """Go on with what has come in the meantime."""
        self._state = _State.READY
        self._last_word = self._loop.time()
        self._advance()

    async def _end_handshake(self, handshake: Awaitable[asyncio.Transport | None]) -> None:
        """Octets after it may come before its end is heard of; BUSY keeps their answers back."""
        try:
            secured = await handshake
        except OSError as error:  # asyncio does not report a connection lost in the handshake to the protocol
            self._session.tls_failure = str(error) or type(error).__name__
            self.connection_lost(error)
            return
        if secured is None or self._transport is None:  # aborted meanwhile
            self.connection_lost(None)
            return
        self._transport = secured
        self._dialogue.tls_established(secured.get_extra_info("ssl_object").version())
        self._resume()

    def _flood(self, piece: bytes) -> None:
        """Keep a reply going for ever; a client that does not read costs a bounded buffer."""
        assert self._transport is not None
        if self._transport.get_write_buffer_size() < _FLOOD_BUFFER:
            self._note(Direction.SERVER, piece)
            self._transport.write(piece)
        self._timer = self._loop.call_later(_FLOOD_PAUSE, self._flood, piece)

    # -- the clock and the record --------------------------------------------------------------------------------------

    def _watch_idleness(self) -> None:
        """Close a connection that has been silent for too long; hold still while an answer is being carried out."""
        waiting = self._state is _State.READY
        silence = self._loop.time() - self._last_word if waiting else 0.0
        if silence >= self._idle_timeout:
            self._carry_out(IDLE_TOO_LONG.reply, IDLE_TOO_LONG)
        else:
            self._idle_timer = self._loop.call_later(self._idle_timeout - silence, self._watch_idleness)

    def _note(self, direction: Direction, octets: bytes) -> None:
        if self._record:
            self._session.transcript.append(Exchange(direction, octets, self._loop.time()))
