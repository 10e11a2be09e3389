"""The X-MSYS-API header, which SparkPost calls its SMTP API: a JSON object in a header field. How it reads and writes.

Sources: fact sheet 2.1 (what it may hold) and 2.2 (how it is written). A reader puts one space for each fold, so a fold
within a text would change it: lines are folded between the tokens of the JSON only. Everything is ASCII.
"""

import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

NAME: Final = b"X-MSYS-API"
BINDING: Final = "X-Binding"  # a header of its own, with which Enterprise accounts once chose a pool of IP addresses
COPIES: Final = ("cc", "bcc", "archive")
MAX_CAMPAIGN_ID: Final = 64  # bytes of UTF-8
MAX_DEPTH: Final = 32  # objects and arrays within each other
LONGEST: Final = 131_072  # octets; reading takes time on the loop, and a thousand copies fit in
FIELDS: Final[Mapping[str, type]] = MappingProxyType(
    {"campaign_id": str, "metadata": dict, "tags": list, **dict.fromkeys(COPIES, list), "options": dict}
)
OPTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "open_tracking": bool,
        "click_tracking": bool,
        "transactional": bool,
        "skip_suppression": bool,
        "inline_css": bool,
        "ip_pool": str,
        "dkim_key": str,
    }
)
ALL: Final = (*(name for name in FIELDS if name != "options"), *(f"options.{name}" for name in OPTIONS), BINDING)

_LONGEST_LINE: Final = 998  # octets (RFC 5322 §2.1.1)
_WIDTH: Final = 78  # octets that a line should have at most, same section
_TYPE_NAMES: Final[Mapping[type, str]] = {dict: "json object", list: "json array", str: "string", bool: "boolean"}
_FOLD = re.compile(rb"\r\n[ \t]+")
_TOKEN = re.compile(r'(?:[^" ]|"(?:[^"\\]|\\.)*+")++')


class SmtpApiError(Exception):
    """What is wrong with a header, in SparkPost's own words where they are known (fact sheet 1.4)."""


def read(value: bytes) -> dict[str, Any]:
    """What a header asks for; `value` is what stands behind its colon, folds included. Raises SmtpApiError.

    What SparkPost does not know it ignores, `substitution_data` among it, and so it is left out. UTF-8 as it stands is
    taken; SparkPost wants it escaped, as `field` does.
    """
    if len(value) > LONGEST:
        raise SmtpApiError(f"X-MSYS-API is limited to {LONGEST} octets")
    try:
        text = _FOLD.sub(b" ", value).decode("utf-8")
        document = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise SmtpApiError("JSON parsing error in X-MSYS-API: nested too deeply") from None
    except ValueError as error:
        raise SmtpApiError(f"JSON parsing error in X-MSYS-API: {error}") from None
    if not isinstance(document, dict):
        raise SmtpApiError("X-MSYS-API must be of type 'json object'")
    return known(document)


def _finite(text: str) -> float:
    """A number; raises ValueError for those that Python reads and JSON has not."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number in JSON")
    return number


def known(document: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a document that SparkPost knows; raises SmtpApiError where it would refuse that."""
    fields = _of_types(document, FIELDS, "")
    if "options" in fields:
        fields["options"] = _of_types(fields["options"], OPTIONS, "options.")
    if len(fields.get("campaign_id", "").encode("utf-8", "surrogatepass")) > MAX_CAMPAIGN_ID:
        raise SmtpApiError(f"smtpapi_campaign_id context is limited to {MAX_CAMPAIGN_ID} bytes")
    if not all(isinstance(tag, str) for tag in fields.get("tags", ())):
        raise SmtpApiError("X-MSYS-API 'tags' must be an array of strings")
    if _deeper(fields, MAX_DEPTH):
        raise SmtpApiError(f"X-MSYS-API may be nested {MAX_DEPTH} deep")
    return fields


def _deeper(value: object, levels: int) -> bool:
    """Is it nested deeper than so many levels? Not all that Python can read it can write again somewhere else."""
    level = [value]
    for _ in range(levels):
        inner: list[object] = []
        for item in level:
            if isinstance(item, list):
                inner += item
            elif isinstance(item, dict):
                inner += item.values()
        level = inner
    return any(isinstance(item, (list, dict)) for item in level)


def _of_types(document: Mapping[str, Any], types: Mapping[str, type], prefix: str) -> dict[str, Any]:
    for name, expected in types.items():
        if name in document and not isinstance(document[name], expected):
            raise SmtpApiError(f"X-MSYS-API '{prefix}{name}' must be of type '{_TYPE_NAMES[expected]}'")
    return {name: document[name] for name in types if name in document}


def field(document: Mapping[str, Any]) -> bytes:
    """The header field that asks for what `document` says, with its CRLF. Raises SmtpApiError for what fits no line."""
    try:
        text = json.dumps(document, allow_nan=False)
    except ValueError:  # a number as large as 1e999 is read as infinite
        raise SmtpApiError("JSON parsing error in X-MSYS-API: a number is too large") from None
    lines = [NAME.decode("ascii") + ":"]
    for token in _TOKEN.findall(text):
        if len(lines[-1]) + len(token) < _WIDTH:
            lines[-1] += f" {token}"
        else:
            lines.append(f" {token}")
    if max(map(len, lines)) > _LONGEST_LINE:
        raise SmtpApiError(f"a text in X-MSYS-API is longer than a line can be, {_LONGEST_LINE} octets")
    return "\r\n".join(lines).encode("ascii") + b"\r\n"
