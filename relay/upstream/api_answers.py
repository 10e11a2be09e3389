"""Reads what SparkPost's HTTP API answers: a status and octets in, a fact out, whatever the octets are.

The forms are `{"results": {"total_accepted_recipients": 1, "id": "…"}}` and `{"errors": [{"message", "description",
"code"}]}`, both at once where some recipients were rejected (fact sheet 3.2).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from relay.core.outcome import HttpAnswer

MAX_ANSWER: Final = 64 * 1024
_LONGEST_TEXT: Final = 400  # characters


def read_answer(status: int, octets: bytes) -> HttpAnswer:
    """The answer that this is; never raises. An answer that cannot be read has only its status."""
    try:
        document = json.loads(octets)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return HttpAnswer.of(status)
    results = document.get("results")
    results = results if isinstance(results, dict) else {}
    errors = list(_errors(document.get("errors"))) or list(_errors(results.get("rcpt_to_errors")))
    accepted = _accepted(results) if status == 200 else None
    if accepted:
        return HttpAnswer.of(status, text=_line(f"OK {results.get('id', '')}"), accepted=True)
    rejections = list(_errors(results.get("rcpt_to_errors"))) or errors
    error = (rejections if accepted is False else errors or [{}])[0] if errors else {}
    return HttpAnswer.of(status, code=_code(error), text=_text(error), accepted=accepted)


def _accepted(results: Mapping[str, Any]) -> bool | None:
    """Was the one recipient accepted? None if the answer does not say."""
    if _count(results, "total_accepted_recipients"):
        return True
    return False if _count(results, "total_rejected_recipients") else None


def _count(results: Mapping[str, Any], name: str) -> bool:
    number = results.get(name)
    return isinstance(number, int) and number > 0


def _errors(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (error for error in value if isinstance(error, dict))


def _code(error: Mapping[str, Any]) -> str | None:
    """A string, and once seen as a number (fact sheet 3.3)."""
    code = error.get("code")
    return _line(str(code))[:16] or None if isinstance(code, str | int) else None


def _text(error: Mapping[str, Any]) -> str:
    said = [_line(part) for part in (error.get("message"), error.get("description")) if isinstance(part, str)]
    return ": ".join(dict.fromkeys(part for part in said if part))[:_LONGEST_TEXT]


def _line(text: str) -> str:
    """One printable line."""
    return " ".join("".join(one if one.isprintable() else " " for one in text[: 4 * _LONGEST_TEXT]).split())
