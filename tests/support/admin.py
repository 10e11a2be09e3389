"""A relay with a spool and an admin server, and somebody who asks it, without the relay's own client."""

import asyncio
import http.client
import json
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "open-sesame-0123456789"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


def keeping(folder: Path, **admin: Any) -> dict[str, Any]:
    """The sections of a configuration that keep mail in a folder and serve it on a port of the system's choice."""
    return {
        "spool": {"url": f"sqlite:{folder / 'spool.db'}", "reserve": "1KB"},
        "admin": {"address": "127.0.0.1:0", "token": TOKEN} | admin,
    }


@dataclass(frozen=True)
class Answer:
    """What an HTTP server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def tcp_of(relay: Any) -> str:
    return next(address for address in relay.admin.addresses if not address.startswith("unix:"))


def unix_of(relay: Any) -> str:
    return next(address for address in relay.admin.addresses if address.startswith("unix:"))


def ask_now(
    where: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None
) -> Answer:
    """One exchange, with `where` as the admin server writes its addresses; `body` is sent as JSON, octets as such."""
    if where.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(where.removeprefix("unix:"))
    else:
        connection = http.client.HTTPConnection(where, timeout=20)
    try:
        octets = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, octets, headers or {})
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


async def ask(
    where: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None
) -> Answer:
    return await asyncio.to_thread(ask_now, where, path, method, headers, body)


def fill(database: Path, count: int, *, state: str = "queued", reason: str | None = None) -> None:
    """Put many small messages into a spool that nobody has open, due in years; by SQL, so that it is quick."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.executescript("PRAGMA synchronous = OFF; BEGIN")
    connection.execute("INSERT OR IGNORE INTO lane (credential, subaccount) VALUES ('default', 0)")
    (lane,) = connection.execute("SELECT id FROM lane WHERE credential = 'default' AND subaccount = 0").fetchone()
    (first,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM message").fetchone()
    rows = range(first, first + count)
    connection.executemany(
        "INSERT INTO message (id, queue_id, state, lane, identity, reverse_path, size, longest_line, eight_bit,"
        " received, expires, max_age, due, reason)"
        " VALUES (?, ?, ?, ?, 'default', 'a@example.com', 2, 0, 0, 1.7e9, 1e9, 1e9, 1e8, ?)",
        ((row, f"Q{row:013}", state, lane, reason) for row in rows),
    )
    connection.executemany(
        "INSERT INTO recipient (message, number, address) VALUES (?, 0, ?)",
        ((row, f"customer-{row}@example.net") for row in rows),
    )
    connection.executemany(
        "INSERT INTO content (message, header, body, length, crc) VALUES (?, x'', x'0d0a', 2, 0)",
        ((row,) for row in rows),
    )
    connection.execute("COMMIT")
    connection.close()
