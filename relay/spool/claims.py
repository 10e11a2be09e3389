"""The SQL of claims: taken, renewed, lost and given back. Each function runs within a transaction of the writer.

Times are on the spool's clock.
"""

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from relay.core.lifecycle import LEASE, Event, State, after
from relay.core.spooled import Lane
from relay.spool.rows import HELD_BY_OPERATOR, Now, find, move

BROKEN_OFF = "its attempt was broken off, and may have succeeded"
OVER_AGE = "over age while it could not be sent"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was claimed: rows with their queue ids; the lanes where mail waits; seconds until more falls due."""

    messages: list[tuple[int, str]]
    lanes: frozenset[Lane]
    next_due: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Claims that were let go: those that are due again, and those whose files of content nobody needs."""

    queued: list[str]
    files: list[str]


def claim(connection: sqlite3.Connection, limit: int, skip: Collection[Lane], now: Now) -> Taken:
    """Take up to `limit` due messages, fairly between the lanes and the oldest first in each, but from none of `skip`.

    What it costs depends on the number of lanes where mail waits, and not on the number of messages.
    """
    waiting = {
        row: (due, Lane(credential, subaccount or None))
        for row, credential, subaccount, due in connection.execute(
            "SELECT id, credential, subaccount,"
            " (SELECT due FROM message WHERE lane = lane.id AND state = 'queued' ORDER BY due LIMIT 1)"
            " FROM lane WHERE queued > 0"
        )
    }
    heads = {row: due for row, (due, lane) in waiting.items() if lane not in skip}
    ready = sorted((row for row, due in heads.items() if due <= now.spool), key=heads.__getitem__)
    taken: list[tuple[int, str]] = []
    touched: set[int] = set()
    while ready and len(taken) < limit:
        share = max(1, (limit - len(taken)) // len(ready))
        visited = ready[: limit - len(taken)]
        found = {lane: _take(connection, lane, share, now) for lane in visited}
        for messages in found.values():
            taken += messages
        touched.update(visited)
        ready = [lane for lane, messages in found.items() if len(messages) == share]
    for lane in touched:
        heads.pop(lane)
        for (due,) in connection.execute(
            "SELECT due FROM message WHERE lane = ? AND state = 'queued' ORDER BY due LIMIT 1", (lane,)
        ):
            heads[lane] = due
    following = min(heads.values(), default=None)
    lanes = frozenset(lane for _, lane in waiting.values())
    return Taken(taken, lanes, None if following is None else max(0.0, following - now.spool))


def _take(connection: sqlite3.Connection, lane: int, count: int, now: Now) -> list[tuple[int, str]]:
    """Claim the oldest due messages of a lane, up to `count`."""
    found: list[tuple[int, str]] = connection.execute(
        "SELECT id, queue_id FROM message WHERE lane = ? AND state = 'queued' AND due <= ? ORDER BY due LIMIT ?",
        (lane, now.spool, count),
    ).fetchall()
    connection.executemany(
        "UPDATE message SET state = 'active', lease = ? WHERE id = ?",
        [(now.spool + LEASE, row) for row, _ in found],
    )
    return found


def renew(connection: sqlite3.Connection, queue_ids: Collection[str], now: Now) -> None:
    """The holders of these claims are alive; and what the clocks say, for the process after this one."""
    connection.executemany(
        "UPDATE message SET lease = ? WHERE queue_id = ? AND state = 'active'",
        [(now.spool + LEASE, queue_id) for queue_id in queue_ids],
    )
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [("time", now.spool), ("wall", now.wall)],
    )


def reclaim(connection: sqlite3.Connection, alive: Collection[str], now: Now, *, leases: bool) -> Lost:
    """Claims whose holder is gone: due at once, and marked as possibly sent twice.

    `leases`: only those whose lease is over; else all that are not `alive`, because no other process can hold one.
    """
    lost = [
        (row, queue_id, wish)
        for row, queue_id, wish, lease in connection.execute(
            "SELECT id, queue_id, wish, lease FROM message WHERE state = 'active'"
        )
        if queue_id not in alive and not (leases and lease is not None and lease > now.spool)
    ]
    connection.executemany(
        "UPDATE message SET due = ?, maybe_twice = 1, reason = ? WHERE id = ?",
        [(now.spool, BROKEN_OFF, row) for row, _, _ in lost],
    )
    return _lose(connection, lost, now)


def give_back(connection: sqlite3.Connection, queue_ids: Collection[str], now: Now) -> Lost:
    """Claims that were not used: queued again as if nothing had been."""
    given = [
        (row, queue_id, wish)
        for queue_id in queue_ids
        for row, wish in connection.execute(
            "SELECT id, wish FROM message WHERE queue_id = ? AND state = 'active'", (queue_id,)
        )
    ]
    return _lose(connection, given, now)


def _lose(connection: sqlite3.Connection, claims: Iterable[tuple[int, str, str | None]], now: Now) -> Lost:
    """Let claims go; what the operator wanted meanwhile is done now."""
    lost = Lost([], [])
    for row, queue_id, wish in claims:
        state = after(State.ACTIVE, Event(wish) if wish else Event.LOSE)
        if state is State.HELD:
            connection.execute("UPDATE message SET reason = ? WHERE id = ?", (HELD_BY_OPERATOR, row))
        if move(connection, row, state, now):
            lost.files.append(queue_id)
        if state is State.QUEUED:
            lost.queued.append(queue_id)
    return lost


def hold(connection: sqlite3.Connection, queue_id: str, reason: str, now: Now) -> bool:
    """Keep a claimed message for the operator, because of what was found before any attempt.

    True if that leaves a file of content that nobody needs, as the operator wanted it deleted. Where the claim is lost,
    whoever has the message now will find the same.
    """
    row = find(connection, queue_id)
    state, wish = connection.execute("SELECT state, wish FROM message WHERE id = ?", (row,)).fetchone()
    if state != State.ACTIVE:
        return False
    connection.execute("UPDATE message SET reason = ? WHERE id = ?", (reason, row))
    return move(connection, row, after(State.ACTIVE, Event(wish or Event.HOLD)), now)


def hold_over_age(connection: sqlite3.Connection, blocked: Collection[Lane], limit: int, now: Now) -> list[str]:
    """Hold what has grown too old in lanes that are held back; the queue ids. Other mail gets its last attempt."""
    held: list[str] = []
    for lane in blocked:
        over = connection.execute(
            "SELECT id, queue_id FROM message WHERE state = 'queued' AND expires <= ?"
            " AND lane = (SELECT id FROM lane WHERE credential = ? AND subaccount = ?) ORDER BY expires LIMIT ?",
            (now.spool, lane.credential, lane.subaccount or 0, limit - len(held)),
        ).fetchall()
        for row, queue_id in over:
            connection.execute("UPDATE message SET reason = ? WHERE id = ?", (OVER_AGE, row))
            move(connection, row, after(State.QUEUED, Event.HOLD), now)
            held.append(queue_id)
    return held
