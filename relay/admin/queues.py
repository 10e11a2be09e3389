"""The two ways to the queue: through the relay that runs, or by opening its spool where none does.

Both speak the JSON of the admin server, so what a command shows does not depend on the way it took.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from relay.admin import entries
from relay.admin.client import AdminClient, NoAnswer, Refused
from relay.admin.desk import Desk
from relay.admin.sockets import database_of
from relay.clock import SystemClock
from relay.config import Config
from relay.core.lifecycle import Event, State
from relay.core.spooled import SpoolUnavailable, UnknownMessage, Unreadable
from relay.policy.credentials import Credentials
from relay.policy.identity import Identities
from relay.policy.resolver import PolicyResolver
from relay.spool.database import SpoolFull, SpoolUnusable
from relay.spool.lock import Holder, SpoolInUse, holder
from relay.spool.opening import open_spool

FAILED: Final = 1
UNAVAILABLE: Final = 69  # sysexits(3), as for all commands
CONFIG: Final = 78

PATIENCE: Final = 3.0  # seconds, for a relay that is about to start or to stop
_PAUSE: Final = 0.05

T = TypeVar("T")


class QueueError(Exception):
    """A command that cannot be fulfilled: the text for the operator, and the exit status."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class Queue(Protocol):
    """What the commands ask of the queue. Everything raises QueueError."""

    def stats(self) -> dict[str, Any]: ...

    def page(self, *, state: State | None, search: str | None, cursor: str | None, limit: int) -> dict[str, Any]: ...

    def show(self, queue_id: str) -> dict[str, Any]: ...

    def content(self, queue_id: str) -> Iterator[bytes]: ...

    def move(self, command: Event, queue_ids: Sequence[str]) -> list[dict[str, Any]]:
        """What became of each: `{id, state}`, or `{id, error, overtaken}`."""
        ...


@contextmanager
def opened(config: Config) -> Iterator[Queue]:
    """The queue of this configuration, by whichever way is open; raises QueueError."""
    database = database_of(config)
    if database is None:
        raise QueueError("this relay keeps no queue (spool.url: none): what SparkPost cannot take now is answered 451")
    try:
        if not database.exists():
            text = f"there is no spool {database}: no relay has run with this configuration yet (spool.url)"
            raise QueueError(text)
        queue: Queue = _reach(config, database)
    except PermissionError as error:
        raise QueueError(
            f"{database}: {error.strerror}: run this as root or as the relay's user", UNAVAILABLE
        ) from error
    except OSError as error:
        raise QueueError(f"{database}: {error.strerror}: see spool.url", UNAVAILABLE) from error
    if isinstance(queue, RestingQueue):
        with queue:
            yield queue
    else:
        yield queue


def _reach(config: Config, database: Path) -> "RunningQueue | RestingQueue":
    """By the note in the lock; raises QueueError or PermissionError. A relay may start or stop in this very moment."""
    patience = time.monotonic() + PATIENCE
    while True:
        owner = holder(database)
        try:
            if owner is None:
                return RestingQueue(config, database)
            return RunningQueue(_client_of(owner, database))
        except SpoolInUse as error:
            trouble = QueueError(str(error), UNAVAILABLE)
        except NoAnswer as error:
            remedy = "run this as root or as the relay's user" if error.forbidden else "its log says more"
            who = owner.pid if owner is not None else 0
            trouble = QueueError(f"the relay (process {who}) runs, but its admin socket {error}; {remedy}", UNAVAILABLE)
            if not error.refused:
                raise trouble from error
        if time.monotonic() > patience:
            raise trouble
        time.sleep(_PAUSE)


def _client_of(owner: Holder, database: Path) -> AdminClient:
    """Raises NoAnswer where nobody answers, and SpoolInUse where there is no socket to ask."""
    if owner.socket is None:
        raise SpoolInUse(database, owner)
    AdminClient(Path(owner.socket), timeout=PATIENCE).ask("livez")
    return AdminClient(Path(owner.socket))


class RunningQueue:
    """Through the admin socket of the relay that has the spool."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client

    def stats(self) -> dict[str, Any]:
        with _relay_says():
            spool = self._client.ask("api", "v1", "status")["spool"]
        if spool["messages"] is None:
            raise QueueError(f"the spool cannot be read: {spool['problem']}")
        return {name: spool[name] for name in ("messages", "oldest_seconds")}

    def page(self, *, state: State | None, search: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        with _relay_says():
            page: dict[str, Any] = self._client.ask(
                "api", "v1", "messages", state=state, q=search, cursor=cursor, limit=limit
            )
        return page

    def show(self, queue_id: str) -> dict[str, Any]:
        with _relay_says():
            shown: dict[str, Any] = self._client.ask("api", "v1", "messages", queue_id)
        return shown

    def content(self, queue_id: str) -> Iterator[bytes]:
        with _relay_says():
            yield from self._client.read("api", "v1", "messages", queue_id, "content")

    def move(self, command: Event, queue_ids: Sequence[str]) -> list[dict[str, Any]]:
        with _relay_says():
            told = self._client.tell("api", "v1", "messages", wish={"command": command, "ids": list(queue_ids)})
        moved: list[dict[str, Any]] = told["messages"]
        return moved


@contextmanager
def _relay_says() -> Iterator[None]:
    """What a relay refuses, and what becomes of one that goes away meanwhile, in the commands' words."""
    try:
        yield
    except Refused as error:
        raise QueueError(str(error)) from error
    except NoAnswer as error:
        raise QueueError(f"the relay at {error}; see its log, and try again", UNAVAILABLE) from error


class RestingQueue:
    """The spool itself, under the relay's lock: no relay runs, and none can start meanwhile."""

    def __init__(self, config: Config, database: Path) -> None:
        """Raises SpoolInUse, or QueueError where the spool cannot be opened."""
        self._runner = asyncio.Runner()
        try:
            self._spool = self._runner.run(open_spool(database, SystemClock(), reserve=0))
        except SpoolUnusable as error:
            self._runner.close()
            raise QueueError(str(error), UNAVAILABLE if isinstance(error, SpoolFull) else CONFIG) from error
        except BaseException:
            self._runner.close()
            raise
        _hand_back(database)
        resolver = PolicyResolver.from_config(config, Identities.from_config(config), Credentials.from_config(config))
        self._desk = Desk(self._spool, resolver)

    def __enter__(self) -> "RestingQueue":
        return self

    def __exit__(self, *_: object) -> None:
        with self._runner as runner:
            runner.run(self._spool.close())

    def stats(self) -> dict[str, Any]:
        with _spool_says():
            return entries.tally(self._runner.run(self._desk.stats()))

    def page(self, *, state: State | None, search: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        with _spool_says():
            page = self._runner.run(self._desk.page(state=state, search=search, cursor=cursor, limit=limit))
        messages = [entries.summary(entry, self._desk.username(entry)) for entry in page.entries]
        return {"messages": messages, "cursor": page.cursor}

    def show(self, queue_id: str) -> dict[str, Any]:
        with _spool_says():
            entry = self._runner.run(self._desk.entry(queue_id))
            header = self._runner.run(self._desk.header(queue_id))
        return entries.detail(entry, self._desk.username(entry), header)

    def content(self, queue_id: str) -> Iterator[bytes]:
        with _spool_says():
            entry = self._runner.run(self._desk.entry(queue_id))
            if self._runner.run(self._desk.header(queue_id)) is None:
                raise QueueError(entries.content_gone(entry))
            yield from self._runner.run(self._desk.content(queue_id)).chunks()

    def move(self, command: Event, queue_ids: Sequence[str]) -> list[dict[str, Any]]:
        with _spool_says():
            return [entries.outcome(one) for one in self._runner.run(self._desk.move_many(queue_ids, command))]


@contextmanager
def _spool_says() -> Iterator[None]:
    try:
        yield
    except UnknownMessage as error:
        raise QueueError(f"{error}: the list of messages shows what there is") from error
    except Unreadable as error:
        raise QueueError(f"{error}: look into the quarantine beside the spool's file") from error
    except SpoolUnavailable as error:
        raise QueueError(f"the spool cannot do this now: {error}") from error
    except OSError as error:
        raise QueueError(f"the spool cannot be read: {error.strerror or error}") from error


def _hand_back(database: Path) -> None:
    """What root has made here is the relay's: its user must be able to open it."""
    if os.geteuid() != 0:
        return
    owner = database.stat()
    for path in database.parent.glob(database.name + ".*"):
        os.chown(path, owner.st_uid, owner.st_gid)
