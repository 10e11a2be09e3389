"""Where the body of a message is until nobody needs it: in memory, or in a file when it is large.

With a spool that file is a draft of its (`core.ports.Drafts`), so that what is stored is not written twice; without
one, or while it takes nothing in, a temporary file.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from io import FileIO
from threading import Thread
from typing import Final

from relay.core.ports import Drafts
from relay.ingress.memory import DataMemory, Share

MEMORY_LIMIT: Final = 128 * 1024
PART: Final = 2048  # octets; what is smaller is joined to what came before it
_READ_SIZE: Final = 64 * 1024
_LONG_TO_CLOSE: Final = 4 * 1024 * 1024  # octets; the kernel frees about 8 MB a millisecond


class StoredBody:
    """The body of one message; gone when closed. What its message takes of the memory is given back then too."""

    __slots__ = ("_drafts", "_parts", "file", "share", "size")

    def __init__(self, share: Share | None = None, drafts: Drafts | None = None) -> None:
        self.share = share or DataMemory().share()
        self.size = 0
        self.file: FileIO | None = None
        self._parts: list[bytes] = []
        self._drafts = drafts

    @property
    def in_memory(self) -> bool:
        return self.file is None

    def append(self, octets: bytes) -> None:
        """Add octets; raises OSError when the file cannot take them."""
        self.size += len(octets)
        if self.file is not None:
            _write_all(self.file, octets)
            return
        parts = self._parts
        if parts and len(parts[-1]) + len(octets) <= PART:
            parts[-1] += octets  # an object an octet would take many times the memory that is counted
        else:
            parts.append(octets)
        if self.size > MEMORY_LIMIT:
            self.move_to_file()

    def move_to_file(self) -> None:
        """Free the memory; raises OSError, and then the body is where it was."""
        file = (self._drafts.draft() if self._drafts is not None else None) or _temporary_file()
        try:
            for octets in self._parts:
                _write_all(file, octets)
        except OSError:
            file.close()
            raise
        self.file, self._parts = file, []

    def chunks(self) -> Iterator[bytes]:
        """The octets from the start; shares no position with other readers."""
        if self.file is None:
            yield from self._parts
            return
        descriptor, position = self.file.fileno(), 0
        while octets := os.pread(descriptor, _READ_SIZE, position):
            position += len(octets)
            yield octets

    def close(self) -> None:
        """Nobody needs it any more, whatever the disk says."""
        self._parts = []
        self.share.release()
        if self.file is None or self.file.closed:
            return
        if self.size > _LONG_TO_CLOSE:
            try:
                Thread(target=_close, args=[self.file]).start()  # many may end at once, and others would wait
            except RuntimeError:  # the system has no more threads for us
                _close(self.file)
        else:
            _close(self.file)


def scratch_problem() -> str | None:
    """Why large bodies could not be kept on this host, and what would help; None if they can."""
    try:
        _temporary_file().close()
    except OSError as error:
        return (
            f"no temporary file can be made ({error}): messages over {MEMORY_LIMIT // 1024} KB will be answered 452; "
            "mount a writable folder, such as a tmpfs, at /tmp, or name one in TMPDIR"
        )
    return None


def _temporary_file() -> FileIO:
    return tempfile.TemporaryFile(prefix="sparkpost-relay-", buffering=0)


def _close(file: FileIO) -> None:
    with contextlib.suppress(OSError):
        file.close()


def _write_all(file: FileIO, octets: bytes) -> None:
    written = file.write(octets)
    while written < len(octets):
        octets = octets[written:]
        written = file.write(octets)
