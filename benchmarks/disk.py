"""What the disk gives to those who write a file a message, durably: what a spool is measured by."""

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

THREADS: Final = 16


class Limit:
    """Numbers for messages of `size` octets, until the time or the room for them is over."""

    def __init__(self, size: int, seconds: float, octets: int) -> None:
        self._last = max(1, octets // size)
        self._end = time.perf_counter() + seconds
        self._began = time.perf_counter()
        self._numbers = itertools.count(1)
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for number in self._numbers:
            if number > self._last or time.perf_counter() > self._end:
                return
            self.count = max(self.count, number)
            yield number

    @property
    def rate(self) -> float:
        """What was done by now, a second."""
        return self.count / (time.perf_counter() - self._began)


def one_by_one(place: Path, size: int, limit: Limit) -> float:
    """The bare price: create, write, fsync, one after another. Messages per second."""
    octets = os.urandom(size)
    for number in limit:
        _write(place / str(number), octets)
    return limit.rate


def in_threads(place: Path, size: int, limit: Limit) -> float:
    """What a spool of files would do: create, write, fsync, rename, fsync of the directory. Messages per second."""
    octets = os.urandom(size)
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)

    def work() -> None:
        for number in limit:
            _write(place / f"{number}.new", octets)
            (place / f"{number}.new").rename(place / str(number))
            os.fsync(directory)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work) for _ in range(THREADS)]:
            done.result()
    os.close(directory)
    return limit.rate


def _write(path: Path, octets: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, octets)
    os.fsync(descriptor)
    os.close(descriptor)
