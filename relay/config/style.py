"""Values as YAML on one line: plain where that is safe under YAML 1.1 and 1.2, in double quotes where it is not."""

import json
import re
from collections.abc import Mapping
from typing import Any

from relay.config.document import resolves_to_text

_NOT_ASCII = re.compile(r"[\x7f-\U0010ffff]")
_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_./:@+-]*(?<!:)")


def inline(value: Any) -> str:
    """A scalar, or a list or mapping in flow style."""
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inline(name)}: {inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(inline, value))}]"
    return json.dumps(value)


def _quoted(text: str) -> str:
    """In double quotes and in ASCII. YAML's escapes are JSON's, but that half a character is none."""
    return _NOT_ASCII.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _is_plain(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and resolves_to_text(text)
