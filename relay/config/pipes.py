"""Reading what may be a pipe, as a shell's `<(command)` is, without waiting for ever for somebody who writes."""

import os
import select
import stat
from pathlib import Path
from typing import Final

PATIENCE: Final = 30.0  # seconds; what makes a configuration may have to ask others
_PIECE: Final = 65_536


def read_patiently(path: Path) -> bytes:
    """All of a file or pipe; raises OSError, of which TimeoutError means that a pipe has said nothing for so long."""
    # Not to block: to open a FIFO would last until somebody opens it for writing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            with open(descriptor, "rb", closefd=False) as stream:
                return stream.read()
        return b"".join(_pieces(descriptor))
    finally:
        os.close(descriptor)


def _pieces(descriptor: int) -> list[bytes]:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    pieces: list[bytes] = []
    while True:
        if not waiting.poll(PATIENCE * 1000):
            raise TimeoutError
        piece = os.read(descriptor, _PIECE)
        if not piece:
            return pieces
        pieces.append(piece)
