"""The content that goes on: our `Received` line on top, `Date` and `Message-ID` if there are none, what SparkPost is
asked to do with it, blind copies out, every other octet as it came.

`Received` stands before everything, as each server's does (RFC 5321 §4.4), also before content that has no header
section or a broken one. A first line that is a fold with nothing to be folded to becomes a fold of ours; an mbox
`From ` line stays where it was, below. An empty line between would turn the message's own header into text.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from relay.core import headers, smtp_api
from relay.core.envelope import Recipient
from relay.core.message import Content
from relay.core.tolerance import Tolerance

_LITERAL = re.compile(r"\[[0-9A-Za-z.:-]{1,64}\]")
_NOT_IN_A_NAME = re.compile(r"[^0-9A-Za-z._-]")
_LONGEST_NAME = 255  # RFC 5321 §4.5.3.1.2
_OURS = 400  # octets of a line that we add, at most: the longest name, or the longest path, and a few words
_WANTED = ((b"\ndate", Tolerance.NO_DATE), (b"\nmessage-id", Tolerance.NO_MESSAGE_ID))


@dataclass(slots=True)
class Trace:
    """What the Received line says of a message's way to us.

    `way` is how it begins (see `way_of`), `hostname` our name, `epoch` when the message came, in seconds.
    """

    way: str
    hostname: str
    queue_id: str
    recipients: tuple[Recipient, ...]
    epoch: float


def received(trace: Trace) -> bytes:
    """The Received field of RFC 5321 §4.4, folded.

    `for` is given with one recipient only: it would show blind copies to the others (RFC 5321 §7.6). The login is
    nobody's business but ours.
    """
    recipient = f"\r\n\tfor <{trace.recipients[0]}>; " if len(trace.recipients) == 1 else ";\r\n\t"
    return f"{trace.way}{trace.queue_id}{recipient}{_date(int(trace.epoch))}\r\n".encode("ascii")


@lru_cache(maxsize=1)  # of a busy second only the first message pays for it
def _date(epoch: int) -> str:
    return format_datetime(datetime.fromtimestamp(epoch, UTC))


def missing(header: bytes) -> tuple[Tolerance, ...]:
    """Which of the fields that a message must have (RFC 5322 §3.6), or should, it has not."""
    lower = b"\n" + header.lower()
    kinds = []
    for name, kind in _WANTED:
        # A search for octets is much faster than one for the field, and says enough of nearly all messages.
        if name + b":" not in lower and (name not in lower or not headers.has_field(header, name[1:])):
            kinds.append(kind)
    return tuple(kinds)


def _added(kinds: tuple[Tolerance, ...], trace: Trace) -> bytes:
    """The fields that are missing, as a server may add them to what is submitted to it (RFC 6409 §8)."""
    lines = ""
    if Tolerance.NO_DATE in kinds:
        lines += f"Date: {_date(int(trace.epoch))}\r\n"
    if Tolerance.NO_MESSAGE_ID in kinds:
        lines += f"Message-ID: <{trace.queue_id}@{trace.hostname}>\r\n"
    return lines.encode("ascii")


def with_domains(content: Content, domain: str) -> Content:
    """The content with `domain` behind each address of its header that has none; the very same where all have one."""
    header = headers.with_domains(content.header, domain)
    if header == content.header:
        return content
    longest = max(content.longest_line, *map(len, header.split(b"\r\n")))
    return content._replace(header=header, longest_line=longest)


def prepare(content: Content, trace: Trace, lacks: tuple[Tolerance, ...] = (), asked: bytes = b"") -> Content:
    """The content as it leaves, with the fields that it `lacks`, and with what SparkPost is `asked` in the place of any
    X-MSYS-API field that it has. `longest_line` is never less than what leaves has; it and `eight_bit` may still count
    a field that was taken out.
    """
    line, header, longest = received(trace), content.header, max(content.longest_line, _OURS)
    if lacks or asked:
        # A fold with nothing to be folded to comes behind Received, where it does no harm.
        added = _added(lacks, trace) + asked
        line = added + line if header[:1] in (b" ", b"\t") else line + added
    if asked:
        header = headers.without_field(header, smtp_api.NAME)
        longest = max(longest, *map(len, asked.split(b"\r\n")))
    return Content(line + headers.without_blind_copies(header), content.body, longest, content.eight_bit)


def way_of(helo: str, peer: str, hostname: str, protocol: str) -> str:
    """How the Received line begins of all messages that come this way, up to their queue ids.

    `helo` is the name the client gave, as it gave it; `peer` its IP address, empty for a Unix socket; `hostname` ours;
    `protocol` the word of RFC 3848 (ESMTPSA and so on).
    """
    return f"Received: from {_name(helo)} ({_literal(peer)})\r\n\tby {hostname} with {protocol} id "


def _name(helo: str) -> str:
    """A HELO name that cannot be more than a word, whatever the client said: `?` for all that is in no host name."""
    if _LITERAL.fullmatch(helo):
        return helo
    return _NOT_IN_A_NAME.sub("?", helo[:_LONGEST_NAME]) or "unknown"


def _literal(address: str) -> str:
    """An IP address as an address literal (RFC 5321 §4.1.3). Which user it was on this host is for the log alone."""
    if not address:
        return "local socket"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
