"""Lists of addresses, as headers and command lines have them (RFC 5322 §3.4): what is left is addr-specs.

Names, comments, groups and source routes (RFC 5321 appendix C) are dropped. An address may lack its domain. What two
readers might understand in two ways is an error: no guess is made about who gets a message.
"""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""  [\ \t\r\n]+
      | (?P<a>[^\x00-\x20\x7f()<>\[\]:;@\\,"]+)
      | (?P<q>"(?:[^"\\]|\\.)*+")
      | (?P<l>\[[^\[\]\\]*\])
      | (?P<special>[<>,:;@])
      | (?P<comment>\()""",
    re.VERBOSE | re.DOTALL,
)
_IN_COMMENT = re.compile(r"(?:[^()\\]|\\.)*+([()])", re.DOTALL)
# One letter for each token: a atom, q quoted string, l domain literal, and the specials themselves.
_BARE = re.compile(r"(?P<address>[aq](?:@[al])?)")
_BRACKETED = re.compile(r"[aql@]*<(?:@[al](?:,@[al])*:)?(?P<address>[aq](?:@[al])?)?>")
_PRINTABLE = re.compile(r"[\x20-\x7e]+")

_Tokens = list[tuple[str, str, int]]  # the kind, the text, and where it ends


class AddressError(ValueError):
    """Text that is no list of addresses; says why."""


def parse_list(text: str) -> list[str]:
    """The addresses in a list, in their order; raises AddressError. `<>` and an empty group have none."""
    return ["".join(token for _, token, _ in address) for address in _addresses(text)]


def completed(text: str, domain: str) -> str:
    """The list with `domain` behind each address that has none, and otherwise as it was; raises AddressError.

    An encoded word on its own is a name whose address is missing, and stays as it is.
    """
    pieces, start = [], 0
    for address in _addresses(text):
        _, token, end = address[-1]
        if len(address) == 1 and not token.startswith("=?"):
            pieces.append(text[start:end])
            start = end
    return f"@{domain}".join([*pieces, text[start:]])


def key(address: str) -> str:
    """The same for addresses that mean the same mailbox: the domain's case does not matter (RFC 5321 §2.4)."""
    local, at, domain = address.rpartition("@")
    return local + at + domain.lower()


def tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """The tokens, without white space and comments: the kind, the text, and where it ends. Raises AddressError.

    Octets are read as well, where each is given as one character (latin-1).
    """
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise AddressError(f"{text[position : position + 20]!r} does not belong into an address, or is not closed")
        position = found.end()
        kind = found.lastgroup
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind is not None:  # white space has none
            yield found[0] if kind == "special" else kind, found[0], position


def _addresses(text: str) -> list[_Tokens]:
    """The tokens of each address, one or three of them; raises AddressError."""
    found: list[_Tokens] = []
    item: _Tokens = []
    within = False
    for kind, token, end in tokens(text):
        if not within and kind in (",", ";"):
            found += _mailbox(item)
            item = []
        elif not within and kind == ":":
            _group_name(item)
            item = []
        else:
            item.append((kind, token, end))
            within = kind == "<" or (within and kind != ">")
    return found + _mailbox(item)


def _group_name(item: _Tokens) -> None:
    """What stands before a colon gets no mail: raises AddressError if it is more than a name."""
    if any(kind in "@<>" for kind, _, _ in item):
        shown = " ".join(token for _, token, _ in item)
        raise AddressError(f"{shown!r} stands before a colon, where a group has its name; a comma parts addresses")


def _mailbox(item: _Tokens) -> list[_Tokens]:
    """The address of one item of a list; none if the item is empty."""
    if not item:
        return []
    kinds = "".join(kind for kind, _, _ in item)
    shown = " ".join(token for _, token, _ in item)
    match = _BARE.fullmatch(kinds) or _BRACKETED.fullmatch(kinds)
    if match is None:
        raise AddressError(f"{shown!r} is no address; a name needs <> around its address, and a comma behind it")
    if match["address"] is None:
        return []
    own = item[match.start("address") : match.end("address")]
    address = "".join(token for _, token, _ in own)
    if not address.isascii():
        raise AddressError(f"{shown!r} has characters outside ASCII in its address, and cannot be reached")
    if not _PRINTABLE.fullmatch(address):
        raise AddressError(f"{shown!r} has control characters in its address")
    return [own]


def _end_of_comment(text: str, position: int) -> int:
    """Where the comment ends whose bracket opened before `position`; comments nest (RFC 5322 §3.2.2)."""
    depth = 1
    while depth:
        found = _IN_COMMENT.match(text, position)
        if found is None:
            raise AddressError("a comment is not closed")
        position = found.end()
        depth += 1 if found[1] == "(" else -1
    return position
