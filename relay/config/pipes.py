"""Reads what may be a pipe, as a shell's `<(command)` is: waits neither for ever for a writer, nor for an end that does
not come.
"""

import os
import select
import stat
from pathlib import Path
from typing import Final

PATIENCE: Final = 30.0  # seconds; what makes a configuration may have to ask others
_PIECE: Final = 65_536


def read_patiently(path: Path, limit: int) -> bytes:
    """All of a file or pipe; of what is longer than `limit`, so much that it shows.

    Raises OSError, of which TimeoutError means that a pipe has said nothing for so long.
    """
    # Not to block: to open a FIFO would last until somebody opens it for writing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            with open(descriptor, "rb", closefd=False) as stream:
                return stream.read(limit + 1)
        return _from_pipe(descriptor, limit)
    finally:
        os.close(descriptor)


def _from_pipe(descriptor: int, limit: int) -> bytes:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    octets = bytearray()
    while len(octets) <= limit:
        if not waiting.poll(PATIENCE * 1000):
            raise TimeoutError
        piece = os.read(descriptor, _PIECE)
        if not piece:
            break
        octets += piece
    return bytes(octets)
