"""The log as lines of JSON: what `structlog.get_logger()` gives where nobody looks at a terminal.

An event becomes a line in one step. A chain of processors, and structlog's way to it, would cost a message more than
its content does.
"""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import orjson
import structlog
from structlog.typing import EventDict

Edit = Callable[[EventDict], EventDict]

_NUMBERS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_NAMES: Final = {number: name for name, number in _NUMBERS.items()}


class JsonLogger(structlog.BoundLoggerBase):
    """Writes events of all levels; `from_level` makes the class that leaves some of them out."""

    number: ClassVar[int] = logging.DEBUG

    def edit(self, event: EventDict) -> EventDict:
        """What is written in place of an event."""
        return event

    def debug(self, event: str, **fields: Any) -> None:
        self._tell("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._tell("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._tell("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._tell("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error, and the exception that is being handled."""
        self._tell("error", event, {"exc_info": True, **fields})

    def log(self, number: int, event: str, **fields: Any) -> None:
        """An event of the level that has this number."""
        if number >= self.number:
            self._tell(_NAMES[number], event, fields)

    def _tell(self, level: str, event: str, fields: EventDict) -> None:
        if self._context:
            fields = {**self._context, **fields}
        fields["event"] = event
        fields["level"] = level
        fields["timestamp"] = datetime.now(UTC)
        fields = self.edit(fields)
        if "exc_info" in fields:
            structlog.processors.format_exc_info(self._logger, level, fields)
        self._logger.msg(_encode(fields))


def from_level(level: str, edit: Edit) -> type[JsonLogger]:
    """The class of loggers for events of this level and above; `edit` makes of an event what is written."""
    number = _NUMBERS[level]
    silent = {name: _nothing for name, other in _NUMBERS.items() if other < number}
    return type(
        "JsonLoggerFromLevel", (JsonLogger,), {**silent, "number": number, "edit": lambda _, event: edit(event)}
    )


def _nothing(self: JsonLogger, event: str, **fields: Any) -> None:
    """An event of a level that is not written."""


def _encode(event: EventDict) -> str:
    """ASCII alone, and so one line for every reader. What is no JSON shows itself by repr, which masks secrets."""
    try:
        line = orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z)
    except TypeError:  # half a character, or a number beyond 64 bits
        pass
    else:
        if line.isascii():
            return line.decode()
    return json.dumps(event, default=_as_text)


def _as_text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else repr(value)
