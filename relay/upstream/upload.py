"""The body of a request to the Transmissions API: encoded once for all recipients, and sent in pieces."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO, Final

from relay.core.message import Content
from relay.core.outcome import Phase
from relay.core.ports import Permit
from relay.upstream.transmission import TAIL, NotOverHttps, json_text, mime

LARGEST: Final = 20_000_000  # octets; fact sheet 3.2
SMALL: Final = 256 * 1024  # content that is encoded at once, and in memory
_PIECE: Final = 64 * 1024


@contextlib.contextmanager
def scratch() -> Iterator[IO[bytes]]:
    """Room for a message that is encoded, in memory while it is small. What its end comes to changes nothing."""
    file = tempfile.SpooledTemporaryFile(2 * SMALL)  # noqa: SIM115 - its close must not raise
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def encode(content: Content, target: IO[bytes]) -> None:
    """Write the message as JSON text; raises OSError where content cannot be read or written, and NotOverHttps if it is
    too large only because of what HTTPS makes of it.
    """
    size = 0
    for piece in mime(content):
        size += len(piece)
        target.write(json_text(piece))
    target.flush()
    if content.size < size > LARGEST:
        raise NotOverHttps("re-encoded for it, the message is larger than SparkPost takes")


class Upload:
    """The body of one request on its way: how far it has come, and whether it may be ended."""

    def __init__(
        self, start: bytes, encoded: IO[bytes], permit: Permit, answer_seconds: float, *, tail: bytes = TAIL
    ) -> None:
        self.size = len(start) + encoded.seek(0, 2) + len(tail)
        self.phase = Phase.CONNECT
        self.started: float | None = None
        self.withheld = False
        self._start = start
        self._encoded = encoded
        self._tail = tail
        self._permit = permit
        self._answer_seconds = answer_seconds
        self._stopped = False

    def stop(self) -> bool:
        """It is over: nothing more is sent. True if everything was."""
        self._stopped = True
        return self.phase is Phase.RESPONSE

    async def pieces(self, limit: asyncio.Timeout, patience: float) -> AsyncIterator[bytes]:
        """The body in pieces; `limit` is moved on with each, so that it strikes when one stands still."""
        loop = asyncio.get_running_loop()
        self.started = loop.time()
        self.phase = Phase.REQUEST
        self._encoded.seek(0)
        pending = self._start
        while not self._stopped and (piece := self._encoded.read(_PIECE)):
            if len(pending) + len(piece) > _PIECE:
                limit.reschedule(loop.time() + patience)
                yield pending
                pending = b""
            pending += piece
        if self._stopped:
            return
        if not self._permit.ask():
            self.withheld = True
            raise ConnectionAbortedError("the claim on the message ran out")
        self.phase = Phase.RESPONSE
        limit.reschedule(loop.time() + self._answer_seconds)
        yield pending + self._tail
