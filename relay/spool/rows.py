"""The SQL that stores messages and moves them. Each function runs within a transaction of the writer.

Times without a name are on the spool's clock; `wall` is by the clock on the wall.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final

from relay.core.lifecycle import ENDED, LEASE, TRANSITIONS, Event, Fate, State, Verdict, after
from relay.core.login import Assignment
from relay.core.spooled import Deposit, Lane, Record, UnknownMessage
from relay.spool.content import INLINE_LIMIT

_FINAL: Final = (Fate.DELIVERED, Fate.BOUNCED, Fate.EXPIRED)
# What of an attempt gives way to what the operator wanted meanwhile.
_OVERRULED: Final = {Event.HOLD: (Event.DEFER, Event.HOLD), Event.DELETE: (Event.DEFER, Event.HOLD, Event.FAIL)}

HELD_BY_OPERATOR: Final = "held by the operator"
RELEASED: Final = "released by the operator"
RETRIED: Final = "to be retried at once, by the operator"


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks."""

    spool: float
    wall: float


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of a deposit as its row holds it; `body` is None where it is in a file, or not kept at all."""

    body: bytes | None
    crc: int


@dataclass(frozen=True, slots=True)
class Purged:
    """How many messages were removed, and those whose files of content nobody needs."""

    messages: int
    files: list[str]


def in_a_file(deposit: Deposit) -> bool:
    """Is the body of this deposit to be a file of its own?"""
    return not deposit.ended and deposit.message.content.body.size > INLINE_LIMIT


def inline(deposit: Deposit) -> Stored:
    """A copy of a small body: whoever deposits it may be cancelled, and close it, before the row is written."""
    content = deposit.message.content
    body = b"" if deposit.ended else b"".join(content.body.chunks())
    return Stored(body, zlib.crc32(body, zlib.crc32(content.header)))


def insert(connection: sqlite3.Connection, deposit: Deposit, stored: Stored, now: Now) -> None:
    """Store a message, with what an attempt has already come to."""
    message, assignment = deposit.message, deposit.assignment
    envelope, content = message.envelope, message.content
    attempted = deposit.claimed or deposit.record is not None
    row = connection.execute(
        "INSERT INTO message (queue_id, state, lane, identity, reverse_path, body_type, ret, envid, size, longest_line,"
        " eight_bit, received, expires, max_age, due, lease) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.queue_id,
            State.ACTIVE if attempted else State.QUEUED,
            _lane(connection, Lane.of(assignment)),
            assignment.identity,
            str(envelope.reverse_path),
            envelope.body,
            envelope.ret,
            envelope.envid,
            content.size,
            content.longest_line,
            content.eight_bit,
            deposit.received,
            now.spool + deposit.max_age,
            deposit.max_age,
            now.spool,
            now.spool + LEASE if attempted else None,
        ),
    ).lastrowid
    assert row is not None
    connection.executemany(
        "INSERT INTO recipient (message, number, address, notify, orcpt) VALUES (?, ?, ?, ?, ?)",
        [
            (row, number, str(recipient), recipient.notify, recipient.orcpt)
            for number, recipient in enumerate(envelope.recipients)
        ],
    )
    if not deposit.ended:
        connection.execute(
            "INSERT INTO content (message, header, body, length, crc) VALUES (?, ?, ?, ?, ?)",
            (row, content.header, stored.body, content.body.size, stored.crc),
        )
    if deposit.record is not None:
        record(connection, message.queue_id, deposit.record, now)


def _lane(connection: sqlite3.Connection, lane: Lane) -> int:
    """The row of a lane; made when mail first travels there."""
    names = (lane.credential, lane.subaccount or 0)
    found = connection.execute("SELECT id FROM lane WHERE credential = ? AND subaccount = ?", names).fetchone()
    if found is None:
        found = connection.execute(
            "INSERT INTO lane (credential, subaccount) VALUES (?, ?) RETURNING id", names
        ).fetchone()
    return int(found[0])


def record(connection: sqlite3.Connection, queue_id: str, what: Record, now: Now) -> bool:
    """Write down what an attempt came to; True if that leaves a file of content that nobody needs."""
    settlement = what.settlement
    found = connection.execute("SELECT id, state, wish, tries FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    if found is None:
        raise UnknownMessage(queue_id)
    row, state, wish, tries = found
    _settle_recipients(connection, row, settlement.verdicts, now.wall)
    _note_attempt(connection, row, tries + 1, what, now.wall)
    if what.notice is not None and not _exists(connection, what.notice.message.queue_id):
        insert(connection, what.notice, inline(what.notice), now)
    event, reason = settlement.event, settlement.reason
    if state != State.ACTIVE:
        # The claim was lost meanwhile. What SparkPost said for good stands; the schedule is whoever's has it now.
        late = _outcome_of(connection, row)
        if late is None or (State(state), late) not in TRANSITIONS:
            connection.execute("UPDATE message SET tries = tries + 1 WHERE id = ?", (row,))
            return False
        event = late
    elif wish is not None and event in _OVERRULED[Event(wish)]:
        event, reason = Event(wish), HELD_BY_OPERATOR if wish == Event.HOLD else reason
    connection.execute(
        "UPDATE message SET tries = tries + 1, attempts = attempts + ?, maybe_twice = maybe_twice OR ?, due = ?,"
        " reason = ? WHERE id = ?",
        (settlement.counted, settlement.ambiguous, now.spool + settlement.delay, reason, row),
    )
    return move(connection, row, after(State(state), event), now)


def _settle_recipients(connection: sqlite3.Connection, row: int, verdicts: Sequence[Verdict], wall: float) -> None:
    """What is final stands against what is not, and delivered against everything."""
    connection.executemany(
        "UPDATE recipient SET fate = ?, reply = ?, message_id = ?, settled = ? WHERE message = ? AND number = ?"
        " AND (fate = 'pending' OR ? != 'pending' AND fate != 'delivered')",
        [
            (one.fate, one.reply, one.message_id, wall if one.fate in _FINAL else None, row, one.number, one.fate)
            for one in verdicts
        ],
    )


def _note_attempt(connection: sqlite3.Connection, row: int, number: int, what: Record, wall: float) -> None:
    """The history: recipients that heard the same share a line."""
    heard = attrgetter("outcome", "phase", "reply")
    lines = groupby(sorted(what.settlement.verdicts, key=heard), key=heard)
    connection.executemany(
        "INSERT INTO attempt (message, number, line, at, endpoint, outcome, phase, reply, recipients)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (row, number, line, wall, what.endpoint, *said, json.dumps([one.number for one in verdicts]))
            for line, (said, verdicts) in enumerate(lines)
        ],
    )


def _outcome_of(connection: sqlite3.Connection, row: int) -> Event | None:
    """How a message ends whose recipients are all settled; None while one is pending."""
    fates = {fate for (fate,) in connection.execute("SELECT fate FROM recipient WHERE message = ?", (row,))}
    if Fate.PENDING in fates:
        return None
    return Event.DELIVER if fates <= {Fate.DELIVERED} else Event.FAIL


def move(connection: sqlite3.Connection, row: int, state: State, now: Now) -> bool:
    """Into a state, with what belongs to it; True if that leaves a file of content that nobody needs."""
    ended = state in ENDED
    connection.execute(
        "UPDATE message SET state = ?, finished = ?, lease = NULL, wish = NULL WHERE id = ?",
        (state, now.spool if ended or state is State.FAILED else None, row),
    )
    if state is State.DELETED:
        connection.execute(
            "UPDATE recipient SET fate = 'deleted', settled = ? WHERE message = ? AND fate = 'pending'", (now.wall, row)
        )
    if not ended:
        return False
    gone = connection.execute("DELETE FROM content WHERE message = ? RETURNING body IS NULL", (row,)).fetchone()
    return gone is not None and bool(gone[0])


def act(
    connection: sqlite3.Connection, queue_id: str, event: Event, assignment: Assignment | None, now: Now
) -> tuple[State, bool]:
    """What the operator wants: the state it leads to, and True if that leaves a file of content that nobody needs.

    Raises UnknownMessage and IllegalTransition. A wish to hold or delete a message that is being attempted is noted and
    fulfilled when the attempt has not delivered it. `assignment` is what a released message travels under from now on.
    """
    row = find(connection, queue_id)
    (state,) = connection.execute("SELECT state FROM message WHERE id = ?", (row,)).fetchone()
    if state == State.ACTIVE and event in (Event.HOLD, Event.DELETE):
        connection.execute("UPDATE message SET wish = ? WHERE id = ?", (event, row))
        return State.ACTIVE, False
    following = after(State(state), event)
    if following is State.QUEUED:
        _begin_anew(connection, row, assignment, now, RELEASED if event is Event.RELEASE else RETRIED)
        if state == State.FAILED:
            connection.execute(
                "UPDATE recipient SET fate = 'pending', settled = NULL"
                " WHERE message = ? AND fate IN ('bounced', 'expired')",
                (row,),
            )
    elif following is State.HELD:
        connection.execute("UPDATE message SET reason = ? WHERE id = ?", (HELD_BY_OPERATOR, row))
    return following, move(connection, row, following, now)


def _begin_anew(connection: sqlite3.Connection, row: int, assignment: Assignment | None, now: Now, reason: str) -> None:
    connection.execute(
        "UPDATE message SET due = ?, attempts = 0, expires = ? + max_age, reason = ? WHERE id = ?",
        (now.spool, now.spool, reason, row),
    )
    if assignment is None:
        return
    connection.execute(
        "UPDATE message SET identity = ?, lane = ? WHERE id = ?",
        (assignment.identity, _lane(connection, Lane.of(assignment)), row),
    )


def purge(connection: sqlite3.Connection, failed: float, ended: float, limit: int) -> Purged:
    """Remove what finished before these times: dead letters, and the ledger's lines."""
    gone: list[tuple[int, str, bool]] = []
    for state, before in ((State.FAILED, failed), *((state, ended) for state in ENDED)):
        gone += connection.execute(
            "SELECT id, queue_id, content.message IS NOT NULL AND body IS NULL FROM message"
            " LEFT JOIN content ON content.message = id WHERE state = ? AND finished < ? ORDER BY finished LIMIT ?",
            (state, before, limit - len(gone)),
        ).fetchall()
    connection.executemany("DELETE FROM message WHERE id = ?", [(row,) for row, _, _ in gone])
    return Purged(len(gone), [queue_id for _, queue_id, in_a_file in gone if in_a_file])


def known(connection: sqlite3.Connection, queue_ids: Iterable[str]) -> dict[str, State]:
    """The states of those that exist."""
    found: dict[str, State] = {}
    for queue_id in queue_ids:
        row = connection.execute("SELECT state FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
        if row is not None:
            found[queue_id] = State(row[0])
    return found


def read_time(connection: sqlite3.Connection) -> tuple[float, float] | None:
    """What the spool's clock and the wall's said when they were last written down."""
    values = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('time', 'wall')"))
    return (values["time"], values["wall"]) if len(values) == 2 else None


def find(connection: sqlite3.Connection, queue_id: str) -> int:
    row = connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    if row is None:
        raise UnknownMessage(queue_id)
    return int(row[0])


def _exists(connection: sqlite3.Connection, queue_id: str) -> bool:
    return connection.execute("SELECT 1 FROM message WHERE queue_id = ?", (queue_id,)).fetchone() is not None
