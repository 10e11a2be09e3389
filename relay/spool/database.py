"""Opening the SQLite file: settings that keep promises, and a schema that is the sum of its migrations."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Final, TypeVar

from relay.core.spooled import SpoolUnavailable
from relay.spool.content import ContentStore

APPLICATION_ID: Final = 0x53505259  # "SPRY"; tells our files from other people's
BUSY_SECONDS: Final = 2.0  # for a lock of somebody else's, such as a backup's
LOG_LIMIT: Final = 64 * 1024 * 1024  # octets of the write-ahead log that are kept when it begins anew

_MOVE_AWAY: Final = (
    "Move it away with all that lies beside it, and keep it: the relay begins with an empty one. sqlite3's .recover may"
    " mend it, where its build has that"
)
_MOVE_AFTER: Final = 4096  # pages of it, 16 MB, that are moved into the database together

# For each blob and each NULL of a row the module looks for an adapter, and takes it as it is when three searches have
# failed. What stands in its table the first finds: in a row with NULLs that saves a third of the price of binding.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(NoneType, lambda nothing: nothing)

Row = tuple[object, ...]
Failure = TypeVar("Failure", bound=Exception)
_TOGETHER: Final = 16  # rows in one statement at most: each number of them is a statement to be compiled, and kept

_MIGRATIONS: Final = sorted(
    (int(entry.name.partition("-")[0]), entry.read_text())
    for entry in (resources.files("relay.spool") / "schema").iterdir()
    if entry.name.endswith(".sql")
)
SCHEMA_VERSION: Final = _MIGRATIONS[-1][0]


class SpoolUnusable(Exception):
    """The file cannot serve as a spool; the text names it and the remedy."""


class SpoolFull(SpoolUnusable):
    """The disk has no room for the spool now: it may have later."""


def real(path: Path) -> Path:
    """Where it is, whatever links lead there: what belongs to a database lies beside it."""
    return Path(os.path.realpath(path))  # unlike Path's own, it leaves links in a circle to whoever opens them


def unusable(path: Path, error: Exception) -> SpoolUnusable:
    """What keeps a spool from being opened, with the remedy."""
    error = true_cause(path, error)
    if error.full if isinstance(error, SpoolUnavailable) else lacks_room(error):
        return SpoolFull(
            f"the spool {path} cannot be opened: the disk is full, has no inodes left, or a quota is used up. Make room"
            " on it"
        )
    cause = (isinstance(error, OSError) and error.strerror) or str(error)
    if any(error_name(one).startswith("SQLITE_CORRUPT") for one in (error, error.__cause__)):
        return SpoolUnusable(f"the spool {path} is damaged, and cannot be opened: {cause}. {_MOVE_AWAY}")
    return SpoolUnusable(
        f"the spool {path} cannot be opened: {cause}. Its directory must be there and writable for the relay's"
        " user; spool.url: none runs without a spool"
    )


def error_name(error: BaseException | None) -> str:
    """SQLite's own name for an error, such as SQLITE_FULL; empty for any other."""
    return getattr(error, "sqlite_errorname", None) or ""


def lacks_room(error: Exception) -> bool:
    """Is there no room on the disk for a file, the database, or the index of its log?"""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return error_name(error) in {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}


def true_cause(path: Path, error: Failure) -> Failure | OSError:
    """What has failed. SQLite says the same of a disk without inodes, or a quota, as of one that is broken."""
    if error_name(error).startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR_WRITE")):
        try:
            ContentStore(path).probe()
        except OSError as found:
            if lacks_room(found):
                return found
    return error


def prepare(path: Path) -> tuple[int, int]:
    """Make the file if there is none and bring its schema up to date: the version it had and the one it has.

    Raises SpoolUnusable for the file of another program, which is left as it is, or of a newer version; OSError and
    sqlite3.Error for what fails.
    """
    # Made here and not by SQLite: mail is nobody else's business, whatever the umask.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = _open(path, "rw")
    try:
        version = _version(connection, path)
        _promise(connection)
        if version < SCHEMA_VERSION:
            _migrate(connection, version)
        return version, SCHEMA_VERSION
    finally:
        connection.close()


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit: transactions are begun and ended by who uses it.

    Never makes a file: a spool that has been taken away is not replaced by an empty one. Raises sqlite3.Error.
    """
    connection = _open(path, "ro" if read_only else "rw")
    try:
        if not read_only:
            _promise(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -4096")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move all of the log into the database, and sync it; raises sqlite3.Error."""
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the database is in use, and its log cannot be made safe")


def execute_together(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> list[sqlite3.Cursor]:
    """Run a statement on many rows, which stand for `{values}` in it; as many times as their number makes necessary.

    Not `executemany`: that takes a step for each row, and with each step the thread goes to the end of the queue for
    the interpreter's lock. What is in the rows is best of SQLite's own types: for others, such as an enumeration's,
    the module looks for an adapter each time.
    """
    cursors = []
    for first in range(0, len(rows), _TOGETHER):
        some = rows[first : first + _TOGETHER]
        values = tuple(chain.from_iterable(some))
        cursors.append(connection.execute(_with_values(statement, len(some[0]), len(some)), values))
    return cursors


@cache
def _with_values(statement: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.format(values=f"VALUES {', '.join([row] * rows)}")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
        cached_statements=256,
    )


def _promise(connection: sqlite3.Connection) -> None:
    """What makes a commit durable. FULL syncs the log at each; NORMAL would not, and a 250 would promise too much."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError("its file system cannot keep a write-ahead log (shared memory is missing)")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    # Much of what one commit writes the next ones write again: the later it is moved, the less often.
    connection.execute(f"PRAGMA wal_autocheckpoint = {_MOVE_AFTER}")
    # Some builds overwrite with zeros what is deleted; for content that has left, that would be its size once more.
    connection.execute("PRAGMA secure_delete = FAST")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of its schema, 0 for a new file; raises SpoolUnusable where it is none of ours."""
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        empty = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname == "SQLITE_NOTADB":
            raise SpoolUnusable(
                f"{path} is no database, or its beginning is destroyed. Is it another file, then give the spool one of "
                f"its own (spool.url). Has it been the spool: {_MOVE_AWAY[0].lower()}{_MOVE_AWAY[1:]}"
            ) from error
        raise
    new = (application, version) == (0, 0) and empty
    if application != APPLICATION_ID and not new:
        raise SpoolUnusable(f"{path} is a database of another program: give the spool a file of its own (spool.url)")
    if version > SCHEMA_VERSION:
        raise SpoolUnusable(
            f"{path} was written by a newer version of sparkpost-relay (its schema is {version}, this program knows "
            f"{SCHEMA_VERSION}): run that version"
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Run what is missing, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, script in _MIGRATIONS:
            if number > version:
                for statement in _statements(script):
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # an error of the disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    """The statements of a script, one by one: `executescript` would commit what is under way."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
