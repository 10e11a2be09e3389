"""Where the lines of the log go: to a stream, those of one turn of the event loop together.

To write a line costs more than to make it, most of that once for each write. So lines wait until the loop is done with
what it has just been told of: some tens of microseconds, a millisecond or two under load.
"""

import asyncio
import atexit
from collections.abc import Callable
from threading import Lock, get_ident
from typing import Final, TextIO

LINES: Final = 1000  # that may wait; a turn that says more has them written before it is over


class LineWriter:
    """Writes lines, from any thread. What cannot be written, on a full disk or to a reader that has gone, is given up:
    mail is not, and a message that SparkPost has taken is not refused because nobody can be told.

    `loop` is the one that runs in the thread that makes this; without one every line is written at once. `interrupted`
    hears how many lines are missing, once lines can be written again.
    """

    def __init__(
        self, stream: TextIO, interrupted: Callable[[int], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._stream = stream
        self._interrupted = interrupted
        self._loop = loop
        self._thread_of_loop = get_ident() if loop is not None else None
        self._lock = Lock()
        self._waiting: list[str] = []
        self._missing = 0
        if loop is not None:
            atexit.register(self.flush)

    def msg(self, line: str) -> None:
        """Write a line: at once, or from within the loop at the end of its turn."""
        with self._lock:
            self._waiting.append(line)
            before = len(self._waiting) - 1
            loop = self._loop
            if loop is not None and before < LINES and get_ident() == self._thread_of_loop and not loop.is_closed():
                if not before:
                    loop.call_soon(self.flush)
                return
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            lines, self._waiting = self._waiting, []
            if not lines:
                return
            try:
                self._stream.write("\n".join([*lines, ""]))
                self._stream.flush()
            except OSError:
                self._missing += len(lines)
                return
            missing, self._missing = self._missing, 0
        if missing:
            self._interrupted(missing)

    debug = info = warning = error = exception = msg  # for structlog, a logger has its levels
