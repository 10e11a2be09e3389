"""The queue for people: tables that are good at 80 columns, and never a control character out of anybody's mail."""

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from relay.core.lifecycle import Fate, State

WIDE: Final = 160  # columns where nobody looks, as in a pipe
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def console() -> Console:
    """For stdout: as wide as the terminal, and without colours where there is none."""
    plain = Console(highlight=False, markup=False, emoji=False)
    if not plain.is_terminal and plain.width == 80:  # rich's guess where there is neither terminal nor COLUMNS
        plain = Console(highlight=False, markup=False, emoji=False, width=WIDE)
    return plain


def printable(text: str, keep: str = "") -> str:
    """Text of unknown origin for a terminal: what controls it, or turns the writing round, is shown escaped."""
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def span(seconds: float) -> str:
    """A duration in a few characters: `45s`, `12m`, `3h`, `2d`."""
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def size(octets: int) -> str:
    """A size in a few characters: `512`, `2.1k`, `19M`."""
    for factor, unit in ((1_000_000, "M"), (1000, "k")):
        if octets >= factor:
            return f"{octets / factor:.1f}{unit}" if octets < 10 * factor else f"{octets / factor:.0f}{unit}"
    return str(octets)


def listing(messages: Iterable[Mapping[str, Any]], now: datetime) -> Table:
    """One row a message: where it is in its life, and in a few lines whose it is and what stands in its way."""
    table = _table()
    table.add_column("ID", no_wrap=True, min_width=14)
    table.add_column("STATE", no_wrap=True)
    table.add_column("AGE", no_wrap=True, justify="right")
    table.add_column("DUE", no_wrap=True, justify="right")
    table.add_column("TRIES", no_wrap=True, justify="right")
    table.add_column("SIZE", no_wrap=True, justify="right")
    table.add_column("MAIL", ratio=1, overflow="fold")
    for message in messages:
        due = _since(message["due"], now)
        table.add_row(
            Text(printable(message["id"])),
            Text(message["state"]),
            span(_since(message["accepted"], now) or 0.0),
            "" if due is None else "now" if due >= 0 else span(-due),
            str(message["attempts"]),
            size(message["size"]),
            _mail(message),
        )
    return table


def _mail(message: Mapping[str, Any]) -> Group:
    recipients = message["recipients"]
    more = f" and {len(recipients) - 1} more" if len(recipients) > 1 else ""
    # Of several, the one to see is who stands for the state of the whole.
    standing = _STANDING.get(message["state"], (Fate.PENDING,))
    telling = next((one for one in recipients if one["state"] in standing), recipients[0])
    lines = [
        Text(f"{printable(message['reverse_path']) or '<>'}", overflow="fold"),
        Text(f"-> {printable(telling['address'])}{more}", overflow="fold"),
    ]
    if telling["reply"]:
        lines.append(Text(printable(telling["reply"]), style="dim", overflow="ellipsis", no_wrap=True))
    return Group(*lines)


_STANDING: Final = {State.FAILED: (Fate.BOUNCED, Fate.EXPIRED), State.DELIVERED: (Fate.DELIVERED,)}


def details(message: Mapping[str, Any], now: datetime) -> Group:
    """One message: its envelope, what became of each recipient, every attempt, and its header."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(message, now):
        facts.add_row(name, Text(printable(value)))
    parts: list[Any] = [facts, Text(), _recipients(message["recipients"])]
    if message["history"]:
        parts += [Text(), _history(message["history"])]
    header = message["header"]
    if header is None:
        parts += [Text(), Text("its content is not kept any more")]
    else:
        parts.append(Text())
        parts += [Text(f"| {printable(line.expandtabs())}", overflow="fold") for line in _lines(header)]
    return Group(*parts)


def _facts(message: Mapping[str, Any], now: datetime) -> Iterable[tuple[str, str]]:
    age = span(_since(message["accepted"], now) or 0.0)
    yield "id", message["id"]
    yield "state", message["state"] + (", possibly sent twice" if message["possibly_sent_twice"] else "")
    if message["reason"]:
        yield "reason", message["reason"]
    yield "identity", message["identity"]
    account = "" if message["subaccount"] is None else f", subaccount {message['subaccount']}"
    yield "credential", message["credential"] + account
    yield "login", message["login"] or "none: its credential is not configured any more"
    yield "from", message["reverse_path"] or "<>"
    yield "size", f"{message['size']} octets"
    yield "accepted", f"{message['accepted']} ({age} ago)"
    if message["due"]:
        yield "due", message["due"]
    if message["finished"]:
        yield "finished", message["finished"]
    yield "attempts", str(message["attempts"])


def _recipients(recipients: Iterable[Mapping[str, Any]]) -> Table:
    table = _table()
    table.add_column("RECIPIENT", overflow="fold")
    table.add_column("STATE", no_wrap=True)
    table.add_column("LAST REPLY", ratio=1, overflow="fold")
    for one in recipients:
        table.add_row(Text(printable(one["address"])), Text(one["state"]), Text(printable(one["reply"] or "")))
    return table


def _history(history: Iterable[Mapping[str, Any]]) -> Table:
    table = _table()
    table.add_column("ATTEMPT", no_wrap=True, justify="right")
    table.add_column("AT", no_wrap=True)
    table.add_column("OUTCOME", no_wrap=True)
    table.add_column("WHAT WAS SAID", ratio=1, overflow="fold")
    for line in history:
        where = f"{line['endpoint'] or 'no connection'}, {line['phase']}"
        if len(line["recipients"]) > 1:
            where += f", {len(line['recipients'])} recipients"
        table.add_row(
            str(line["attempt"]),
            line["time"][:19] + "Z",
            Text(line["outcome"]),
            Text(printable(f"{line['reply']} ({where})")),
        )
    return table


def tally(stats: Mapping[str, Any]) -> Table:
    """Messages by state."""
    table = _table()
    table.add_column("STATE", no_wrap=True)
    table.add_column("MESSAGES", no_wrap=True, justify="right")
    for state, count in stats["messages"].items():
        table.add_row(state, f"{count:,}")
    table.add_row("oldest", span(stats["oldest_seconds"]))
    return table


def content(octets: Iterable[bytes]) -> None:
    """A message to stdout: as it is where a program reads, made harmless where a person does."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        for piece in octets:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    for line in b"".join(octets).decode("utf-8", "replace").split("\r\n"):
        sys.stdout.write(printable(line, keep="\t\n") + "\n")


def _lines(header: str) -> list[str]:
    return header.removesuffix("\r\n").split("\r\n")


def _table() -> Table:
    return Table(box=None, pad_edge=False, expand=False, padding=(0, 1, 0, 0), header_style="bold")


def _since(moment: str | None, now: datetime) -> float | None:
    """Seconds since a time as the admin server writes it; negative if it is to come."""
    return None if moment is None else (now - datetime.fromisoformat(moment).astimezone(UTC)).total_seconds()
