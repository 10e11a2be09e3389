"""The header section as octets: what the relay reads in it, and the one thing it takes out.

Everything works on the octets themselves, because what is parsed and written again comes out different, and breaks
signatures. The header section is all that stands before the first empty line, whatever it looks like: a line that is
no field (text, an mbox `From ` line, a fold with nothing to be folded to) neither ends it nor is touched. So a `Bcc`
behind such a line is still taken out, and a second `From` is still seen, however a later reader takes the line.

Every line ends with CRLF; the content reader has seen to that. The `email` package is not used: it repairs what it
reads, and who may send as whom must not hang on a repair that SparkPost makes in another way.
"""

import re
from collections.abc import Iterator
from typing import Final

from relay import addresses
from relay.core.envelope import Address, PathError

LONGEST_LIST: Final = 65_536  # octets; as below, and a thousand recipients fit in
LONGEST_FROM: Final = 16_384  # octets; reading takes time on the loop, and no honest header From is near this

_FLAGS: Final = re.IGNORECASE | re.MULTILINE
_REST: Final = rb"[ \t]*:(?P<value>[^\n]*(?:\n[ \t][^\n]*)*)"  # white space before the colon: RFC 5322 §4.5
_RECEIVED = re.compile(rb"^Received[ \t]*:", _FLAGS)
_FROM = re.compile(b"^From" + _REST, _FLAGS)
_SPARKPOST = re.compile(rb"^(?P<name>X-MSYS-[!-9;-~]*|X-Binding)" + _REST + rb"\n?", _FLAGS)
_ADDRESSES = re.compile(rb"^(?:Resent-)?(?:From|Sender|Reply-To|To|Cc)" + _REST, _FLAGS)
_BLIND = re.compile(rb"^(?:Resent-)?Bcc" + _REST + rb"\n?", _FLAGS)

# RFC 5322 §3.2.3 to §3.4: one letter for each kind of token, the token itself for a special. Atoms keep their dots.
_TOKEN = re.compile(
    rb"""  [\ \t\r\n]+
      | (?P<a>[^\x00-\x20\x7f()<>\[\]:;@\\,"]+)
      | (?P<q>"(?:[^"\\]|\\.)*+")
      | (?P<l>\[[^\[\]\\]*\])
      | (?P<special>[<>,:;@])
      | (?P<comment>\()""",
    re.VERBOSE | re.DOTALL,
)
_IN_COMMENT = re.compile(rb"(?:[^()\\]|\\.)*+([()])", re.DOTALL)
_MAILBOX: Final = "(?:(?:[aq]@[al]|[aql])*<[aq]@[al]>|[aq]@[al])"
_MAILBOXES: Final = f",*(?:{_MAILBOX}(?:,+{_MAILBOX})*,*)?"
_ITEM: Final = f"(?:{_MAILBOX}|[aql]+(?::{_MAILBOXES};)?)"  # a mailbox, a group, or a part of a name with commas
_ADDRESS_LIST = re.compile(f",*{_ITEM}(?:,+{_ITEM})*,*")
_ADDRESS = re.compile("[aq]@[al]")


def count_received(header: bytes) -> int:
    """How many servers the message says it has passed."""
    return len(_RECEIVED.findall(header))


def has_field(header: bytes, name: bytes) -> bool:
    """Is there a field of this name, in any case?"""
    if name.lower() not in header.lower():  # much faster than to look for the field
        return False
    return re.search(rb"^" + re.escape(name) + rb"[ \t]*:", header, _FLAGS) is not None


def field_values(header: bytes, name: bytes) -> list[bytes]:
    """What stands behind the colon in each field of this name, folds included."""
    return [match["value"] for match in re.finditer(rb"^" + re.escape(name) + _REST, header, _FLAGS)]


def said_to_sparkpost(header: bytes) -> list[bytes]:
    """The names of the fields that are said to SparkPost itself: `X-MSYS-…` and `X-Binding` (fact sheet 2.1)."""
    lower = header.lower()
    if b"x-msys-" not in lower and b"x-binding" not in lower:  # much faster than to look for fields
        return []
    return [match["name"] for match in _SPARKPOST.finditer(header)]


def without_field(header: bytes, name: bytes) -> bytes:
    """The header section without the fields of this name; every other octet is as it was."""
    return re.sub(rb"^" + re.escape(name) + _REST + rb"\n?", b"", header, flags=_FLAGS)


def without_sparkpost_fields(header: bytes) -> bytes:
    """The header section without what is said to SparkPost itself: `X-MSYS-…` and `X-Binding` (fact sheet 2.1)."""
    return _SPARKPOST.sub(b"", header)


def without_blind_copies(header: bytes) -> bytes:
    """The header section without its `Bcc` and `Resent-Bcc` fields; every other octet is as it was."""
    if b"bcc" not in header.lower():  # much faster than to look for the field, and most have none
        return header
    return _BLIND.sub(b"", header)


def with_domains(header: bytes, domain: str) -> bytes:
    """The header section with `domain` behind each address that has none; what is no list of addresses is as it was."""

    def whole(field: re.Match[bytes]) -> bytes:
        value = field["value"]
        if len(value) > LONGEST_LIST:
            return field[0]
        try:
            text = addresses.completed(value.decode("latin-1"), domain)
        except addresses.AddressError:
            return field[0]
        return field[0][: -len(value)] + text.encode("latin-1") if value else field[0]

    return _ADDRESSES.sub(whole, header)


def from_addresses(header: bytes) -> tuple[Address, ...] | None:
    """The addresses of the header From, those of its groups included.

    None if two readers might disagree about who they are: no From field or several, no address in it, or brackets,
    quotes and `@` where RFC 5322 has none. Display names are taken as applications write them, in any character set
    and without the quotes they should have: `Doe, Jane <a@b.c>` has one address, `a@b.c <d@e.f>` has two.
    """
    fields = [match["value"] for match in _FROM.finditer(header)]
    if len(fields) != 1 or len(fields[0]) > LONGEST_FROM:
        return None
    try:
        tokens = list(_tokens(fields[0]))
        kinds = "".join(kind for kind, _ in tokens)
        if not ("@" in kinds and _ADDRESS_LIST.fullmatch(kinds)):
            return None
        return tuple(
            _address(tokens[found.start()][1], tokens[found.end() - 1][1]) for found in _ADDRESS.finditer(kinds)
        )
    except PathError:
        return None


def _tokens(value: bytes) -> Iterator[tuple[str, bytes]]:
    """The tokens of a field's value with their kinds, without white space and comments; raises PathError."""
    position = 0
    while position < len(value):
        found = _TOKEN.match(value, position)
        if found is None:
            raise PathError(f"octet {position} begins no token")
        position = found.end()
        kind = found.lastgroup  # None for white space
        if kind == "comment":
            position = _end_of_comment(value, position)
        elif kind is not None:
            yield found[0].decode("ascii") if kind == "special" else kind, found[0]


def _end_of_comment(value: bytes, position: int) -> int:
    """Where the comment ends whose bracket opened before `position`; comments nest (RFC 5322 §3.2.2)."""
    depth = 1
    while depth:
        found = _IN_COMMENT.match(value, position)
        if found is None:
            raise PathError("a comment is not closed")
        position = found.end()
        depth += 1 if found[1] == b"(" else -1
    return position


def _address(local: bytes, domain: bytes) -> Address:
    """The address of an addr-spec's two sides; raises PathError for what no envelope could carry."""
    if b"=?" in local + domain:  # some readers would decode it, though RFC 2047 §5 forbids encoded words here
        raise PathError("an encoded word within an address")
    return Address.parse(f"{local.decode('latin-1')}@{domain.decode('latin-1')}")
