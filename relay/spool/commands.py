"""The SQL of what the operator wants done to a message. Each function runs within a transaction of the writer."""

import sqlite3
from typing import Final

from relay.core.lifecycle import Event, State, after
from relay.core.login import Assignment
from relay.core.spooled import Lane
from relay.spool.rows import HELD_BY_OPERATOR, Now, find, lane_row, move

RELEASED: Final = "released by the operator"
RETRIED: Final = "to be retried at once, by the operator"


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
        (assignment.identity, lane_row(connection, Lane.of(assignment)), row),
    )
