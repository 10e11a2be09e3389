"""A transmission as SparkPost judges it: the JSON of a request in, what would be sent out, or an error of the API.

Codes and messages are documented (fact sheet 3.2, 3.3); the descriptions beside them are built after those that were
seen. Fields that SparkPost does not know are ignored.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.sandbox import inline
from relay.sandbox.content import NO_DOMAIN, domain_objection, has_from, header_length
from relay.sandbox.msys import MAX_CAMPAIGN_ID, refuse_constant
from relay.sandbox.paths import is_address
from relay.sandbox.rules import Rules
from relay.sandbox.templates import TemplateError, evaluate

_MAX_METADATA: Final = 10 * 1024  # octets (fact sheet 3.2)
_LINE_END = re.compile(r"\r\n|\r|\n")
_TYPE_NAMES: Final[Mapping[type, str]] = {dict: "object", list: "array", str: "string", bool: "boolean"}
_FIELDS: Final[Mapping[str, type]] = {
    "recipients": list,
    "content": dict,
    "options": dict,
    "campaign_id": str,
    "metadata": dict,
    "substitution_data": dict,
    "return_path": str,
    "description": str,
}
_OPTIONS: Final[Mapping[str, type]] = {
    "open_tracking": bool,
    "click_tracking": bool,
    "transactional": bool,
    "skip_suppression": bool,
    "inline_css": bool,
    "perform_substitutions": bool,
    "ip_pool": str,
    "dkim_key": str,
}
_UNKNOWN_CONTENT: Final = ("template_id", "ab_test_id", "amp_html", "inline_images")
_OTHER_CONTENT: Final = ("from", *inline.FIELDS, *_UNKNOWN_CONTENT)


class ApiError(Exception):
    """An error of the API: HTTP status, SparkPost's code where there is one, and words."""

    def __init__(self, status: int, code: str | None, message: str, description: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.description = description

    def document(self) -> dict[str, Any]:
        parts = {"message": str(self), "code": self.code, "description": self.description}
        return {"errors": [{name: part for name, part in parts.items() if part is not None}]}


@dataclass(frozen=True, slots=True)
class Transmission:
    """What would be sent: the addresses that are some, those that are none, the message, and the JSON beside it."""

    recipients: tuple[str, ...]
    rejected: tuple[str, ...]
    return_path: str
    content: bytes
    fields: Mapping[str, Any]


def read(body: bytes, rules: Rules) -> Transmission:
    """The transmission that a request's body asks for; raises ApiError."""
    try:
        document = json.loads(body, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid("Problems parsing request as JSON") from error
    if not isinstance(document, dict):
        raise _invalid("Problems parsing request as JSON")
    document = _without_nulls(document)
    _check_types(document)
    octets = _given(document, rules) if "email_rfc822" in document["content"] else _built(document, rules)
    if objection := _objection(octets[: header_length(octets)], rules):
        raise ApiError(400, "7001", objection)
    addresses = [_address(recipient) for recipient in document["recipients"]]
    good = tuple(address for address in addresses if is_address(address))
    if not good:
        raise ApiError(400, "5002", "at least one valid recipient is required")
    bad = tuple(address for address in addresses if not is_address(address))
    fields = {name: value for name, value in document.items() if name != "content"}
    return Transmission(good, bad, document.get("return_path", ""), octets, fields)


def _without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is null is not there: SparkPost's own Python client sends all fields, most of them null."""
    named = {name: value for name, value in document.items() if value is not None}
    inner = {name: named[name] for name in ("content", "options") if isinstance(named.get(name), dict)}
    return named | {
        name: {key: value for key, value in fields.items() if value is not None} for name, fields in inner.items()
    }


def _given(document: Mapping[str, Any], rules: Rules) -> bytes:
    """The message that comes in MIME form."""
    content = document["content"]
    if others := [name for name in _OTHER_CONTENT if name in content]:
        raise ApiError(422, "1301", "invalid field combination", f"content.email_rfc822 excludes content.{others[0]}")
    mime = _LINE_END.sub("\r\n", content["email_rfc822"])
    if mime.endswith("\r\n.\r\n"):
        raise ApiError(422, "3020", "MIME parsing error", "email_rfc822 ends with the terminator of SMTP")
    _limit(len(mime.encode("utf-8", "replace")), rules)
    return _evaluated(mime, document.get("substitution_data", {}), body=_substitutes(document)).encode(
        "utf-8", "replace"
    )


def _built(document: Mapping[str, Any], rules: Rules) -> bytes:
    """The message that is made of pieces."""
    content = document["content"]
    if unknown := [name for name in _UNKNOWN_CONTENT if content.get(name)]:  # SparkPost would take it
        raise _invalid(f"the sandbox does not know content.{unknown[0]}")
    for name in ("from", "subject"):
        if not content.get(name):
            raise _missing(f"content.{name}")
    if "text" not in content and "html" not in content:
        raise _missing("content.text or content.html")
    try:
        octets = inline.build(content, document["recipients"], templates=_substitutes(document))
    except ValueError as error:
        raise _invalid(str(error)) from error
    _limit(len(octets), rules)
    return octets


def _substitutes(document: Mapping[str, Any]) -> bool:
    return bool(document.get("options", {}).get("perform_substitutions", True))


def _limit(size: int, rules: Rules) -> None:
    if size > rules.message_size:
        raise _invalid("The estimated message size is above the 20 MB message size limit")


def _objection(header: bytes, rules: Rules) -> str | None:
    """A From is demanded always (fact sheet 3.2); what it says, where the sending domains are known."""
    if rules.sending_domains is None:
        return None if has_from(header) else NO_DOMAIN
    return domain_objection(header, {domain.lower() for domain in rules.sending_domains})


def _check_types(document: Mapping[str, Any]) -> None:
    _check(document, _FIELDS, "")
    _check(document.get("options", {}), _OPTIONS, "options.")
    for name in ("recipients", "content"):
        if not document.get(name):
            raise _missing(name)
    _check(document["content"], {"email_rfc822": str, **inline.FIELDS}, "content.")
    if len(document.get("campaign_id", "").encode("utf-8", "replace")) > MAX_CAMPAIGN_ID:
        raise _invalid(f"campaign_id is limited to {MAX_CAMPAIGN_ID} bytes")
    if (return_path := document.get("return_path")) and not is_address(return_path):
        raise _invalid("return_path needs to be a valid address")
    metadata = json.dumps(document.get("metadata", {}), ensure_ascii=False, separators=(",", ":"))
    if len(metadata.encode("utf-8", "replace")) > _MAX_METADATA:
        raise ApiError(422, "2007", "metadata is too large", "metadata is limited to 10 KB")
    for recipient in document["recipients"]:
        if not isinstance(recipient, dict) or not isinstance(_address(recipient), str):
            raise _invalid("each recipient needs an address with an email")
        tags = recipient.get("tags", [])
        if not isinstance(tags, Sequence) or isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
            raise _invalid("recipients.tags needs to be an array of strings")


def _address(recipient: Mapping[str, Any]) -> Any:
    address = recipient.get("address")
    return address.get("email") if isinstance(address, dict) else address


def _check(fields: Mapping[str, Any], types: Mapping[str, type], prefix: str) -> None:
    for name, expected in types.items():
        if name in fields and not isinstance(fields[name], expected):
            raise _invalid(f"{prefix}{name} needs to be of type {_TYPE_NAMES[expected]}")


def _evaluated(mime: str, data: Mapping[str, Any], *, body: bool) -> str:
    header, empty_line, rest = mime.partition("\r\n\r\n")
    if mime.startswith("\r\n"):
        header, empty_line, rest = "", "", mime
    try:
        return evaluate(header, data) + empty_line + (evaluate(rest, data) if body else rest)
    except TemplateError as error:
        raise ApiError(422, "3000", str(error)) from error


def _invalid(description: str) -> ApiError:
    return ApiError(422, "1300", "invalid data format/type", description)


def _missing(name: str) -> ApiError:
    return ApiError(422, "1400", "required field is missing", f"{name} is required")
