"""Patterns of the configuration, compiled: which logins and which mail addresses a rule speaks about.

`*` is any run of characters, `?` is one; nothing else is special, brackets least of all. A pattern says what it is in
its own words (`str`), so that explanations and replies can quote the configuration.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from relay.core.envelope import Address
from relay.core.login import parse_subaccount

CAPTURE: Final = "{subaccount}"
NULL: Final = "<>"

_WILD: Final = {"*": ".*", "?": "."}


def _expression(glob: str) -> str:
    return "".join(_WILD.get(character) or re.escape(character) for character in glob)


@dataclass(frozen=True, slots=True)
class LoginPattern:
    """Login names, case-sensitive. With `{subaccount}` the number in its place is captured."""

    text: str
    _names: re.Pattern[str]

    @classmethod
    def compile(cls, text: str) -> Self:
        before, capture, after = text.partition(CAPTURE)
        number = "(?P<subaccount>[1-9][0-9]*)" if capture else ""
        return cls(text, re.compile(_expression(before) + number + _expression(after), re.DOTALL))

    def __str__(self) -> str:
        return self.text

    @property
    def captures(self) -> bool:
        """Does it take the subaccount from the login?"""
        return bool(self._names.groups)

    def matches(self, login: str) -> bool:
        """True for a login of this form; a number that can be no subaccount is not of this form."""
        found = self._names.fullmatch(login)
        return found is not None and all(parse_subaccount(number) is not None for number in found.groups())

    def subaccount(self, login: str) -> int | None:
        """The subaccount that a matching login names; None where the pattern captures none."""
        found = self._names.fullmatch(login)
        return parse_subaccount(found["subaccount"]) if found is not None and found.groups() else None


@dataclass(frozen=True, slots=True)
class MailPattern:
    """Mail addresses, case-blind on both sides of the `@`; or `<>`, the null reverse-path and nothing else.

    RFC 5321 §2.4 lets the owner of a domain tell `Billing@` from `billing@`, and advises against it: an application
    that writes its own address with a capital letter means the same mailbox. The two sides are compared on their own,
    so no quoted local part can pass for a domain.
    """

    text: str
    _local: re.Pattern[str] | None
    _domain: re.Pattern[str] | None

    @classmethod
    def compile(cls, text: str) -> Self:
        if text == NULL:
            return cls(text, None, None)
        local, at, domain = text.rpartition("@")
        sides = (local, domain) if at else (text, text)  # a lone `*` is any address
        return cls(text, *(re.compile(_expression(side), re.IGNORECASE | re.DOTALL) for side in sides))

    def __str__(self) -> str:
        return self.text

    def matches(self, address: Address | None) -> bool:
        """True if the pattern speaks about `address`; None is the null reverse-path."""
        if address is None or self._local is None or self._domain is None:
            return address is None and self.text == NULL
        domain = address.domain.removesuffix(".")
        return bool(self._local.fullmatch(address.local) and self._domain.fullmatch(domain))
