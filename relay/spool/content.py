"""Content that is too large for a row: one file a message beside the database, named by its queue id.

A file counts only once its row is committed, and by then the file and its directory have been synced. So whatever a
crash leaves behind is a file without a row: an orphan, which goes to the quarantine and never away.
"""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.core.message import Body

INLINE_LIMIT: Final = 128 * 1024  # octets; measured: above, a file costs less than a row
_PIECE: Final = 64 * 1024
_PROBE: Final = ".probe"
_PROBE_OCTETS: Final = b"to see whether the disk takes something\n" * 100


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body in a file of its own. Each reading opens it anew; one that is under way outlives the file's removal."""

    path: Path
    size: int

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb", buffering=0) as stream:
            while octets := stream.read(_PIECE):
                yield octets

    def close(self) -> None:
        """Nothing is held open."""


def checksum(header: bytes, body: Body) -> int:
    """CRC-32 over all of the content."""
    crc = zlib.crc32(header)
    for octets in body.chunks():
        crc = zlib.crc32(octets, crc)
    return crc


class ContentStore:
    """The files of one spool."""

    def __init__(self, database: Path) -> None:
        self._directory = database.with_name(database.name + ".content")
        self._quarantine = database.with_name(database.name + ".quarantine")

    def prepare(self) -> None:
        """Make the directories, durably; raises OSError."""
        for path in (self._directory, self._quarantine):
            path.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(self._directory.parent)

    def write(self, queue_id: str, header: bytes, body: Body) -> int:
        """Write and sync a body; its directory is synced with the commit. The checksum of header and body.

        Raises OSError, and then there is no file.
        """
        path = self._directory / queue_id
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as stream:
                crc, size = zlib.crc32(header), 0
                for octets in body.chunks():
                    _write_all(descriptor, octets)
                    crc, size = zlib.crc32(octets, crc), size + len(octets)
                if size != body.size:
                    raise ValueError(f"the body of {queue_id} has {size} octets and not {body.size}: closed too early?")
                os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return crc

    def sync(self) -> None:
        """Make sure that the names of new files are on the disk; raises OSError."""
        _sync_directory(self._directory)

    def probe(self) -> None:
        """Find out whether a file can be written and synced now; raises OSError."""
        path = self._directory / _PROBE
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, _PROBE_OCTETS)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
        self.sync()

    def body(self, queue_id: str, size: int) -> FileBody:
        return FileBody(self._directory / queue_id, size)

    def names(self) -> list[str]:
        """The queue ids that have a file."""
        return [name for name in os.listdir(self._directory) if name != _PROBE]

    def remove(self, queue_id: str) -> None:
        (self._directory / queue_id).unlink(missing_ok=True)

    def quarantine(self, queue_id: str) -> Path:
        """Put a file aside for the operator; says where it is now."""
        target = self._quarantine / queue_id
        (self._directory / queue_id).rename(target)
        return target


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]
