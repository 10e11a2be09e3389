"""Where the body of a message is until nobody needs it: in memory, or in a file when it is large."""

import os
import tempfile
from collections.abc import Iterator
from threading import Thread
from typing import IO, Final

from relay.ingress.memory import DataMemory, Share

MEMORY_LIMIT: Final = 128 * 1024
PART: Final = 2048  # octets; what is smaller is joined to what came before it
_READ_SIZE: Final = 64 * 1024
_LONG_TO_CLOSE: Final = 4 * 1024 * 1024  # octets; the kernel frees about 8 MB a millisecond


class StoredBody:
    """The body of one message; gone when closed. What its message takes of the memory is given back then too."""

    __slots__ = ("_file", "_parts", "share", "size")

    def __init__(self, share: Share | None = None) -> None:
        self.share = share or DataMemory().share()
        self.size = 0
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None

    @property
    def in_memory(self) -> bool:
        return self._file is None

    def append(self, octets: bytes) -> None:
        """Add octets; raises OSError when the file cannot take them."""
        self.size += len(octets)
        if self._file is not None:
            _write_all(self._file.fileno(), octets)
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
        file = tempfile.TemporaryFile(prefix="sparkpost-relay-", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            for octets in self._parts:
                _write_all(file.fileno(), octets)
        except OSError:
            file.close()
            raise
        self._file, self._parts = file, []

    def chunks(self) -> Iterator[bytes]:
        """The octets from the start; shares no position with other readers."""
        if self._file is None:
            yield from self._parts
            return
        descriptor, position = self._file.fileno(), 0
        while octets := os.pread(descriptor, _READ_SIZE, position):
            position += len(octets)
            yield octets

    def close(self) -> None:
        """Nobody needs it any more."""
        self._parts = []
        self.share.release()
        if self._file is None or self._file.closed:
            return
        if self.size > _LONG_TO_CLOSE:
            Thread(target=self._file.close).start()  # many may come to their end at once, and others would wait
        else:
            self._file.close()


def scratch_problem() -> str | None:
    """Why large bodies could not be kept on this host, and what would help; None if they can."""
    try:
        tempfile.TemporaryFile(prefix="sparkpost-relay-").close()
    except OSError as error:
        return (
            f"no temporary file can be made ({error}): messages over {MEMORY_LIMIT // 1024} KB will be answered 452; "
            "mount a writable folder, such as a tmpfs, at /tmp, or name one in TMPDIR"
        )
    return None


def _write_all(descriptor: int, octets: bytes) -> None:
    written = os.write(descriptor, octets)
    while written < len(octets):
        octets = octets[written:]
        written = os.write(descriptor, octets)
