"""What a sandbox remembers: every message it accepted, and every octet of every connection.

In memory for tests; with a store also on disk, one `.eml` and one `.json` a message. An API key stays in memory: on
disk it is a digest.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from relay.sandbox.files import write_whole

_STORED = re.compile(r"(\d{8,})\.(?:eml|json)")


def key_digest(api_key: str) -> str:
    """Enough of the key's SHA-256 to tell keys apart, and too little to find one."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message the sandbox has taken responsibility for.

    content: the octets after un-stuffing. reverse_path: without its brackets, empty if null. mail_parameters: the ESMTP
    parameters of MAIL, keywords in upper case. subaccount: the one it is sent for, None for the primary account.
    token: the id in the 250. ambiguous: a fault kept the 250 from the client, who cannot know that it was accepted.
    via: smtp or http. transmission: over HTTP, the request's JSON without its content.
    """

    content: bytes = field(repr=False)
    reverse_path: str
    recipients: tuple[str, ...]
    mail_parameters: dict[str, str]
    auth_user: str
    api_key: str = field(repr=False)
    subaccount: int | None
    port: int
    connection: int
    token: str
    received_at: datetime
    ambiguous: bool
    via: str = "smtp"
    transmission: Mapping[str, Any] | None = None

    @property
    def key_digest(self) -> str:
        return key_digest(self.api_key)


class Direction(StrEnum):
    CLIENT = "C"
    SERVER = "S"


class Exchange(NamedTuple):
    """One piece of a dialogue as it was read or written; under TLS, the plain text of it. `at` is monotonic."""

    direction: Direction
    octets: bytes
    at: float


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """One AUTH exchange, up to the sandbox's verdict."""

    user: str
    mechanism: str
    accepted: bool


@dataclass(slots=True)
class Session:
    """One connection: number (from 1), the port it came to, and what happened on it.

    tls: the version of TLS once the handshake is done. tls_failure: why it was not. messages: final dots answered.
    """

    number: int
    port: int
    transcript: list[Exchange] = field(default_factory=list, repr=False)
    tls: str | None = None
    tls_failure: str | None = None
    logins: list[LoginAttempt] = field(default_factory=list)
    messages: int = 0
    open: bool = True

    def said(self, direction: Direction) -> bytes:
        """Everything one side said, in one piece."""
        return b"".join(exchange.octets for exchange in self.transcript if exchange.direction is direction)


class Store:
    """A folder of accepted messages, numbered in order of arrival; numbers go on where an earlier run stopped.

    The `.json` is written last: who sees it can read the `.eml`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        numbers = (int(match[1]) for path in folder.iterdir() if (match := _STORED.fullmatch(path.name)))
        self._last = max(numbers, default=0)

    def add(self, message: Accepted) -> None:
        self._last += 1
        stem = f"{self._last:08d}"
        facts: dict[str, Any] = {
            "id": message.token,
            "received_at": message.received_at.isoformat(),
            "auth_user": message.auth_user,
            "subaccount": message.subaccount,
            "api_key_sha256": message.key_digest,
            "reverse_path": message.reverse_path,
            "mail_parameters": message.mail_parameters,
            "recipients": message.recipients,
            "port": message.port,
            "connection": message.connection,
            "ambiguous": message.ambiguous,
            "via": message.via,
            "size": len(message.content),
            "content": f"{stem}.eml",
        }
        if message.transmission is not None:
            facts["transmission"] = message.transmission
        write_whole(self._folder / f"{stem}.eml", message.content)
        try:
            write_whole(self._folder / f"{stem}.json", json.dumps(facts, indent=2).encode() + b"\n")
        except OSError:
            (self._folder / f"{stem}.eml").unlink(missing_ok=True)
            raise
