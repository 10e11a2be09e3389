"""The one that writes: a thread with the only connection that changes the spool.

Whatever has come together while the last commit was on its way to the disk goes into the next one, and what comes right
behind it: no timer, one sync for all that wait. A caller goes on only when its change is on the disk. Loop and thread
meet twice for each commit, when a group is handed over and when it is done, and not once for each operation: to meet
costs more than an operation.

An operation is a function of the connection, or an item for a batch, which does all of its kind in a group together:
with each statement the thread goes to the end of the queue for the interpreter's lock, and beside a busy loop that is
most of its price. Either may be run twice: when one of a group fails, the group is rolled back and done again one by
one, with a savepoint before each, so that nobody suffers for a neighbour. After an error of the disk the database is
closed and opened again, and the log is moved into the database, before anything else is promised: pages that a failed
sync has left behind in memory look as if they were safe, and are not.
"""

import asyncio
import contextlib
import errno
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from relay.core.spooled import SpoolUnavailable
from relay.spool.database import LOG_LIMIT, checkpoint, connect, error_name, lacks_room, true_cause

GROUP: Final = 256  # operations in one commit at most
PASSES: Final = 6  # of the loop for which a group may grow, as long as each brings more
BACKLOG: Final = 8192  # operations that may wait for the disk while more mail is taken in
LOOK: Final = 16  # commits between two looks at the length of the log
CLOSED: Final = "the spool is closed"

Item = TypeVar("Item")
T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
Batch = Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]]  # items in their order, and a result for each
Health = Callable[[str | None], None]

# By the beginning of SQLite's names for errors.
_REOPEN: Final = (
    *("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL"),
    "SQLITE_READONLY",  # a connection that was opened on a read-only disk stays so
)
_ONE_FAULT: Final = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_CORRUPT")


@dataclass(slots=True)
class _Work:
    """What waits, and what became of it; `then` hears the result in the thread, once it is on the disk."""

    batch: Batch[Any, Any]
    item: Any
    then: Callable[[Any], None] | None
    future: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None


class Writer:
    """Commits operations in the order they come. `on_health` hears, in the loop, what is wrong with it, or None."""

    def __init__(
        self, path: Path, on_health: Health, is_scarce: Callable[[], bool], make_room: Callable[[], bool]
    ) -> None:
        """Both are asked in the thread: `is_scarce` whether the log must not grow, since the disk is all but full, and
        `make_room` where it is full: it says whether it has made any.

        Raises sqlite3.Error or OSError where the database cannot be opened.
        """
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._on_health = on_health
        self._is_scarce = is_scarce
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._connection: sqlite3.Connection | None = connect(path)
        self._file = _identity(path)
        self._log_gone = False
        self._problem: str | None = None
        self._commits = 0
        self._closed = False
        self._waiting: list[_Work] = []
        self._busy = False  # a group is on its way, or about to be handed over
        self._groups: queue.SimpleQueue[list[_Work] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._worker.start()

    def ask(self) -> None:
        """Raises SpoolUnavailable if no more mail should be taken in just now."""
        if self._closed:
            raise SpoolUnavailable(CLOSED)
        if len(self._waiting) >= BACKLOG:
            raise SpoolUnavailable("the disk is slower than the mail that comes in")

    def run(self, operation: Operation[T], *, then: Callable[[T], None] | None = None) -> "asyncio.Future[T]":
        """The operation's result, once it is on the disk. What was asked for before it is done before it.

        The future raises SpoolUnavailable, and then nothing was done, or what the operation raises. To cancel it does
        not stop the operation: that is done, `then` included, or not, as a whole.
        """
        return self.join(_alone, operation, then=then)

    def join(
        self, batch: Batch[Item, T], item: Item, *, then: Callable[[T], None] | None = None
    ) -> "asyncio.Future[T]":
        """The same for an item of a batch. Where a group has several kinds, they are done in the order in which each is
        first asked for.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(SpoolUnavailable(CLOSED))
        else:
            self._waiting.append(_Work(batch, item, then, future))
            self._hand_over_soon()
        return future

    async def close(self) -> None:
        """Finish what waits, then close the database."""
        if not self._closed:
            self._closed = True
            self._hand_over_soon()
        await asyncio.to_thread(self._worker.join)

    def _hand_over_soon(self) -> None:
        """When whoever is about to run in the loop has had its say, unless a group is on its way."""
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_over, PASSES, 0)

    def _hand_over(self, passes: int, before: int) -> None:
        """All that waits, up to a group; None after the last.

        Where there is more than `before`, in the last pass of the loop, the next may bring more still. It is worth that
        short wait: much of the price of a commit is the same for one operation and for ten.
        """
        if passes and before < len(self._waiting) < GROUP and not self._closed:
            self._loop.call_soon(self._hand_over, passes - 1, len(self._waiting))
            return
        group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
        if group or self._closed:
            self._groups.put(group or None)

    def _served(self, group: Sequence[_Work]) -> None:
        """Tell everybody what became of their operation."""
        for work in group:
            if work.future.done():
                continue
            if work.error is None:
                work.future.set_result(work.result)
            else:
                work.future.set_exception(work.error)
        self._busy = False
        if self._waiting or self._closed:
            self._hand_over_soon()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            self._serve(group)
            self._loop.call_soon_threadsafe(self._served, group)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _serve(self, group: Sequence[_Work]) -> None:
        """Do what a group asks for; once more for each time that there was no room and some could be made."""
        failure = self._commit(group)
        if _is_full(failure) and self._begin_log_anew():
            failure = self._commit(group)
        while _is_full(failure) and self._make_room():
            self._begin_log_anew()
            failure = self._commit(group)
        if failure is not None:
            unavailable = self._failed(failure)
            for work in group:
                work.error = unavailable
            return
        self._report(None)
        for work in group:
            if work.then is not None and work.error is None:
                work.then(work.result)
        if self._is_scarce():
            self._begin_log_anew()
        self._commits += 1
        if self._commits % LOOK == 0:
            try:
                self._keep_log_short()
            except (sqlite3.Error, OSError) as error:
                self._doubt(error)
                self._failed(error)

    def _commit(self, group: Sequence[_Work]) -> sqlite3.Error | OSError | None:
        """What has kept the whole of it from being done; None if it was."""
        try:
            try:
                self._transact(group, self._all)
            except _Unfit:
                self._transact(group, self._each)
        except (sqlite3.Error, OSError) as error:
            self._doubt(error)
            return true_cause(self._path, error)
        return None

    def _begin_log_anew(self) -> bool:
        """Move all of the log into the database: then the next commit writes over it, and needs no more of the disk.

        That must not wait until the log has taken all there was: the database may have to grow. The file stays as long
        as it is, since what is given back to a full disk others take.
        """
        try:
            _, written, moved = self._ready().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except (sqlite3.Error, OSError) as error:
            self._doubt(error)
            return False
        return bool(written == moved)

    def _keep_log_short(self) -> None:
        """SQLite moves the log into the database by itself, but tells nobody when that fails, or the log has gone.

        Only who has it open can still read it then: what is in it is moved while that is so, and nothing more promised.
        """
        connection = self._ready()
        try:
            if self._log.stat().st_size > 2 * LOG_LIMIT:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except FileNotFoundError:
            checkpoint(connection)
            self._log_gone = True
            self._ready()  # which says so, from now on

    def _transact(self, group: Sequence[_Work], run: Callable[[sqlite3.Connection, Sequence[_Work]], None]) -> None:
        connection = self._ready()
        connection.execute("BEGIN IMMEDIATE")
        try:
            run(connection, group)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # an error of the disk has rolled it back already
                connection.execute("ROLLBACK")
            raise

    def _all(self, connection: sqlite3.Connection, group: Sequence[_Work]) -> None:
        """What nearly always goes well; raises _Unfit where an operation fails that others must not suffer for."""
        try:
            for works in _batches(group):
                results = works[0].batch(connection, [work.item for work in works])
                for work, result in zip(works, results, strict=True):
                    work.result = result
        except Exception as error:
            if _is_the_spools(error):
                raise
            raise _Unfit from error

    def _each(self, connection: sqlite3.Connection, group: Sequence[_Work]) -> None:
        """Each for itself: what fails leaves nothing behind."""
        for work in group:
            connection.execute("SAVEPOINT operation")
            work.error = None
            try:
                (work.result,) = work.batch(connection, [work.item])
            except Exception as error:
                if _is_the_spools(error):
                    raise
                connection.execute("ROLLBACK TO operation")
                work.error = _told(error)
            connection.execute("RELEASE operation")

    def _ready(self) -> sqlite3.Connection:
        """The connection; opened anew, and its log moved into the database, if it was lost."""
        if _identity(self._path) != self._file:
            raise FileNotFoundError(
                errno.ENOENT, f"{self._path} was taken away or replaced: put it back, or restart the relay"
            )
        if self._log_gone:
            raise FileNotFoundError(errno.ENOENT, f"{self._log} was taken away: restart the relay")
        if self._connection is None:
            connection = connect(self._path)
            try:
                checkpoint(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _failed(self, error: sqlite3.Error | OSError) -> SpoolUnavailable:
        """What an error means for everybody."""
        unavailable = unavailable_by(error)
        self._report(str(unavailable))
        return unavailable

    def _doubt(self, error: sqlite3.Error | OSError) -> None:
        """After an error of the disk the connection is given up."""
        if not isinstance(error, OSError) and not error_name(error).startswith(_REOPEN):
            return
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _report(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._loop.call_soon_threadsafe(self._on_health, problem)


class _Unfit(Exception):
    """An operation of a group cannot be done; the others can."""


def _alone(connection: sqlite3.Connection, operations: Sequence[Operation[T]]) -> list[T]:
    """The batch of those that come one by one."""
    return [operation(connection) for operation in operations]


def _batches(group: Sequence[_Work]) -> Iterator[list[_Work]]:
    """What is done together. Nothing changes places with an operation that comes alone: that may be about any row."""
    together: dict[Batch[Any, Any], list[_Work]] = {}
    for work in group:
        if work.batch is _alone:
            yield from together.values()
            yield [work]
            together = {}
        else:
            together.setdefault(work.batch, []).append(work)
    yield from together.values()


def unavailable_by(error: sqlite3.Error | OSError) -> SpoolUnavailable:
    """An error of the database or of a file, as callers hear it."""
    name = error_name(error)
    cause = f"{error} ({name})" if name else (getattr(error, "strerror", None) or str(error))
    unavailable = SpoolUnavailable(cause, full=lacks_room(error))
    unavailable.__cause__ = error
    return unavailable


def _is_full(failure: Exception | None) -> bool:
    return failure is not None and lacks_room(failure)


def is_of_kind(error: SpoolUnavailable, kind: str) -> bool:
    """Was it SQLite's error of this name, or of one that begins so?"""
    return error_name(error.__cause__).startswith(kind)


def _is_the_spools(error: Exception) -> bool:
    """Is an operation's error one of the disk or the database, and not of the operation or the rows it touches?"""
    return isinstance(error, OSError) or (
        isinstance(error, sqlite3.Error) and not error_name(error).startswith(_ONE_FAULT)
    )


def _told(error: Exception) -> Exception:
    return unavailable_by(error) if isinstance(error, sqlite3.Error) else error


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is that bears this name now."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
