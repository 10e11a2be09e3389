"""The operator's desk: what is in the spool, and what the operator does with it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from relay.core.lifecycle import Event, IllegalTransition, State
from relay.core.message import Content
from relay.core.ports import Archive, Resolver
from relay.core.spooled import Entry, Lane, Page, Stats, UnknownMessage, Unreadable
from relay.observe import log as events

log = structlog.get_logger()


class MappingGone(Exception):
    """A message cannot be let go, as its identity yields nothing now; the text says why."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one of many: the state it is in, or the problem.

    `overtaken`: there was nothing to move any more, as it has gone on by itself meanwhile, or is not there.
    """

    queue_id: str
    state: State | None
    problem: str | None = None
    overtaken: bool = False


class Desk:
    """Reads the archive, and moves messages. `on_change` wakes whoever sends them; nobody does while no relay runs."""

    def __init__(self, archive: Archive, resolver: Resolver, on_change: Callable[[], None] = lambda: None) -> None:
        self._archive = archive
        self._resolver = resolver
        self._on_change = on_change

    async def stats(self) -> Stats:
        return await self._archive.stats()

    async def page(
        self, *, state: State | None = None, search: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page:
        return await self._archive.page(state=state, search=search, cursor=cursor, limit=limit)

    async def entry(self, queue_id: str) -> Entry:
        """One message with its history; raises UnknownMessage."""
        return await self._archive.entry(queue_id)

    async def header(self, queue_id: str) -> bytes | None:
        """Its header section; None once its content has gone."""
        return await self._archive.header(queue_id)

    async def content(self, queue_id: str) -> Content:
        """Its content; raises UnknownMessage, Unreadable."""
        try:
            return await self._archive.content(queue_id)
        except OSError as error:
            raise Unreadable(f"the content of {queue_id} cannot be read: {error.strerror or error}") from error

    def username(self, entry: Entry) -> str | None:
        """The AUTH user name that the message travels under; None if its credential has gone."""
        login = self._resolver.login_of(Lane.of(entry.assignment))
        return None if login is None else login.username

    async def move(self, queue_id: str, event: Event) -> State:
        """Retry, hold, release or delete a message: the state it is in then.

        A message that is being attempted stays `active`, and is held or deleted if the attempt does not deliver it. One
        that is released takes the mapping that its identity has now. Raises UnknownMessage, IllegalTransition,
        MappingGone, SpoolUnavailable.
        """
        assignment = None
        if event in (Event.RELEASE, Event.RETRY):
            entry = await self._archive.entry(queue_id)
            renewed = self._resolver.renew(entry.assignment)
            if isinstance(renewed, str):
                raise MappingGone(f"{queue_id} cannot be sent: {renewed}")
            assignment = renewed if event is Event.RELEASE else None
        state = await self._archive.act(queue_id, event, assignment)
        log.info(events.QUEUE_COMMAND, queue_id=queue_id, command=event.value, state=state.value)
        self._on_change()
        return state

    async def move_many(self, queue_ids: Sequence[str], event: Event) -> list[Moved]:
        """Move several, in one commit where the spool can do that; what became of each, in order.

        Raises SpoolUnavailable.
        """
        return await asyncio.gather(*(self._moved(queue_id, event) for queue_id in queue_ids))

    async def _moved(self, queue_id: str, event: Event) -> Moved:
        try:
            return Moved(queue_id, await self.move(queue_id, event))
        except UnknownMessage as error:
            return Moved(queue_id, None, str(error), overtaken=True)
        except IllegalTransition as error:
            return Moved(queue_id, None, f"{queue_id} cannot be moved: {error}", overtaken=True)
        except MappingGone as error:
            return Moved(queue_id, None, str(error))
