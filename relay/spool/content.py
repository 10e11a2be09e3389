"""Content that is too large for a row: one file a message beside the database, named by its queue id.

A file counts only once its row is committed, and by then the file and its directory have been synced. So whatever a
crash leaves behind is a file without a row: an orphan, which goes to the quarantine and never away.

A large body is a file here from its first octets on, a draft, which only gets its name when the message is stored.
Drafts that a crash leaves behind were parts of messages, or are with SparkPost: nobody was told that they are here.
"""

import errno
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from io import FileIO
from pathlib import Path
from typing import Any, Final

from relay.core.message import Body, gathered
from relay.core.ports import InFile
from relay.core.spooled import SpoolUnavailable

INLINE_LIMIT: Final = 128 * 1024  # octets; measured: above, a file costs less than a row
_READ_SIZE: Final = 64 * 1024
_WRITE_SIZE: Final = 1024 * 1024  # each call costs a turn at the interpreter's lock
_PROBE: Final = ".probe"
_DRAFT: Final = ".draft-"
_PROBE_OCTETS: Final = b"to see whether the disk takes something\n" * 100


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body in a file of its own. Each reading opens it anew; one that is under way outlives the file's removal."""

    path: Path
    size: int

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb", buffering=0) as stream:
            while octets := stream.read(_READ_SIZE):
                yield octets

    def close(self) -> None:
        """Nothing is held open."""


class Draft(FileIO):
    """A body that is being received. `crc` is that of what has been written; gone when closed, unless it was taken."""

    def __init__(self, path: Path, ask: Callable[[int], None]) -> None:
        """`ask` raises SpoolUnavailable if there is no room for so many octets. Raises OSError."""
        super().__init__(path, "x+", opener=_private)
        self._path = path
        self._ask = ask
        self.crc = 0
        self.taken = False

    def write(self, octets: Any) -> int:
        try:
            self._ask(len(octets))
        except SpoolUnavailable as error:
            raise OSError(errno.ENOSPC, str(error)) from error
        written = super().write(octets)
        self.crc = zlib.crc32(octets[:written], self.crc)
        return written

    def take(self) -> tuple[Path, int]:
        """Its path, and a descriptor that stays open: both are the caller's from now on."""
        descriptor = os.dup(self.fileno())
        self.taken = True
        return self._path, descriptor

    def close(self) -> None:
        """Raises OSError where the disk does not let go of it; what stays there is removed at the next start."""
        try:
            if not (self.closed or self.taken):
                self._path.unlink(missing_ok=True)
        finally:
            super().close()


def checksum(header: bytes, body: Body) -> int:
    """CRC-32 over all of the content."""
    crc = zlib.crc32(header)
    for octets in body.chunks():
        crc = zlib.crc32(octets, crc)
    return crc


def joined(crc: int, behind: int, size: int) -> int:
    """The CRC-32 of octets with `crc` and, behind them, `size` octets with `behind`: what zlib calls crc32_combine."""
    for power in range(size.bit_length()):
        if size >> power & 1:
            crc = _times(_octets(power), crc)
    return crc ^ behind


@cache
def _octets(power: int) -> int:
    """The factor that stands for 2 to this power octets more."""
    return _times(_octets(power - 1), _octets(power - 1)) if power else 1 << 23  # x to the 8th


def _times(one: int, other: int) -> int:
    """The product of polynomials modulo that of CRC-32; in all of them the highest bit is the lowest power."""
    product = 0
    while one:
        if one & 1 << 31:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (0xEDB88320 if other & 1 else 0)
    return product


class ContentStore:
    """The files of one spool."""

    def __init__(self, database: Path) -> None:
        self._directory = database.with_name(database.name + ".content")
        self._quarantine = database.with_name(database.name + ".quarantine")
        self._numbers = itertools.count()

    def prepare(self) -> None:
        """Make the directories, durably, and remove drafts of a process that is gone; raises OSError."""
        for path in (self._directory, self._quarantine):
            path.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(self._directory.parent)
        for draft in self._directory.glob(f"{_DRAFT}*"):
            draft.unlink()

    def draft(self, ask: Callable[[int], None]) -> Draft:
        """A file for a body that is being received; `ask` raises SpoolUnavailable if there is no room for octets."""
        return Draft(self._directory / f"{_DRAFT}{next(self._numbers)}", ask)

    def keeping(self, queue_id: str, header: bytes, body: Body) -> Callable[[], int]:
        """What, in a thread, makes a body the file of this name, and syncs it and the directory.

        It returns the checksum of header and body, or raises OSError, and then there is no file. Each thread syncs the
        directory for itself: the kernel has one sync serve all that wait, and no commit of other mail waits for it.
        """
        draft = body.file if isinstance(body, InFile) else None
        if isinstance(draft, Draft) and not draft.taken:
            return partial(self._adopt, queue_id, *draft.take(), header, draft.crc, body.size)
        return partial(self._write, queue_id, header, body)

    def _adopt(self, queue_id: str, draft: Path, descriptor: int, header: bytes, crc: int, size: int) -> int:
        try:
            os.fsync(descriptor)
            with self._new(queue_id):  # the name is ours, or taken
                draft.rename(self._directory / queue_id)
                _sync_directory(self._directory)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return joined(zlib.crc32(header), crc, size)

    def _write(self, queue_id: str, header: bytes, body: Body) -> int:
        with self._new(queue_id) as file:
            crc, size = zlib.crc32(header), 0
            for octets in gathered(body.chunks(), _WRITE_SIZE):
                _write_all(file.fileno(), octets)
                crc, size = zlib.crc32(octets, crc), size + len(octets)
            if size != body.size:
                raise ValueError(f"the body of {queue_id} has {size} octets and not {body.size}: closed too early?")
            os.fsync(file.fileno())
            _sync_directory(self._directory)
        return crc

    @contextmanager
    def _new(self, queue_id: str) -> Iterator[FileIO]:
        """A new file of this name, which is gone when something is raised."""
        path = self._directory / queue_id
        with FileIO(path, "x", opener=_private) as file:
            try:
                yield file
            except BaseException:
                path.unlink(missing_ok=True)
                raise

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
        _sync_directory(self._directory)

    def body(self, queue_id: str, size: int) -> FileBody:
        return FileBody(self._directory / queue_id, size)

    def names(self) -> list[str]:
        """The queue ids that have a file."""
        return [name for name in os.listdir(self._directory) if not name.startswith(".")]

    def remove(self, queue_id: str) -> None:
        (self._directory / queue_id).unlink(missing_ok=True)

    def quarantine(self, queue_id: str) -> Path:
        """Put a file aside for the operator; says where it is now."""
        target = self._quarantine / queue_id
        (self._directory / queue_id).rename(target)
        return target


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


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
