"""The envelope: reverse-path, forward-paths and ESMTP parameters, and the parser that reads them off the wire.

The parser is strict where leniency would change the meaning (an unclosed bracket, an empty recipient, a space inside an
address) and kind where it would not: white space after the colon, no brackets at all, a source route (dropped, RFC 5321
§4.1.2 and appendix C), the dot that ends a name in the DNS (dropped, as no Domain has it). Addresses keep their exact
spelling otherwise; ESMTP values keep their case (RFC 3461 §4 needs it).
"""

import re
from typing import Final, NamedTuple

from relay.core import reply
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance

MAX_PATH: Final = 320  # RFC 5321 §4.5.3.1.3 guarantees 256; local part 64 + "@" + domain 255 is what exists

_DOT_STRING = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_QUOTED_STRING = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"')
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LITERAL = re.compile(r"\[[\x21-\x5a\x5e-\x7e]+\]")
_SOURCE_ROUTE = re.compile(r"@[^\s:<>@]+(?:,@[^\s:<>@]+)*:")
_ORDINARY_PATH = re.compile(rf"<({_DOT_STRING.pattern})@({_DOMAIN.pattern})>(?![^ \t])")  # as nearly all are
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")


class PathError(ValueError):
    """An address that cannot be read; the text says why, in words fit for a reply."""


class DomainMissing(PathError):
    """A name on its own, which could be anybody's."""


class InternationalAddress(PathError):
    """An address with octets outside ASCII, which only SMTPUTF8 (RFC 6531) could carry."""


class Address(NamedTuple):
    """A mailbox as written, but for a dot behind it: `local` may be a quoted string, `domain` an address literal."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `local@domain`; raises PathError."""
        if not text.isascii():
            raise InternationalAddress("characters outside ASCII")
        if len(text) > MAX_PATH:
            raise PathError(f"longer than {MAX_PATH} octets")
        local = _QUOTED_STRING.match(text) or _DOT_STRING.match(text)
        if local is None:
            raise PathError(f"<{text}> does not begin with a local part")
        if local.end() == len(text):
            raise DomainMissing(f"<{text}> has no domain")
        if text[local.end()] != "@":
            raise PathError(f"<{text}> has a character that does not belong there")
        domain = text[local.end() + 1 :]
        if domain.endswith(".") and not domain.startswith("["):
            domain = domain[:-1]
        if not (_DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain)):
            raise PathError(f"<{text}> has no valid domain")
        return cls(local[0], domain)


class ReversePath(NamedTuple):
    """MAIL FROM: an address, or null (`<>`) for mail that must never be answered (RFC 5321 §4.5.5)."""

    address: Address | None

    def __str__(self) -> str:
        return "" if self.address is None else str(self.address)


class Recipient(NamedTuple):
    """RCPT TO: a forward-path with the DSN parameters it came with (RFC 3461), kept verbatim."""

    address: Address
    notify: str | None = None
    orcpt: str | None = None

    def __str__(self) -> str:
        return str(self.address)


class Envelope(NamedTuple):
    """Who sends to whom. `body` is "7BIT" or "8BITMIME" as declared, None when MAIL said nothing."""

    reverse_path: ReversePath
    recipients: tuple[Recipient, ...] = ()
    body: str | None = None
    ret: str | None = None
    envid: str | None = None


class Path(NamedTuple):
    """The part of a MAIL or RCPT command before its parameters: `text` without brackets; `bracketed` as it stood."""

    text: str
    bracketed: bool
    spaced: bool
    rest: str


class PathArgument(NamedTuple):
    """What stands behind `FROM:` or `TO:`, read: `address` is None for `<>`, `rest` holds the parameters."""

    address: Address | None
    rest: str
    tolerances: frozenset[Tolerance] = frozenset()


class Home(NamedTuple):
    """Who is meant by a name without a domain: at `origin` everybody; else the `postmaster` alone, in any case, who
    needs none (RFC 5321 §4.1.1.3, §4.5.1).
    """

    origin: str | None = None
    postmaster: Address | None = None

    def find(self, name: str) -> Address | None:
        """The address of a name, or None where it means nobody; raises PathError for one that is too long then."""
        if self.origin is not None:
            address = Address(name, self.origin)
            if len(str(address)) > MAX_PATH:
                raise PathError(f"longer than {MAX_PATH} octets at {self.origin}")
            return address
        return self.postmaster if name.lower() == "postmaster" else None


NOWHERE: Final = Home()


def read_path(argument: str, home: Home = NOWHERE) -> PathArgument:
    """Read `<path> parameters`, the text behind `FROM:` or `TO:`; raises PathError."""
    ordinary = _ORDINARY_PATH.match(argument)
    if ordinary is not None and ordinary.end() <= MAX_PATH:
        return PathArgument(Address(ordinary[1], ordinary[2]), argument[ordinary.end() :])
    path = split_path(argument)
    found = ((Tolerance.NO_BRACKETS, not path.bracketed), (Tolerance.PATH_SPACING, path.spaced))
    tolerances = frozenset(kind for kind, shown in found if shown)
    try:
        address = Address.parse(path.text) if path.text else None
        if path.text.endswith("."):
            tolerances |= {Tolerance.TRAILING_DOT}
        return PathArgument(address, path.rest, tolerances)
    except DomainMissing:
        if (address := home.find(path.text)) is None:
            raise
        if address is not home.postmaster:
            tolerances |= {Tolerance.NO_DOMAIN}
        return PathArgument(address, path.rest, tolerances)


def split_path(argument: str) -> Path:
    """Divide `<path> parameters` whatever it looks like; raises PathError."""
    text = argument.lstrip(" \t")
    spaced = text != argument
    if not text.startswith("<"):
        path, _, rest = text.partition(" ")
        if not path or "<" in path or ">" in path:
            raise PathError("an address in angle brackets is expected")
        return Path(path, bracketed=False, spaced=spaced, rest=rest)
    route = _SOURCE_ROUTE.match(text, 1)
    start = route.end() if route else 1
    quoted = _QUOTED_STRING.match(text, start)
    end = text.find(">", quoted.end() if quoted else start)
    if end < 0:
        raise PathError("the closing bracket is missing")
    rest = text[end + 1 :]
    if rest and rest[0] not in " \t":
        raise PathError("a space is expected after the closing bracket")
    bare = text[start:end].strip(" \t")
    if route and not bare:
        raise PathError("an address is expected behind the source route")  # what it is not is the null path
    return Path(bare, bracketed=True, spaced=spaced, rest=rest)


def parse_parameters(rest: str) -> dict[str, str | None] | Reply:
    """ESMTP parameters by upper-cased keyword; values keep their case. A malformed or repeated one gives a Reply."""
    parameters: dict[str, str | None] = {}
    for word in rest.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            return reply.parameter_malformed(word.partition("=")[0])
        keyword = match[1].upper()
        if keyword in parameters:
            return reply.parameter_malformed(keyword)
        parameters[keyword] = match[2]
    return parameters
