"""The arguments of MAIL and RCPT: a path in brackets, right after the colon, and ESMTP parameters.

Strict on purpose: SparkPost is known to answer `501 5.5.2` to a malformed envelope, most likely to a space after the
colon, a display name inside the brackets, or an address that is none (fact sheet 1.4).
"""

import re
from typing import Final, NamedTuple, Self

_LOCAL_PART: Final = rb'(?:[^\x00-\x20\x7f-\xff<>()\[\]\\,;:@"]+|"(?:[^\x00-\x1f\x7f-\xff"\\]|\\[\x20-\x7e])*")'
_DOMAIN: Final = rb"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Za-z.:-]+\])"
_ADDRESS: Final = _LOCAL_PART + rb"@" + _DOMAIN
_PARAMETERS: Final = rb"((?: +[^ ]+)*) *"

MAIL_ARGUMENT: Final = re.compile(rb"FROM:<(" + _ADDRESS + rb"|)>" + _PARAMETERS, re.IGNORECASE)
RCPT_ARGUMENT: Final = re.compile(rb"TO:<(" + _ADDRESS + rb")>" + _PARAMETERS, re.IGNORECASE)

_ADDRESS_ALONE: Final = re.compile(_ADDRESS)


def is_address(text: str) -> bool:
    """Whether a recipient could be written so in an envelope."""
    return text.isascii() and _ADDRESS_ALONE.fullmatch(text.encode("ascii")) is not None


class Path(NamedTuple):
    """A reverse-path or forward-path without its brackets; parameter keywords in upper case, values as they came."""

    address: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, form: re.Pattern[bytes], argument: bytes) -> Self | None:
        """The path in `argument`, or None if it is not of that form."""
        match = form.fullmatch(argument)
        if match is None:
            return None
        words = (word.partition("=") for word in match[2].decode("ascii", "replace").split())
        return cls(match[1].decode("ascii"), {keyword.upper(): value for keyword, _, value in words})

    @property
    def local_part(self) -> str:
        return self.address.rpartition("@")[0]
