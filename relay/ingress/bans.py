"""Who has failed to log in how often: how late a refusal comes, and for whom AUTH is closed for a time. Pure.

Three counts, so that guessing is slow from wherever it comes, and hits as few others as it can:

* one client with one login, the ordinary mistake: a program with an old password. Its AUTH is closed, nobody else's;
* one client with whatever logins, three times as often. Not for this host itself, which many programs share;
* one login from whatever clients, ten times as often.

The last two spare a client that has logged in with that very login before, so nobody can lock it out. Only AUTH is
closed: mail that needs no login is not affected. All books are bounded; what they forget begins anew.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

REMEMBERED: Final = 10_000  # entries of each book
CLIENT_FACTOR: Final = 3
LOGIN_FACTOR: Final = 10
FIRST_DELAY: Final = 1.0  # seconds after the first failure, doubled at each further one
LONGEST_DELAY: Final = 8.0  # an application that is told too late may take it for silence

Key = tuple[str, bytes]


@dataclass(slots=True)
class _Record:
    """Failures since `since`; `until` is when AUTH is open again."""

    failures: int
    since: float
    until: float = 0.0


class FailedLogins:
    """The failures of all clients. `allowed` of them within `seconds`, and AUTH is closed for as long."""

    def __init__(self, allowed: int, seconds: float) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._records: OrderedDict[Key, _Record] = OrderedDict()
        self._known: OrderedDict[Key, None] = OrderedDict()

    def closed(self, client: str, login: str, now: float) -> float:
        """For how many seconds AUTH is closed to this client with this login; 0 if it is open."""
        pair = (client, _digest(login))
        keys = [pair] if pair in self._known else [pair, (client, b""), ("", pair[1])]
        waits = (record.until - now for key in keys if (record := self._records.get(key)) is not None)
        return max([0.0, *waits])

    def failed(self, client: str, login: str, now: float, *, on_host: bool) -> tuple[float, bool]:
        """A login was refused: how many seconds later the client is told, and whether AUTH is closed from now on."""
        pair = (client, _digest(login))
        failures = self._count(pair, now)
        counts = [(pair, 1), (("", pair[1]), LOGIN_FACTOR)]
        if not on_host:
            counts.append(((client, b""), CLIENT_FACTOR))
        for key, _ in counts[1:]:
            self._count(key, now)
        closed = sum(self._close(key, factor, now) for key, factor in counts) > 0
        while len(self._records) > REMEMBERED:
            self._records.popitem(last=False)
        return min(FIRST_DELAY * 2.0 ** min(failures - 1, 10), LONGEST_DELAY), closed

    def succeeded(self, client: str, login: str) -> None:
        """The password was right: what this client got wrong about it before is forgiven."""
        pair = (client, _digest(login))
        self._records.pop(pair, None)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _count(self, key: Key, now: float) -> int:
        """One more; how many it are within the time."""
        record = self._records.get(key)
        if record is None or now - record.since > self._seconds:
            record = self._records[key] = _Record(0, now)
        self._records.move_to_end(key)
        record.failures += 1
        return record.failures

    def _close(self, key: Key, factor: int, now: float) -> bool:
        """Close AUTH if it is too many; then they are paid for, and counting begins anew."""
        if self._records[key].failures < self._allowed * factor:
            return False
        self._records[key] = _Record(0, now, now + self._seconds)
        return True


def _digest(login: str) -> bytes:
    """What a login is kept as: some put their password or key in its place."""
    return hashlib.sha256(login.encode("utf-8", "surrogateescape")).digest()
