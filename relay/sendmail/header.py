"""The header section: who gets the message, what is taken out, what is added. Lines end with LF here.

Addresses without a domain get one; all other octets stay as they are. A line that is no field ends the header section,
and the empty line that should have stood there is supplied: `echo text | sendmail address` sends a text, and every
later reader sees the same header.
"""

import binascii
import os
import re
import time

from relay.addresses import AddressError, completed, parse_list
from relay.sendmail.failure import Failure

# A name has no space and no colon in it; white space before the colon is RFC 5322 §4.5.
_NAME = rb"[!-9;-~]++[ \t]*:"
_FIELD = re.compile(rb"(?P<name>[!-9;-~]++)[ \t]*:(?P<value>[^\n]*(?:\n[ \t][^\n]*)*)\n")
_END = re.compile(rb"^(?![ \t]|" + _NAME + rb")[^\n]*\n", re.MULTILINE)
_MBOX = re.compile(rb"(?:>?From (?![ \t]*:)[^\n]*\n)+")
_BLIND = (b"bcc", b"resent-bcc")
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
_NAMES = (b"from", b"sender", b"reply-to", b"to", b"cc")
_WITH_ADDRESSES = frozenset(_NAMES) | {b"resent-" + name for name in _NAMES}
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")

_Field = tuple[bytes, bytes, bytes]  # the name in small letters, the value, and all of it as it stands


def find_end(octets: bytes | bytearray, start: int) -> tuple[int, int] | None:
    """Where the header section ends and the content begins; None while that cannot be seen yet.

    `start` is the beginning of a line before which there is no end. Only whole lines are looked at.
    """
    mbox = _MBOX.match(octets)
    first = mbox.end() if mbox else 0
    if octets[first : first + 1] in (b" ", b"\t"):
        return first, first  # a fold of nothing
    found = _END.search(octets, max(start, first))
    if found is None:
        return None
    return found.start(), found.end() if found.end() - found.start() == 1 else found.start()


class Header:
    """The fields of a message, in their order."""

    def __init__(self, octets: bytes) -> None:
        mbox = _MBOX.match(octets)  # the line before a message in a mailbox file, which is none of its fields
        self._fields = [
            (found["name"].lower(), found["value"], found[0])
            for found in _FIELD.finditer(octets, mbox.end() if mbox else 0)
        ]

    def __bytes__(self) -> bytes:
        return b"".join(octets for _, _, octets in self._fields)

    def has(self, name: bytes) -> bool:
        return any(known == name for known, _, _ in self._fields)

    def recipients(self) -> list[str]:
        """The addresses of To, Cc and Bcc; of a message that is sent again, those of Resent-To, -Cc and -Bcc instead.

        Raises Failure with EX_DATAERR, naming the field, if one cannot be read.
        """
        resent = any(name in _RESENT for name, _, _ in self._fields)
        found: list[str] = []
        for name, value, _ in self._fields:
            if name in (_RESENT if resent else _RECIPIENTS):
                try:
                    found += parse_list(value.decode("utf-8", "surrogateescape"))
                except AddressError as error:
                    raise Failure(os.EX_DATAERR, f"{name.decode().title()}: {error}. Nothing was sent") from None
        return found

    def remove_blind_copies(self) -> None:
        self._fields = [field for field in self._fields if field[0] not in _BLIND]

    def complete(self, *, author: str, full_name: str, domain: str) -> None:
        """Add From, Date and Message-ID where they are missing (RFC 5322 §3.6), and `domain` to addresses without one.

        cron writes `From: root (Cron Daemon)`, and no server would know whose root that is.
        """
        self._fields = [_with_domain(field, domain) for field in self._fields]
        if not self.has(b"from"):
            self._add("From", f"{phrase(full_name)} <{author}>" if full_name.strip() else author)
        if not self.has(b"date"):
            self._add("Date", time.strftime("%a, %d %b %Y %H:%M:%S %z"))
        if not self.has(b"message-id"):
            unique = f"{time.time_ns():x}.{os.getpid()}.{os.urandom(8).hex()}"
            self._add("Message-ID", f"<{unique}@{domain}>")

    def _add(self, name: str, value: str) -> None:
        self._fields.append((name.lower().encode(), value.encode(), f"{name}: {value}\n".encode()))


def _with_domain(field: _Field, domain: str) -> _Field:
    """A field of addresses with `domain` behind each that has none. What is no list of addresses stays as it is."""
    name, value, octets = field
    if name not in _WITH_ADDRESSES:
        return field
    try:
        text = completed(value.decode("utf-8", "surrogateescape"), domain)
    except AddressError:
        return field
    whole = text.encode("utf-8", "surrogateescape")
    return name, whole, octets[: -len(value) - 1] + whole + b"\n"


def phrase(text: str) -> str:
    """A display name as a header may have it: as it is, quoted (RFC 5322 §3.2.4) or encoded (RFC 2047)."""
    octets = os.fsencode(" ".join(text.split()))
    text = "".join(character if character.isprintable() else " " for character in octets.decode("utf-8", "replace"))
    if _ATOMS.fullmatch(text) and "=?" not in text:
        return text
    if text.isascii():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    words, word = [], ""
    for character in text:
        if len((word + character).encode()) > 45:  # 60 characters of base64: a word has 75 at most
            words.append(word)
            word = ""
        word += character
    encoded = [binascii.b2a_base64(part.encode(), newline=False).decode() for part in [*words, word]]
    return "\n ".join(f"=?utf-8?B?{part}?=" for part in encoded)
