"""The `queue` commands: what they read and move, and how they show it. Each returns its status or raises QueueError.

What goes wrong with one message of several is told on stderr, and the others are moved all the same.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.admin import tables
from relay.admin.queues import FAILED, Queue
from relay.core.lifecycle import Event, State
from relay.streams import tell

PAGE: Final = 500
BATCH: Final = 100  # messages moved at once
ROWS: Final = 200  # of a table, unless more are asked for

# What is still to be dealt with. A message may become active or queued again while the list is read: hence twice.
_LIVE: Final = (State.ACTIVE, State.QUEUED, State.ACTIVE, State.HELD, State.FAILED)

# What `--all` means without `--state`: dead letters are sent again only if they are asked for by name.
ALL_OF: Final = {
    Event.RETRY: (State.QUEUED,),
    Event.HOLD: (State.QUEUED, State.ACTIVE),
    Event.RELEASE: (State.HELD,),
    Event.DELETE: (State.QUEUED, State.ACTIVE, State.HELD, State.FAILED),
}

_DONE: Final = {Event.RETRY: "due now", Event.HOLD: "held", Event.RELEASE: "released", Event.DELETE: "deleted"}


def list_messages(queue: Queue, *, state: State | None, search: str | None, limit: int | None, as_json: bool) -> int:
    """Without `state`: what is not yet done with, or everything where something is searched for."""
    states = (state,) if state is not None or search is not None else _LIVE
    found = _found(queue, states, search)
    if as_json:
        _write_array(found if limit is None else islice(found, limit))
        return 0
    rows = list(islice(found, limit or ROWS))
    if not rows:
        print("nothing is queued" if search is None and state is None else "there is no such message")
        return 0
    out = tables.console()
    out.print(tables.listing(rows, datetime.now(UTC)))
    if next(found, None) is not None:
        out.print(f"and more: --limit N shows more than {len(rows)}, `queue stats` counts them")
    return 0


def _found(queue: Queue, states: Iterable[State | None], search: str | None) -> Iterator[dict[str, Any]]:
    """Each message once, page by page."""
    seen: set[str] = set()
    for state in states:
        cursor = None
        while True:
            page = queue.page(state=state, search=search, cursor=cursor, limit=PAGE)
            for message in page["messages"]:
                if message["id"] not in seen:
                    seen.add(message["id"])
                    yield message
            cursor = page["cursor"]
            if cursor is None:
                break


def show(queue: Queue, queue_id: str, *, content: bool, as_json: bool) -> int:
    """The message itself with `content`; else everything about it."""
    if content and not as_json:
        tables.content(queue.content(queue_id))
        return 0
    message = queue.show(queue_id)
    if as_json:
        if content:
            message["content"] = b"".join(queue.content(queue_id)).decode("utf-8", "replace")
        print(json.dumps(message, indent=2))
    else:
        tables.console().print(tables.details(message, datetime.now(UTC)))
    return 0


def stats(queue: Queue, *, as_json: bool) -> int:
    counted = queue.stats()
    if as_json:
        print(json.dumps(counted, indent=2))
    else:
        tables.console().print(tables.tally(counted))
    return 0


def move(queue: Queue, command: Event, queue_ids: Sequence[str], *, as_json: bool) -> int:
    """Move these; 1 if any could not be."""
    moved = [one for batch in _batches(queue_ids) for one in queue.move(command, batch)]
    for one in moved:
        if "error" in one:
            tell(tables.printable(one["error"]))
        elif not as_json:
            print(f"{tables.printable(one['id'])} {_became(command, one['state'])}")
    if as_json:
        _write_array(map(_result, moved))
    return FAILED if any("error" in one for one in moved) else 0


def move_all(queue: Queue, command: Event, *, state: State | None, as_json: bool) -> int:
    """Move all of a state. What goes on by itself meanwhile is no error; 1 if anything else could not be moved."""
    states = (state,) if state is not None else ALL_OF[command]
    counted = queue.stats()["messages"]
    results: list[dict[str, Any]] = []
    done = failed = 0
    with _progress() as progress:
        task = progress.add_task(command.value, total=sum(counted[one] for one in states))
        ids = (message["id"] for message in _found(queue, states, None))
        for batch in _batches(ids):
            moved = [one for one in queue.move(command, batch) if not one.get("overtaken")]
            errors = [one["error"] for one in moved if "error" in one]
            for error in errors:
                progress.console.print(tables.printable(error), markup=False, highlight=False)
            failed += len(errors)
            done += len(moved) - len(errors)
            if as_json:
                results += map(_result, moved)
            progress.advance(task, len(batch))
    if as_json:
        _write_array(results)
    else:
        print(f"{done:,} {'message' if done == 1 else 'messages'} {_DONE[command]}")
    return FAILED if failed else 0


def _became(command: Event, state: str) -> str:
    if state == State.ACTIVE:
        return f"is being sent; it is {_DONE[command]} if this attempt does not deliver it"
    return _DONE[command]


def _result(moved: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in moved.items() if name != "overtaken"}


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    items = iter(items)
    while batch := list(islice(items, BATCH)):
        yield batch


def _write_array(items: Iterable[dict[str, Any]]) -> None:
    """A JSON array, one element a line, written as they come."""
    items = iter(items)
    first = next(items, None)
    if first is None:
        print("[]")
        return
    sys.stdout.write(f"[{json.dumps(first)}")
    for item in items:
        sys.stdout.write(f",\n {json.dumps(item)}")
    sys.stdout.write("]\n")


def _progress() -> Progress:
    """On stderr, and only where somebody looks."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
