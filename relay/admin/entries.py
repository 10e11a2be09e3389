"""Stored messages as JSON: what the admin server answers and what the `queue` commands print with `--json`."""

from datetime import UTC, datetime
from typing import Any

from relay.admin.desk import Moved
from relay.core.spooled import Entry, Stats


def moment(epoch: float | None) -> str | None:
    """A time by the wall in ISO 8601, UTC: `2026-11-25T10:35:22.123Z`."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def summary(entry: Entry, login: str | None) -> dict[str, Any]:
    """One line of a list. `login` is the complete AUTH user name, None if its credential has gone."""
    return {
        "id": entry.queue_id,
        "state": entry.state.value,
        "identity": entry.assignment.identity,
        "login": login,
        "reverse_path": entry.reverse_path,
        "size": entry.size,
        "accepted": moment(entry.received),
        "due": moment(entry.due),
        "attempts": entry.attempts,
        "recipients": [
            {"address": one.address, "state": one.fate.value, "reply": one.reply} for one in entry.recipients
        ],
    }


def detail(entry: Entry, login: str | None, header: bytes | None) -> dict[str, Any]:
    """Everything about one message but its body. `header` is None once the content has gone."""
    return summary(entry, login) | {
        "credential": entry.assignment.credential,
        "subaccount": entry.assignment.subaccount,
        "possibly_sent_twice": entry.maybe_twice,
        "reason": entry.reason,
        "finished": moment(entry.finished),
        "recipients": [
            {
                "address": one.address,
                "state": one.fate.value,
                "reply": one.reply,
                "message_id": one.message_id,
                "settled": moment(one.settled),
            }
            for one in entry.recipients
        ],
        "history": [
            {
                "attempt": line.number,
                "time": moment(line.time),
                "endpoint": line.endpoint,
                "outcome": line.outcome,
                "phase": line.phase,
                "reply": line.reply,
                "recipients": [entry.recipients[number].address for number in line.recipients],
            }
            for line in entry.history
        ],
        "header": None if header is None else header.decode("utf-8", "replace"),
    }


def content_gone(entry: Entry) -> str:
    """Why there is nothing to be read."""
    return f"the content of {entry.queue_id} is not kept, as it is {entry.state}"


def tally(stats: Stats) -> dict[str, Any]:
    """Messages by state, and how many seconds the oldest of those still to be delivered has waited."""
    messages = {state.value: count for state, count in stats.messages.items()}
    return {"messages": messages, "oldest_seconds": round(stats.oldest, 3)}


def outcome(moved: Moved) -> dict[str, Any]:
    """What became of a wish of the operator's."""
    if moved.state is not None:
        return {"id": moved.queue_id, "state": moved.state.value}
    return {"id": moved.queue_id, "error": moved.problem, "overtaken": moved.overtaken}
