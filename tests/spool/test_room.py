"""Room on the disk is looked for often enough, and not with each message."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from relay.core.spooled import SpoolUnavailable
from relay.spool.room import LOOK, Room
from tests.support.clock import HandClock


class Disk:
    """What statvfs says of a disk, and how often it was asked."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.looks = 0

    def statvfs(self, path: Path) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(f_bavail=self.free, f_frsize=1)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(10_000)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


def test_where_there_is_plenty_one_look_serves_many_messages_for_a_second(disk: Disk, tmp_path: Path) -> None:
    clock = HandClock()
    room = Room(tmp_path, 1000, clock.monotonic)
    for _ in range(10):
        room.ask(100)
    assert disk.looks == 1
    disk.free = 999
    clock.skip(LOOK)
    with pytest.raises(SpoolUnavailable, match="999 octets free on the disk, 1000 are kept in reserve"):
        room.ask(100)


def test_what_is_put_counts_at_once(disk: Disk, tmp_path: Path) -> None:
    """However fast mail comes: long before it can have filled the disk, there is another look."""
    room = Room(tmp_path, 1000, HandClock().monotonic)
    room.ask(100)
    disk.free = 999
    with pytest.raises(SpoolUnavailable):
        room.ask(2000)


def test_where_there_is_none_every_message_looks(disk: Disk, tmp_path: Path) -> None:
    """So mail is taken as soon as there is room."""
    disk.free = 999
    room = Room(tmp_path, 1000, HandClock().monotonic)
    assert room.lack is not None
    assert room.lack is not None
    disk.free = 1000
    assert room.lack is None
