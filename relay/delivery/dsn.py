"""Telling the sender what failed: a delivery status notification (RFC 3464), stored together with the failure itself.

None is made where nobody is to be told: without `bounces.from`, for the null reverse-path (RFC 5321 §4.5.5: a report
about a report would loop), for recipients whose NOTIFY parameter excludes failures (RFC 3461 §4.1). A DSN has the null
reverse-path itself, travels under the login of the mail it is about, and brings back headers only.
"""

import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.lifecycle import Fate, Verdict
from relay.core.login import Terms
from relay.core.message import Content, MemoryBody, Message, queue_id_of
from relay.core.notification import from_xtext, wants_failure
from relay.core.ports import Clock
from relay.core.spooled import Claim, Deposit

TO_SENDER: Final = "sender"
HEADER_LIMIT: Final = 65_536  # octets of the original's header section that are brought back
LINE_LIMIT: Final = 900  # characters of a reply that are repeated; a line has 998 (RFC 5322 §2.1.1)

_REPLY: Final = re.compile(r"[245]\d\d(?: ([245]\.\d{1,3}\.\d{1,3})\b)?")
_TOO_OLD: Final = "4.4.7"  # RFC 3463: delivery time expired
_UNKNOWN: Final = "5.0.0"


class Notices:
    """Makes the DSN about a message, if there is to be one.

    `sender` is the address it comes from, on a verified sending domain, None for no DSN at all; `to` is an address, or
    "sender" for the reverse-path of the failed message; `terms` are those of an identity.
    """

    def __init__(
        self, *, hostname: str, sender: str | None, to: str, terms: Callable[[str], Terms], clock: Clock
    ) -> None:
        self._hostname = hostname
        self._sender = sender
        self._to = None if to == TO_SENDER else Address.parse(to)
        self._terms = terms
        self._clock = clock

    def about(self, claim: Claim, failed: Sequence[Verdict]) -> Deposit | None:
        """The DSN that tells of these recipients' failure, ready to be stored."""
        envelope = claim.message.envelope
        told = [verdict for verdict in failed if wants_failure(envelope.recipients[verdict.number].notify)]
        if self._sender is None or envelope.reverse_path.address is None or not told:
            return None
        to = self._to or envelope.reverse_path.address
        now = self._clock.now()
        queue_id = queue_id_of(now, int.from_bytes(os.urandom(4), "big"))
        octets = self._compose(claim, told, to, now, queue_id)
        end = octets.index(b"\r\n\r\n") + 2
        content = Content(
            header=octets[:end],
            body=MemoryBody(octets[end:]),
            longest_line=max(map(len, octets.split(b"\r\n"))),
            eight_bit=not octets.isascii(),
        )
        return Deposit(
            message=Message(queue_id, Envelope(ReversePath(None), (Recipient(to),)), content),
            assignment=claim.assignment,
            received=now,
            max_age=self._terms(claim.assignment.identity).max_age,
        )

    def _compose(self, claim: Claim, failed: Sequence[Verdict], to: Address, now: float, queue_id: str) -> bytes:
        original = claim.message
        boundary = f"=_{queue_id}"
        header = _cut(original.content.header)
        head = _lines(
            f"From: Mail delivery <{self._sender}>",
            f"To: <{to}>",
            "Subject: Your message could not be delivered",
            f"Date: {_date(now)}",
            f"Message-ID: <{queue_id}@{self._hostname}>",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            "Content-Type: multipart/report; report-type=delivery-status;",
            f'\tboundary="{boundary}"',
        )
        explanation = _lines(
            "Content-Type: text/plain; charset=us-ascii",
            "",
            f"This is the mail relay at {self._hostname}.",
            "",
            f"Your message of {_date(claim.received)} (queue id {original.queue_id})",
            "could not be delivered to:",
            "",
            *(line for verdict in failed for line in _in_words(original.envelope.recipients[verdict.number], verdict)),
            "It will not be tried again. The headers of your message are attached.",
        )
        status = _lines(
            "Content-Type: message/delivery-status",
            "",
            f"Reporting-MTA: dns; {self._hostname}",
            *([f"Original-Envelope-Id: {_decoded(original.envelope.envid)}"] if original.envelope.envid else []),
            f"Arrival-Date: {_date(claim.received)}",
            f"X-Relay-Queue-ID: {original.queue_id}",
            *(line for verdict in failed for line in _fields(original.envelope.recipients[verdict.number], verdict)),
        )
        encoding = "8bit" if not header.isascii() else "7bit"
        returned = _lines("Content-Type: text/rfc822-headers", f"Content-Transfer-Encoding: {encoding}", "")
        separator = f"\r\n--{boundary}\r\n".encode("ascii")
        parts = separator.join([b"", explanation, status, returned + header])
        return head + parts + f"\r\n--{boundary}--\r\n".encode("ascii")


def _in_words(recipient: Recipient, verdict: Verdict) -> list[str]:
    cause = "it was tried for as long as a message may wait; the last answer was:" if _expired(verdict) else "because:"
    return [f"    <{recipient}>, {cause}", f"        {_ascii(verdict.reply)}", ""]


def _fields(recipient: Recipient, verdict: Verdict) -> list[str]:
    """The group of per-recipient fields (RFC 3464 §2.3)."""
    said = _REPLY.match(verdict.reply)
    status = _TOO_OLD if _expired(verdict) else said[1] if said and said[1] else _UNKNOWN
    kind = "smtp" if said else "x-relay"  # RFC 3464 §2.3.6: "smtp" is for what a server has said
    return [
        "",
        *([f"Original-Recipient: {_decoded(recipient.orcpt)}"] if recipient.orcpt else []),
        f"Final-Recipient: rfc822; {recipient}",
        "Action: failed",
        f"Status: {status}",
        f"Diagnostic-Code: {kind}; {_ascii(verdict.reply)}",
    ]


def _expired(verdict: Verdict) -> bool:
    return verdict.fate is Fate.EXPIRED


def _decoded(xtext: str) -> str:
    """An ENVID or ORCPT as it was meant (RFC 3461 §4); what does not belong in a line stays out of it."""
    return _ascii(from_xtext(xtext))


def _ascii(text: str) -> str:
    """Text that fits into one line of the DSN, whatever is in it."""
    return "".join(character if " " <= character <= "~" else "?" for character in text[:LINE_LIMIT])


def _date(epoch: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(epoch), UTC))


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _cut(header: bytes) -> bytes:
    """The header section, or as many whole lines of it as are brought back: at least the beginning of one."""
    if len(header) <= HEADER_LIMIT:
        return header
    end = header.rfind(b"\r\n", 0, HEADER_LIMIT)
    return (header[:end] if end > 0 else header[: HEADER_LIMIT - 2].rstrip(b"\r")) + b"\r\n"
