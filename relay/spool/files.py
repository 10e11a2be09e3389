"""The files of content, handled in threads of their own: large content keeps neither loop nor writer waiting."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from relay.core.message import Message
from relay.spool.background import Background
from relay.spool.content import ContentStore

_THREADS: Final = 16  # the disk syncs many files at the cost of a few

T = TypeVar("T")


class ContentFiles:
    """Makes files, removes them, puts them aside."""

    def __init__(self, store: ContentStore, background: Background) -> None:
        self._store = store
        self._background = background
        self._threads = ThreadPoolExecutor(_THREADS, "spool-content")

    async def keep(self, message: Message) -> int:
        """Make the body of a message its file; the checksum of its content.

        Raises OSError, and then there is no file; nor is there one, in the end, when whoever wants it is cancelled.
        """
        keeping = self._store.keeping(message.queue_id, message.content.header, message.content.body)
        job = self._background.begin(self._run(keeping))
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError:
            job.add_done_callback(lambda _: self.discard(() if job.exception() else [message.queue_id]))
            raise
        return job.result()

    def discard(self, queue_ids: Collection[str]) -> None:
        """Remove files in the background, if there are any; one that stays is found at the next start."""
        for queue_id in queue_ids:
            with contextlib.suppress(RuntimeError):  # the threads have gone already
                self._threads.submit(self._store.remove, queue_id)

    async def quarantine(self, queue_id: str) -> Path:
        """Put a file aside for the operator; says where it is now. Raises OSError where there is none to be moved."""
        return await self._run(lambda: self._store.quarantine(queue_id))

    async def probe(self) -> None:
        """Find out whether a file can be written and synced now; raises OSError."""
        await self._run(self._store.probe)

    async def close(self) -> None:
        """When all that was begun is done."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
