"""The content that goes on: our `Received` line on top, blind copies out, every other octet as it came.

`Received` stands before everything, as each server's does (RFC 5321 §4.4), also before content that has no header
section or a broken one. A first line that is a fold with nothing to be folded to becomes a fold of ours; an mbox
`From ` line stays where it was, below. An empty line between would turn the message's own header into text.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from relay.core import headers
from relay.core.envelope import Recipient
from relay.core.message import Content

_LITERAL = re.compile(r"\[[0-9A-Za-z.:-]{1,64}\]")
_NOT_IN_A_NAME = re.compile(r"[^0-9A-Za-z._-]")
_LONGEST_NAME = 255  # RFC 5321 §4.5.3.1.2


@dataclass(frozen=True, slots=True)
class Trace:
    """What the Received line says of a message's way to us.

    `helo` is the name the client gave, as it gave it; `peer` its IP address, empty for a Unix socket; `hostname` ours;
    `protocol` the word of RFC 3848 (ESMTPSA and so on); `epoch` when it came, in seconds.
    """

    helo: str
    peer: str
    hostname: str
    protocol: str
    queue_id: str
    recipients: tuple[Recipient, ...]
    epoch: float


def received(trace: Trace) -> bytes:
    """The Received field of RFC 5321 §4.4, folded.

    `for` is given with one recipient only: it would show blind copies to the others (RFC 5321 §7.6). The login is
    nobody's business but ours.
    """
    recipient = f"\r\n\tfor <{trace.recipients[0]}>; " if len(trace.recipients) == 1 else ";\r\n\t"
    way = _way(trace.helo, trace.peer, trace.hostname, trace.protocol)
    return f"{way}{trace.queue_id}{recipient}{_date(int(trace.epoch))}\r\n".encode("ascii")


@lru_cache(maxsize=1)  # of a busy second only the first message pays for it
def _date(epoch: int) -> str:
    return format_datetime(datetime.fromtimestamp(epoch, UTC))


def prepare(content: Content, trace: Trace) -> Content:
    """The content as it leaves. `longest_line` and `eight_bit` may still count a field that was taken out."""
    line = received(trace)
    return Content(
        line + headers.without_blind_copies(content.header),
        content.body,
        max(content.longest_line, *map(len, line.splitlines())),
        content.eight_bit,
    )


@lru_cache(maxsize=256)
def _way(helo: str, peer: str, hostname: str, protocol: str) -> str:
    """How messages come that are of one session, up to their queue ids."""
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
