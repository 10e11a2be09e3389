"""A kill leaves what is in memory; a loss of power does not. So syncing is shown by itself."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.core.lifecycle import State
from relay.core.spooled import Unreadable
from relay.spool.opening import open_spool
from tests.spool.driven import driven
from tests.support.mail import LARGE, SMALL

ANSWER = '"{\\"done\\": null}'


def _tracer() -> str:
    """strace, if it may be used here; skips otherwise."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    able = subprocess.run([strace, "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if able.returncode != 0:
        pytest.skip(f"strace may not trace here: {able.stderr.strip()}")
    return strace


def _completed(trace: str) -> Iterator[tuple[str, str]]:
    """Calls with their arguments, in the order they came to their end."""
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            unfinished[thread] = call
            continue
        resumed = re.match(r"<\.\.\. (\w+) resumed>", call)
        if resumed:
            call = unfinished.pop(thread, call)
        name, bracket, arguments = call.partition("(")
        if bracket:
            yield name, arguments


async def test_log_content_file_and_directory_are_synced_before_a_put_returns(tmp_path: Path) -> None:
    """One small message, then one large, then one in a draft, in a trace of the system calls."""
    strace = _tracer()
    database, trace = tmp_path / "spool.db", tmp_path / "trace"
    under = (strace, "-f", "-y", "-s", "64", "-e", "trace=fsync,fdatasync,write", "-o", str(trace))
    async with driven(database, under=under, preload=False) as spool:
        await spool.ask("put", "Q1")
        await spool.ask("put", "Q2", large=True)
        await spool.ask("put", "Q3", large=True, drafted=True)
        await spool.end()

    synced: list[list[str]] = [[]]
    for name, arguments in _completed(trace.read_text()):
        if name in ("fsync", "fdatasync"):
            synced[-1] += re.findall(r"<(/[^>]*)>", arguments)
        elif ANSWER in arguments:
            synced.append([])

    log, content = f"{database}-wal", f"{database}.content"
    assert log in synced[0]
    assert synced[1] == [f"{content}/Q2", content, log]
    assert synced[2] == [f"{content}/.draft-0", content, log]


async def test_a_disk_that_loses_what_was_not_synced_has_every_message_that_was_promised(tmp_path: Path) -> None:
    """From the first message on, and at every step: whatever happened meanwhile is there too."""
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    disk.mkdir()
    promised: dict[str, tuple[bytes, State]] = {}
    async with driven(disk / "spool.db", shadow=shadow) as spool:
        for number in range(12):
            queue_id, large = f"Q{number:02}", number % 2 == 0
            await spool.ask("put", queue_id, large=large, claimed=number % 3 == 0, drafted=number % 4 == 0)
            promised[queue_id] = (LARGE if large else SMALL, State.QUEUED)
            if number % 6 == 3:
                await spool.ask("deliver", queue_id)
                promised[queue_id] = (b"", State.DELIVERED)
            # Powered off here, and on again.
            after = tmp_path / f"after-{number}"
            shutil.copytree(shadow, after, ignore=shutil.ignore_patterns("*-shm"))
            await _check(after / "spool.db", promised)


async def _check(database: Path, promised: dict[str, tuple[bytes, State]]) -> None:
    spool = await open_spool(database, SystemClock(), reserve=0)
    try:
        assert {entry.queue_id: entry.state for entry in (await spool.page()).entries} == {
            queue_id: state for queue_id, (_, state) in promised.items()
        }
        for queue_id, (body, state) in promised.items():
            if state is State.QUEUED:
                assert b"".join((await spool.content(queue_id)).body.chunks()) == body
        assert (await spool.claim(100)).damaged == ()
    finally:
        await spool.close()


@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("left_out", ["spool.db-wal", "spool.db.content/", "spool.db.content$"])
async def test_the_disk_that_forgets_finds_out_a_sync_that_is_left_out(
    tmp_path: Path, left_out: str, drafted: bool
) -> None:
    """The test above would notice: here a sync is only pretended, and the message is not there."""
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    disk.mkdir()
    async with driven(disk / "spool.db", shadow=shadow) as spool:
        await spool.ask("put", "Q1", large=True)
        spool.fail("pretend", left_out)
        await spool.ask("put", "Q2", large=True, drafted=drafted)
        await spool.kill()

    with pytest.raises((AssertionError, Unreadable)):
        await _check(shadow / "spool.db", dict.fromkeys(("Q1", "Q2"), (LARGE, State.QUEUED)))
