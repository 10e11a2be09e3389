"""The X-MSYS-API header as SparkPost judges it at the final dot.

The texts for broken JSON, for a wrong type and for a long campaign_id are documented; the others are built after them.
Fields that SparkPost does not know are ignored, `substitution_data` among them, as it documents.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

MAX_CAMPAIGN_ID: Final = 64  # bytes
MAX_COPIES: Final = 1000  # cc, bcc and archive together

_FOLD = re.compile(rb"\r\n[ \t]+")
_TYPE_NAMES: Final[Mapping[type, str]] = {dict: "json object", list: "json array", str: "string", bool: "boolean"}
_FIELDS: Final[Mapping[str, type]] = {
    "campaign_id": str,
    "metadata": dict,
    "tags": list,
    "cc": list,
    "bcc": list,
    "archive": list,
    "options": dict,
}
_OPTIONS: Final[Mapping[str, type]] = {
    "open_tracking": bool,
    "click_tracking": bool,
    "transactional": bool,
    "skip_suppression": bool,
    "inline_css": bool,
    "ip_pool": str,
    "dkim_key": str,
}


class _Objection(Exception):
    """What is wrong with the header, in SparkPost's words."""


def objection(value: bytes) -> str | None:
    """Why SparkPost refuses this header value (as it stands in the message, folds included), or None."""
    try:
        _check(_parse(unfold(value)))
    except _Objection as reason:
        return str(reason)
    return None


def unfold(value: bytes) -> bytes:
    """One space for each fold, as documented: a fold inside a JSON string leaves a space in it."""
    return _FOLD.sub(b" ", value).strip()


def _parse(value: bytes) -> dict[str, Any]:
    try:
        # Non-ASCII must be escaped (fact sheet 2.2).
        document = json.loads(value.decode("ascii"), parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise _Objection(f"JSON parsing error in X-MSYS-API header: non-ASCII octet at {error.start}") from error
    except RecursionError as error:
        raise _Objection("JSON parsing error in X-MSYS-API header: nested too deeply") from error
    except ValueError as error:
        raise _Objection(f"JSON parsing error in X-MSYS-API header: {error}") from error
    if not isinstance(document, dict):
        raise _Objection("X-MSYS-API header must be of type 'json object'")
    return document


def refuse_constant(name: str) -> NoReturn:
    """For json, which takes NaN and Infinity; they are not JSON."""
    raise ValueError(f"{name} is not JSON")


def _check(document: dict[str, Any]) -> None:
    _check_types(document, _FIELDS)
    _check_types(document.get("options", {}), _OPTIONS, "options.")
    if len(document.get("campaign_id", "").encode("utf-8", "surrogatepass")) > MAX_CAMPAIGN_ID:
        raise _Objection(f"smtpapi_campaign_id context is limited to {MAX_CAMPAIGN_ID} bytes")
    _check_each(document, "tags", lambda tag: isinstance(tag, str), "strings")
    for copies in ("cc", "bcc", "archive"):
        _check_each(document, copies, _is_address, "addresses")
    if sum(len(document.get(copies, ())) for copies in ("cc", "bcc", "archive")) > MAX_COPIES:
        raise _Objection(f"X-MSYS-API 'cc', 'bcc' and 'archive' are limited to {MAX_COPIES} recipients")


def _check_types(fields: dict[str, Any], types: Mapping[str, type], prefix: str = "") -> None:
    for name, expected in types.items():
        if name in fields and not isinstance(fields[name], expected):
            raise _Objection(f"X-MSYS-API '{prefix}{name}' must be of type '{_TYPE_NAMES[expected]}'")


def _check_each(document: dict[str, Any], name: str, fits: Callable[[object], bool], what: str) -> None:
    if not all(fits(item) for item in document.get(name, ())):
        raise _Objection(f"X-MSYS-API '{name}' must be an array of {what}")


def _is_address(item: object) -> bool:
    """A string, or an object with `email` and perhaps `name`; each address must have both its sides."""
    if isinstance(item, dict):
        return isinstance(item.get("name", ""), str) and _is_address(item.get("email"))
    return isinstance(item, str) and "@" in item.strip("@")
