"""What a sender may say about reports on its mail (RFC 3461): its syntax, and what it means for a report of failure."""

import re
from typing import Final

_XTEXT: Final = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"  # §4: "+" and "=" are written as +2B and +3D
_ENVELOPE_ID: Final = re.compile(rf"{_XTEXT}{{1,100}}")  # §4.4
_ORIGINAL_RECIPIENT: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9-]*;{_XTEXT}+")  # §4.2
_HEXCHAR: Final = re.compile(r"\+([0-9A-F]{2})")
_LONGEST_ORCPT: Final = 500  # characters, §4.2
_NEVER: Final = "NEVER"
_FAILURE: Final = "FAILURE"
_OCCASIONS: Final = frozenset({"SUCCESS", _FAILURE, "DELAY"})


def is_notify(value: str | None) -> bool:
    """NOTIFY: NEVER alone, or a list of occasions (§4.1)."""
    if value is None:
        return False
    value = value.upper()
    return value == _NEVER or _OCCASIONS.issuperset(value.split(","))


def is_original_recipient(value: str | None) -> bool:
    """ORCPT: the type of an address, and the address as xtext (§4.2)."""
    return value is not None and len(value) <= _LONGEST_ORCPT and _ORIGINAL_RECIPIENT.fullmatch(value) is not None


def is_envelope_id(value: str | None) -> bool:
    """ENVID: xtext (§4.4)."""
    return value is not None and _ENVELOPE_ID.fullmatch(value) is not None


def wants_failure(notify: str | None) -> bool:
    """Is a recipient's failure to be reported? Without a word it is (§4.1)."""
    return notify is None or _FAILURE in notify.upper().split(",")


def from_xtext(value: str) -> str:
    """What was meant, each octet as a character."""
    return _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), value)
