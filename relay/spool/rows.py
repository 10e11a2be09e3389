"""The SQL that stores messages and moves them. Each function runs within a transaction of the writer.

Times without a name are on the spool's clock; `wall` is by the clock on the wall.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from relay.core.lifecycle import ENDED, LEASE, TRANSITIONS, Event, Fate, Settlement, State, after
from relay.core.spooled import Deposit, Lane, Record, UnknownMessage
from relay.spool.content import INLINE_LIMIT
from relay.spool.database import Row, execute_together

_FINAL: Final = (Fate.DELIVERED, Fate.BOUNCED, Fate.EXPIRED)
# What of an attempt gives way to what the operator wanted meanwhile.
_OVERRULED: Final = {Event.HOLD: (Event.DEFER, Event.HOLD), Event.DELETE: (Event.DEFER, Event.HOLD, Event.FAIL)}

_DROP_CONTENT: Final = "DELETE FROM content WHERE message IN ({values})"

HELD_BY_OPERATOR: Final = "held by the operator"


class Now(NamedTuple):
    """One moment on both clocks."""

    spool: float
    wall: float


class Arrival(NamedTuple):
    """A message to be stored, at a moment. `body` is None where it is in a file; `crc` is that of all the content."""

    deposit: Deposit
    body: bytes | None
    crc: int
    now: Now


class Report(NamedTuple):
    """What an attempt at a message came to, at a moment."""

    queue_id: str
    what: Record
    now: Now


class _Known(NamedTuple):
    """What there is of a message when an attempt at it is written down."""

    row: int
    state: State
    wish: str | None
    tries: int
    in_a_file: bool  # its content


@dataclass(frozen=True, slots=True)
class Purged:
    """How many messages were removed, and those whose files of content nobody needs."""

    messages: int
    files: list[str]


def in_a_file(deposit: Deposit) -> bool:
    """Is the body of this deposit to be a file of its own?"""
    return not deposit.ended and deposit.message.content.body.size > INLINE_LIMIT


def inline(deposit: Deposit, now: Now) -> Arrival:
    """With a copy of its small body: whoever deposits it may be cancelled, and close it, before the row is written."""
    content = deposit.message.content
    body = b"" if deposit.ended else b"".join(content.body.chunks())
    return Arrival(deposit, body, zlib.crc32(body, zlib.crc32(content.header)), now)


def insert(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> list[None]:
    """Store messages, with what an attempt has already come to."""
    lanes: dict[tuple[str, int | None], int] = {}
    messages: list[Row] = []
    for deposit, _, _, now in arrivals:
        login = deposit.assignment.credential, deposit.assignment.subaccount
        if login not in lanes:
            lanes[login] = lane_row(connection, Lane(*login))
        messages.append(_message(deposit, lanes[login], now))
    last = execute_together(
        connection,
        "INSERT INTO message (queue_id, state, lane, identity, reverse_path, body_type, ret, envid, size, longest_line,"
        " eight_bit, received, expires, max_age, due, lease) {values}",
        messages,
    )[-1].lastrowid
    assert last is not None
    recipients: list[Row] = []
    contents: list[Row] = []
    reports: list[Report] = []
    found: dict[str, _Known] = {}
    # A message's row is the one after the last there is, so these follow one another.
    for row, (deposit, body, crc, now) in enumerate(arrivals, last - len(arrivals) + 1):
        for number, recipient in enumerate(deposit.message.envelope.recipients):
            recipients.append((row, number, str(recipient.address), recipient.notify, recipient.orcpt))
        if deposit.record is not None:
            reports.append(Report(deposit.message.queue_id, deposit.record, now))
            found[deposit.message.queue_id] = _Known(row, State.ACTIVE, None, 0, in_a_file=body is None)
        if not deposit.ended:
            content = deposit.message.content
            contents.append((row, content.header, body, content.body.size, crc))
    execute_together(connection, "INSERT INTO recipient (message, number, address, notify, orcpt) {values}", recipients)
    execute_together(connection, "INSERT INTO content (message, header, body, length, crc) {values}", contents)
    if reports:
        _write_down(connection, reports, found)
    return [None] * len(arrivals)


def _message(deposit: Deposit, lane: int, now: Now) -> Row:
    message, envelope, content = deposit.message, deposit.message.envelope, deposit.message.content
    attempted = deposit.claimed or deposit.record is not None
    return (
        message.queue_id,
        str(State.ACTIVE if attempted else State.QUEUED),
        lane,
        deposit.assignment.identity,
        str(envelope.reverse_path),
        envelope.body,
        envelope.ret,
        envelope.envid,
        content.size,
        content.longest_line,
        int(content.eight_bit),
        deposit.received,
        now.spool + deposit.max_age,
        deposit.max_age,
        now.spool,
        now.spool + LEASE if attempted else None,
    )


def lane_row(connection: sqlite3.Connection, lane: Lane) -> int:
    """The row of a lane; made when mail first travels there."""
    names = (lane.credential, lane.subaccount or 0)
    found = connection.execute("SELECT id FROM lane WHERE credential = ? AND subaccount = ?", names).fetchone()
    if found is None:
        found = connection.execute(
            "INSERT INTO lane (credential, subaccount) VALUES (?, ?) RETURNING id", names
        ).fetchone()
    return int(found[0])


def record(connection: sqlite3.Connection, reports: Sequence[Report]) -> list[Sequence[str]]:
    """Write down what attempts came to; for each, the message whose file of content nobody needs any more, or none."""
    found = _found(connection, reports)
    if len(found) < len(reports):
        # Two about one message: what the first has changed is to be known when the second is judged.
        return [files for report in reports for files in record(connection, [report])]
    return _write_down(connection, reports, found)


def _write_down(
    connection: sqlite3.Connection, reports: Sequence[Report], found: Mapping[str, _Known]
) -> list[Sequence[str]]:
    """The same for reports about messages of which it is known what they are, each a different one."""
    _settle_recipients(connection, reports, found)
    _note_attempts(connection, reports, found)
    _insert_notices(connection, reports)
    moves: list[Row] = []
    ended: list[Row] = []
    unneeded: list[Sequence[str]] = []
    for queue_id, what, now in reports:
        known, settlement = found[queue_id], what.settlement
        event, reason = _meaning(connection, known, settlement)
        if event is None:
            connection.execute("UPDATE message SET tries = tries + 1 WHERE id = ?", (known.row,))
            unneeded.append(())
            continue
        state = after(known.state, event)
        if state is State.DELETED:
            _give_up_pending(connection, known.row, now)
        if state in ENDED:
            ended.append((known.row,))
        unneeded.append([queue_id] if known.in_a_file and state in ENDED else ())
        moves.append(
            (
                known.row,
                int(settlement.counted),
                int(settlement.ambiguous),
                now.spool + settlement.delay,
                reason,
                str(state),
                _finished(state, now),
            )
        )
    execute_together(
        connection,
        "UPDATE message SET tries = tries + 1, attempts = attempts + column2, maybe_twice = maybe_twice OR column3,"
        " due = column4, reason = column5, state = column6, finished = column7, lease = NULL, wish = NULL"
        " FROM ({values}) WHERE id = column1",
        moves,
    )
    execute_together(connection, _DROP_CONTENT, ended)
    return unneeded


def _found(connection: sqlite3.Connection, reports: Sequence[Report]) -> dict[str, _Known]:
    """The messages of the reports, by queue id; raises UnknownMessage."""
    # All in one row, for the reason that `execute_together` has.
    cursors = execute_together(
        connection,
        "SELECT json_group_array(json_array(queue_id, id, state, wish, tries, EXISTS"
        " (SELECT 1 FROM content WHERE message = message.id AND body IS NULL)))"
        " FROM message WHERE queue_id IN ({values})",
        [(report.queue_id,) for report in reports],
    )
    found = {
        queue_id: _Known(row, State(state), wish, tries, bool(in_a_file))
        for cursor in cursors
        for queue_id, row, state, wish, tries, in_a_file in json.loads(cursor.fetchone()[0])
    }
    for report in reports:
        if report.queue_id not in found:
            raise UnknownMessage(report.queue_id)
    return found


def _meaning(connection: sqlite3.Connection, known: _Known, settlement: Settlement) -> tuple[Event | None, str | None]:
    """What an attempt does to a message, and why; None where the message stays where it is."""
    event, reason = settlement.event, settlement.reason
    if known.state is not State.ACTIVE:
        # The claim was lost meanwhile. What SparkPost said for good stands; the schedule is whoever's has it now.
        late = _outcome_of(connection, known.row)
        return (late if late is not None and (known.state, late) in TRANSITIONS else None), reason
    if known.wish is not None and event in _OVERRULED[Event(known.wish)]:
        return Event(known.wish), HELD_BY_OPERATOR if known.wish == Event.HOLD else reason
    return event, reason


def _settle_recipients(connection: sqlite3.Connection, reports: Sequence[Report], found: Mapping[str, _Known]) -> None:
    """What is final stands against what is not, and delivered against everything."""
    settled: list[Row] = []
    for queue_id, what, now in reports:
        row = found[queue_id].row
        for one in what.settlement.verdicts:
            since = now.wall if one.fate in _FINAL else None
            settled.append((row, one.number, str(one.fate), one.reply, one.message_id, since))
    execute_together(
        connection,
        "UPDATE recipient SET fate = column3, reply = column4, message_id = column5, settled = column6"
        " FROM ({values}) WHERE message = column1 AND number = column2"
        " AND (fate = 'pending' OR column3 != 'pending' AND fate != 'delivered')",
        settled,
    )


def _note_attempts(connection: sqlite3.Connection, reports: Sequence[Report], found: Mapping[str, _Known]) -> None:
    """The history: recipients that heard the same share a line."""
    lines: list[Row] = []
    for queue_id, what, now in reports:
        known = found[queue_id]
        heard: dict[tuple[str, str, str], list[int]] = {}
        for one in what.settlement.verdicts:
            heard.setdefault((one.outcome, one.phase, one.reply), []).append(one.number)
        for line, (said, numbers) in enumerate(sorted(heard.items())):
            # A list of numbers looks the same in JSON.
            lines.append((known.row, known.tries + 1, line, now.wall, what.endpoint, *said, str(numbers)))
    execute_together(
        connection,
        "INSERT INTO attempt (message, number, line, at, endpoint, outcome, phase, reply, recipients) {values}",
        lines,
    )


def _insert_notices(connection: sqlite3.Connection, reports: Sequence[Report]) -> None:
    """The DSNs that are not there yet."""
    notices = [
        inline(what.notice, now)
        for _, what, now in reports
        if what.notice is not None and not _exists(connection, what.notice.message.queue_id)
    ]
    if notices:
        insert(connection, notices)


def _outcome_of(connection: sqlite3.Connection, row: int) -> Event | None:
    """How a message ends whose recipients are all settled; None while one is pending."""
    fates = {fate for (fate,) in connection.execute("SELECT fate FROM recipient WHERE message = ?", (row,))}
    if Fate.PENDING in fates:
        return None
    return Event.DELIVER if fates <= {Fate.DELIVERED} else Event.FAIL


def move(connection: sqlite3.Connection, row: int, state: State, now: Now) -> bool:
    """Into a state, with what belongs to it; True if that leaves a file of content that nobody needs."""
    connection.execute(
        "UPDATE message SET state = ?, finished = ?, lease = NULL, wish = NULL WHERE id = ?",
        (state, _finished(state, now), row),
    )
    if state is State.DELETED:
        _give_up_pending(connection, row, now)
    if state not in ENDED:
        return False
    in_a_file = connection.execute("SELECT 1 FROM content WHERE message = ? AND body IS NULL", (row,)).fetchone()
    execute_together(connection, _DROP_CONTENT, [(row,)])
    return in_a_file is not None


def _finished(state: State, now: Now) -> float | None:
    """Since when a message that comes into this state has been finished."""
    return now.spool if state in ENDED or state is State.FAILED else None


def _give_up_pending(connection: sqlite3.Connection, row: int, now: Now) -> None:
    """Recipients that wait will never get it."""
    connection.execute(
        "UPDATE recipient SET fate = 'deleted', settled = ? WHERE message = ? AND fate = 'pending'", (now.wall, row)
    )


def purge(connection: sqlite3.Connection, failed: float, ended: float, limit: int) -> Purged:
    """Remove what finished before these times: dead letters, and the ledger's lines."""
    gone: list[tuple[int, str, int]] = []
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
