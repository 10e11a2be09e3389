"""All of the SQL that only reads: what an attempt needs of a claimed message, and what people want to see."""

import contextlib
import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final

from relay.core.envelope import Address, Envelope, PathError, Recipient, ReversePath
from relay.core.lifecycle import Fate, State
from relay.core.login import Assignment
from relay.core.message import Body, Content, MemoryBody, Message
from relay.core.spooled import AttemptEntry, Claim, Entry, Page, RecipientEntry, Stats, UnknownMessage, Unreadable
from relay.spool.clock import SpoolClock
from relay.spool.content import ContentStore, checksum

SCAN: Final = 20_000  # messages looked at for one page of a search

# What an error of a content file says about the file, and not about how the relay fares at the moment.
_DAMAGE: Final = frozenset({errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EUCLEAN})


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """Raises Unreadable for what is damaged; OSError and sqlite3.OperationalError for what may be readable later."""
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise Unreadable(f"its row cannot be read: {error}") from error
    except (PathError, ValueError, TypeError) as error:
        raise Unreadable(f"its row makes no sense: {error}") from error
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        raise Unreadable(f"its content cannot be read: {error.strerror}") from error


def load_each(
    connection: sqlite3.Connection, rows: Iterable[int], store: ContentStore, now: float
) -> list[Claim | Unreadable]:
    """What `load` gives or says of each."""
    loaded: list[Claim | Unreadable] = []
    for row in rows:
        try:
            loaded.append(load(connection, row, store, now))
        except Unreadable as error:
            loaded.append(error)
    return loaded


@_damage_told()
def load(connection: sqlite3.Connection, row: int, store: ContentStore, now: float) -> Claim:
    """A claimed message with everything an attempt needs.

    Raises Unreadable, or OSError and sqlite3.OperationalError for what may be readable later.
    """
    found = connection.execute(
        "SELECT queue_id, identity, credential, subaccount, reverse_path, body_type, ret, envid, longest_line,"
        " eight_bit, attempts, expires, received FROM message JOIN lane ON lane.id = lane WHERE message.id = ?",
        (row,),
    ).fetchone()
    if found is None:
        raise Unreadable("its row is not whole")
    queue_id, identity, credential, subaccount, reverse_path, body_type, ret, envid = found[:8]
    longest_line, eight_bit, attempts, expires, received = found[8:]
    recipients, fates = [], []
    for address, notify, orcpt, fate in connection.execute(
        "SELECT address, notify, orcpt, fate FROM recipient WHERE message = ? ORDER BY number", (row,)
    ):
        recipients.append(Recipient(Address.parse(address), notify, orcpt))
        fates.append(Fate(fate))
    envelope = Envelope(
        ReversePath(Address.parse(reverse_path) if reverse_path else None), tuple(recipients), body_type, ret, envid
    )
    content = _content(connection, row, queue_id, store, longest_line, eight_bit)
    return Claim(
        message=Message(queue_id, envelope, content),
        assignment=Assignment(identity, credential, subaccount or None),
        pending=tuple(number for number, fate in enumerate(fates) if fate is Fate.PENDING),
        attempts=attempts,
        age_left=expires - now,
        received=received,
        failed_before=any(fate in (Fate.BOUNCED, Fate.EXPIRED) for fate in fates),
    )


def _content(
    connection: sqlite3.Connection, row: int, queue_id: str, store: ContentStore, longest_line: int, eight_bit: int
) -> Content:
    """The content, all of it there and as it was written; raises Unreadable or OSError."""
    found = connection.execute("SELECT header, body, length, crc FROM content WHERE message = ?", (row,)).fetchone()
    if found is None:
        raise Unreadable("its content is not in the spool")
    header, octets, length, crc = found
    body: Body = store.body(queue_id, length) if octets is None else MemoryBody(octets)
    if checksum(header, body) != crc:
        raise Unreadable("its content is torn: it is not what was written (checksum)")
    return Content(header, body, longest_line, bool(eight_bit))


@_damage_told()
def content(connection: sqlite3.Connection, queue_id: str, store: ContentStore) -> Content:
    """A message's content, for people; raises UnknownMessage, and what `load` raises."""
    found = connection.execute(
        "SELECT id, longest_line, eight_bit FROM message WHERE queue_id = ?", (queue_id,)
    ).fetchone()
    if found is None:
        raise UnknownMessage(queue_id)
    row, longest_line, eight_bit = found
    return _content(connection, row, queue_id, store, longest_line, eight_bit)


def header(connection: sqlite3.Connection, queue_id: str) -> bytes | None:
    """A message's header section; None once its content has gone. Raises UnknownMessage."""
    found = connection.execute(
        "SELECT header FROM message LEFT JOIN content ON message = message.id WHERE queue_id = ?", (queue_id,)
    ).fetchone()
    if found is None:
        raise UnknownMessage(queue_id)
    octets: bytes | None = found[0]
    return octets


def stats(connection: sqlite3.Connection, wall: float) -> Stats:
    """Never counts: the tally is kept as messages move, and the oldest is the first of its state."""
    messages = {State(state): count for state, count in connection.execute("SELECT state, messages FROM tally")}
    oldest = [
        received
        for state in (State.QUEUED, State.ACTIVE, State.HELD)
        for (received,) in connection.execute(
            "SELECT received FROM message WHERE state = ? ORDER BY id LIMIT 1", (state,)
        )
    ]
    return Stats(messages, max(0.0, wall - min(oldest, default=wall)))


_COLUMNS: Final = (
    "message.id, queue_id, state, identity, credential, subaccount, reverse_path, size, received, due, attempts,"
    " maybe_twice, reason, finished"
)


def entry(connection: sqlite3.Connection, queue_id: str, clock: SpoolClock) -> Entry:
    """One message with its history; raises UnknownMessage."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM message JOIN lane ON lane.id = lane WHERE queue_id = ?",  # noqa: S608 - our own names
        (queue_id,),
    ).fetchone()
    if found is None:
        raise UnknownMessage(queue_id)
    history = tuple(
        AttemptEntry(number, at, endpoint, outcome, phase, reply, json.loads(recipients))
        for number, at, endpoint, outcome, phase, reply, recipients in connection.execute(
            "SELECT number, at, endpoint, outcome, phase, reply, recipients FROM attempt WHERE message = ?"
            " ORDER BY number, line",
            (found[0],),
        )
    )
    return _entry(connection, found, clock, history)


def page(
    connection: sqlite3.Connection,
    clock: SpoolClock,
    *,
    state: State | None,
    search: str | None,
    cursor: str | None,
    limit: int,
) -> Page:
    """The next entries behind `cursor`, the oldest first.

    A search looks at a bounded number of messages for each page, so a page may be short, or empty, and not the last.
    """
    where = "message.id > ?" + (" AND state = ?" if state is not None else "")
    bounds: tuple[Any, ...] = (int(cursor or 0), *((state,) if state is not None else ()))
    scanned = limit if search is None else SCAN
    (last, count) = connection.execute(
        f"SELECT max(id), count(*) FROM (SELECT id FROM message WHERE {where} ORDER BY id LIMIT ?)",  # noqa: S608
        (*bounds, scanned),
    ).fetchone()
    if not count:
        return Page((), None)
    match = " AND (" + " OR ".join(f"instr(lower({column}), ?)" for column in _SEARCHED) + f" OR {_RECIPIENT_MATCHES})"
    words = () if search is None else (search.lower(),) * (len(_SEARCHED) + 3)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM message JOIN lane ON lane.id = lane"  # noqa: S608
        f" WHERE {where} AND message.id <= ?{match if search is not None else ''} ORDER BY message.id LIMIT ?",
        (*bounds, last, *words, limit),
    ).fetchall()
    end = rows[-1][0] if len(rows) == limit else last
    more = connection.execute(
        f"SELECT 1 FROM message WHERE {where} LIMIT 1",  # noqa: S608
        (end, *bounds[1:]),
    ).fetchone()
    return Page(tuple(_entry(connection, found, clock) for found in rows), str(end) if more else None)


_SEARCHED: Final = ("queue_id", "identity", "reverse_path", "coalesce(reason, '')")
_RECIPIENT_MATCHES: Final = (
    "EXISTS (SELECT 1 FROM recipient WHERE recipient.message = message.id AND (instr(lower(address), ?)"
    " OR instr(lower(coalesce(reply, '')), ?) OR instr(lower(coalesce(message_id, '')), ?)))"
)


def _entry(
    connection: sqlite3.Connection, found: tuple[Any, ...], clock: SpoolClock, history: tuple[AttemptEntry, ...] = ()
) -> Entry:
    (row, queue_id, state, identity, credential, subaccount, reverse_path, size, received, due, attempts) = found[:11]
    maybe_twice, reason, finished = found[11:]
    return Entry(
        queue_id=queue_id,
        state=State(state),
        assignment=Assignment(identity, credential, subaccount or None),
        reverse_path=reverse_path,
        size=size,
        received=received,
        due=clock.wall(due) if state == State.QUEUED else None,
        attempts=attempts,
        maybe_twice=bool(maybe_twice),
        reason=reason,
        finished=None if finished is None else clock.wall(finished),
        recipients=tuple(_recipients(connection, row)),
        history=history,
    )


def _recipients(connection: sqlite3.Connection, row: int) -> Iterator[RecipientEntry]:
    for address, fate, reply, message_id, settled in connection.execute(
        "SELECT address, fate, reply, message_id, settled FROM recipient WHERE message = ? ORDER BY number", (row,)
    ):
        yield RecipientEntry(address, Fate(fate), reply, message_id, settled)
