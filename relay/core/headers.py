"""The header section as octets: what the relay reads in it, and the one thing it takes out.

Everything works on the octets themselves, because what is parsed and written again comes out different, and breaks
signatures. The header section is all that stands before the first empty line, whatever it looks like: a line that is
no field (text, an mbox `From ` line, a fold with nothing to be folded to) neither ends it nor is touched. So a `Bcc`
behind such a line is still taken out, and a second `From` is still seen, however a later reader takes the line.

Every line ends with CRLF; the content reader has seen to that. The `email` package is not used: it repairs what it
reads, and who may send as whom must not hang on a repair that SparkPost makes in another way.
"""

import re
from typing import Final

from relay import addresses
from relay.core.envelope import Address, PathError

LONGEST_COMPLETED: Final = 131_072  # octets of a header section; as below, and it may have a thousand recipients
MOST_FIELDS: Final = 1000  # that are completed
MOST_MARKS: Final = 20_000  # in them: about as many microseconds
LONGEST_FROM: Final = 16_384  # octets; reading takes time on the loop, and no honest header From is near this

_FLAGS: Final = re.IGNORECASE | re.MULTILINE
_REST: Final = rb"[ \t]*:(?P<value>[^\n]*(?:\n[ \t][^\n]*)*)"  # white space before the colon: RFC 5322 §4.5
_RECEIVED = re.compile(rb"^Received[ \t]*:", _FLAGS)
_FROM = re.compile(b"^From" + _REST, _FLAGS)
# No field's name has white space or a control character behind it; but who looks for the colon may skip some.
_NO_NAME: Final = rb"[\x00-\x09\x0b-\x20\x7f-\xff]*+"
_SPARKPOST = re.compile(rb"^(?P<name>(?:X-MSYS-[!-9;-~]*+|X-Binding)" + _NO_NAME + rb")" + _REST + rb"\n?", _FLAGS)
_ADDRESSES = re.compile(rb"^(?:Resent-)?(?:From|Sender|Reply-To|To|Cc)" + _REST, _FLAGS)
_MARKS: Final = b' \t\r\n()<>[]:;@,"\\'
_BLIND = re.compile(rb"^(?:Resent-)?Bcc" + _REST + rb"\n?", _FLAGS)

# The kinds of tokens that `addresses` reads, and what a list of them is here (RFC 5322 §3.4).
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
    return [match["name"].rstrip(b" \t") for match in _SPARKPOST.finditer(header)]


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
    """The header section with `domain` behind each address that has none; what is no list of addresses is as it was,
    and so is what would take too long to read.
    """
    if len(header) > LONGEST_COMPLETED:
        return header
    room = MOST_MARKS

    def whole(field: re.Match[bytes]) -> bytes:
        nonlocal room
        value = field["value"]
        marks = _marks(value)
        if marks > room:
            return field[0]
        room -= marks
        try:
            text = addresses.completed(value.decode("latin-1"), domain)
        except addresses.AddressError:
            return field[0]
        return field[0][: -len(value)] + text.encode("latin-1") if value else field[0]

    return _ADDRESSES.sub(whole, header, MOST_FIELDS)


def _marks(value: bytes) -> int:
    """How long it takes to read a list of addresses: what parts its tokens, and what parts addresses five times."""
    return len(value) - len(value.translate(None, _MARKS)) + 4 * sum(map(value.count, (b",", b";", b":")))


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
        tokens = list(addresses.tokens(fields[0].decode("latin-1")))
        kinds = "".join([kind for kind, _, _ in tokens])
        if not ("@" in kinds and _ADDRESS_LIST.fullmatch(kinds)):
            return None
        return tuple(
            _address(tokens[found.start()][1], tokens[found.end() - 1][1]) for found in _ADDRESS.finditer(kinds)
        )
    except (addresses.AddressError, PathError):
        return None


def _address(local: str, domain: str) -> Address:
    """The address of an addr-spec's two sides; raises PathError for what no envelope could carry."""
    if "=?" in local + domain:  # some readers would decode it, though RFC 2047 §5 forbids encoded words here
        raise PathError("an encoded word within an address")
    return Address.parse(f"{local}@{domain}")
