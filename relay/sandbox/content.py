"""The octets after DATA: where they end, and what SparkPost objects to in them.

Content ends at CRLF.CRLF and at nothing else; anything more lenient here would hide a relay that smuggles.
"""

import re
from email.utils import getaddresses
from typing import Final

from relay.sandbox import msys
from relay.sandbox.answers import Answer
from relay.sandbox.rules import Rules

NO_DOMAIN: Final = "No sending domain specified"

_END: Final = b"\r\n.\r\n"
_MAX_LINE: Final = 1000  # octets, CRLF included (RFC 5321 §4.5.3.1.6)
_FROM = re.compile(rb"^from[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)
_MSYS_API = re.compile(rb"^x-msys-api[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)


class ContentReader:
    """Collects content until its end. What exceeds `limit` beyond doubt is dropped while reading on."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._raw = bytearray(b"\r\n")  # the line end of DATA itself: a dot may follow it at once
        self._excess = False

    def take(self, octets: bytearray) -> bool:
        """Move what belongs to the content out of `octets`; True once its end was found."""
        raw = self._raw
        seam = max(len(raw) - len(_END) + 1, 0)
        raw += octets
        end = raw.find(_END, seam)
        if end >= 0:
            octets[:] = raw[end + len(_END) :]
            del raw[end + 2 :]
            return True
        octets.clear()
        if len(raw) > 2 * self._limit:  # dot-stuffing cannot double a message
            self._excess = True
            del raw[: -len(_END)]
        return False

    def content(self) -> bytes | None:
        """The content as the client meant it, dots un-stuffed (RFC 5321 §4.5.2); None if it is over the limit."""
        content = bytes(self._raw.replace(b"\r\n.", b"\r\n"))[2:]
        return None if self._excess or len(content) > self._limit else content


def refusal(content: bytes, rules: Rules) -> Answer | None:
    """The answer to the final dot if SparkPost would not take this content, else None."""
    header = content[: header_length(content)]
    if rules.check_line_ends and (part := _part_with_lone_line_end(content, header)):
        return Answer.line(f"550 5.6.0 Lone CR or LF in {part}")
    if rules.check_line_length and _has_long_line(content, len(header)):
        return Answer.line("550 5.6.0 Body line too long")
    for field in _MSYS_API.finditer(header):
        if reason := msys.objection(field[1]):
            return Answer.line(f"550 5.6.0 {reason}")
    if rules.sending_domains is not None:
        objection = domain_objection(header, {domain.lower() for domain in rules.sending_domains})
        return Answer.line(f"550 5.7.1 {objection}") if objection else None
    return None


def header_length(content: bytes) -> int:
    """The header section with its last CRLF; all of it where no blank line ends it."""
    if content.startswith(b"\r\n"):
        return 0
    end = content.find(b"\r\n\r\n")
    return len(content) if end < 0 else end + 2


def _part_with_lone_line_end(content: bytes, header: bytes) -> str | None:
    pairs = content.count(b"\r\n")
    if content.count(b"\n") == pairs == content.count(b"\r"):
        return None
    pairs = header.count(b"\r\n")
    return "body" if header.count(b"\n") == pairs == header.count(b"\r") else "headers"


def _has_long_line(content: bytes, start: int) -> bool:
    """Whether a line from `start` on is over the limit; leaps to the last line end of each thousand octets."""
    while len(content) - start > _MAX_LINE:
        line_end = content.rfind(b"\n", start, start + _MAX_LINE)
        if line_end < 0:
            return True
        start = line_end + 1
    return False


def has_from(header: bytes) -> bool:
    return _FROM.search(header) is not None


def domain_objection(header: bytes, sending_domains: set[str]) -> str | None:
    """Exactly one From address, of exactly a configured domain: a parent does not cover its subdomains."""
    fields = _FROM.findall(header)
    addresses = getaddresses([msys.unfold(field).decode("latin-1") for field in fields])
    domains = [address.rpartition("@")[2].lower() if "@" in address else "" for _, address in addresses]
    if len(domains) != 1 or not domains[0]:
        return NO_DOMAIN
    if domains[0] not in sending_domains:
        return f"Unconfigured Sending Domain <{domains[0]}>"
    return None
