"""Large content on its way out: at the pace the peer takes it, and not all of it before anybody else has a turn."""

import asyncio
from collections.abc import Iterator
from typing import Final

from relay.sockets import acknowledged

TURN: Final = 256 * 1024  # octets of content that may leave before others have their turn at the loop


class Outflow:
    """What of content a transport takes. Its protocol passes on `pause`, `resume` and that it is over (`stop`)."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = asyncio.Event()
        self._writable.set()
        self._stopped = False

    def pause(self) -> None:
        self._writable.clear()

    def resume(self) -> None:
        self._writable.set()

    def stop(self) -> None:
        """Nothing more is written; the pieces, too, may be gone."""
        self._stopped = True
        self._writable.set()

    async def pour(self, first: bytes, pieces: Iterator[bytes], seconds: float) -> bytes | None:
        """Write all but the last piece, which is given back: something is to go with it. None where it was stopped.

        At an empty piece others have a turn. Raises TimeoutError when the peer takes nothing for so many seconds, and
        what the iteration raises.
        """
        pending, turn = first, 0
        for piece in pieces:
            self._transport.write(pending)
            turn += len(pending)
            if not self._writable.is_set():
                await self._make_way(seconds)
                turn = 0
            elif turn >= TURN or not pending:
                await asyncio.sleep(0)  # whose peer takes all at once has no right to all of the loop
                turn = 0
            if self._stopped:
                return None
            pending = piece
        return pending

    async def _make_way(self, seconds: float) -> None:
        """Wait until the peer has taken enough for more to be written.

        On a slow line that others use too that may take much longer than to take an octet.
        """
        sock = self._transport.get_extra_info("socket")
        while not self._writable.is_set():
            taken = acknowledged(sock)
            try:
                async with asyncio.timeout(seconds):
                    await self._writable.wait()
            except TimeoutError:
                if not self._writable.is_set() and acknowledged(sock) == taken:
                    raise
