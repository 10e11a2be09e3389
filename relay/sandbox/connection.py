"""One connection: octets between a socket and its `Dialogue`, what each answer says to do, and the clock.

All answers to what one packet brought leave in one write.
"""

import asyncio
import ssl
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, cast

from relay.sandbox.answers import IDLE_TOO_LONG, Answer, Then
from relay.sandbox.dialogue import Dialogue
from relay.sandbox.link import Link
from relay.sandbox.records import Direction, Session

_FLOOD_BUFFER: Final = 1 << 18
_FLOOD_PAUSE: Final = 0.005


class _State(Enum):
    READY = auto()
    BUSY = auto()  # an answer is being carried out: what comes in meanwhile waits in the dialogue
    TRAPPED = auto()  # the next octet drops the connection
    DEAF = auto()  # nothing that comes in matters any more


class Connection(Link):
    """Drives the dialogue that `welcome` gives it, until the connection is lost; then calls `lost`.

    welcome: called when connected; the record to keep, the dialogue, and the answer that opens it. context: for
    STARTTLS. delay: seconds before each flight of replies. idle_timeout: seconds of the client's silence that are put
    up with. record: whether the session keeps a transcript.
    """

    _dialogue: Dialogue

    def __init__(
        self,
        welcome: Callable[[asyncio.Transport], tuple[Session, Dialogue, Answer]],
        lost: Callable[[Link], None],
        context: ssl.SSLContext,
        *,
        delay: float,
        idle_timeout: float,
        record: bool,
    ) -> None:
        super().__init__(lost, record=record)
        self._welcome = welcome
        self._context = context
        self._delay = delay
        self._idle_timeout = idle_timeout
        self._state = _State.READY
        self._last_word = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None

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

    def resume_writing(self) -> None:
        self._last_word = self._loop.time()  # whoever has read a reply is there
        super().resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(error)

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
                self._begin_tls(self._context)
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

    def _secured(self, version: str) -> None:
        self._dialogue.tls_established(version)
        self._resume()

    def _flood(self, piece: bytes) -> None:
        """Keep a reply going for ever; a client that does not read costs a bounded buffer."""
        assert self._transport is not None
        if self._transport.get_write_buffer_size() < _FLOOD_BUFFER:
            self._note(Direction.SERVER, piece)
            self._transport.write(piece)
        self._timer = self._loop.call_later(_FLOOD_PAUSE, self._flood, piece)

    # -- the clock -----------------------------------------------------------------------------------------------------

    def _watch_idleness(self) -> None:
        """Close a connection that has been silent for too long; hold still while an answer is being carried out."""
        waiting = self._state is _State.READY
        silence = self._loop.time() - self._last_word if waiting else 0.0
        if silence >= self._idle_timeout:
            self._carry_out(IDLE_TOO_LONG.reply, IDLE_TOO_LONG)
        else:
            self._idle_timer = self._loop.call_later(self._idle_timeout - silence, self._watch_idleness)
