"""May it pass: what a decision allows, asked at MAIL, at RCPT and after the final dot. None means yes."""

from typing import Final

from relay.core import headers, reply
from relay.core.envelope import ReversePath
from relay.core.reply import Reply
from relay.policy.identity import Decision, sender_allowed

MAX_HOPS: Final = 100  # RFC 5321 §6.3: "a large rejection threshold, normally at least 100 Received entries"


def reverse_path(decision: Decision, path: ReversePath) -> Reply | None:
    """At MAIL. The null reverse-path is always allowed: reports about mail have no other (RFC 5321 §4.5.5)."""
    if path.address is None or sender_allowed(decision, path.address):
        return None
    return reply.sender_not_allowed("reverse-path", str(path), decision.assignment.identity)


def recipient_limit(decision: Decision, limit: int) -> int:
    """At RCPT: how many recipients a message may have; `limit` is the one for everybody."""
    return min(limit, decision.max_recipients)


def content(decision: Decision, header: bytes) -> Reply | None:
    """At the end of data: no loop, and a header From that the identity may use."""
    # A search for octets is much faster than one for the field, and says enough of nearly all messages.
    if header.lower().count(b"received") >= MAX_HOPS and headers.count_received(header) >= MAX_HOPS:
        return reply.LOOP
    if not decision.senders:
        return None
    identity = decision.assignment.identity
    addresses = headers.from_addresses(header)
    if addresses is None:
        return reply.header_from_unusable(identity)
    strange = next((address for address in addresses if not sender_allowed(decision, address)), None)
    return None if strange is None else reply.sender_not_allowed("header From", str(strange), identity)
