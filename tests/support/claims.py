"""Messages as the spool hands them out, for tests of what becomes of them."""

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.login import Assignment
from relay.core.message import Content, MemoryBody, Message
from relay.core.spooled import Claim
from tests.support.clock import NOON

HEADER = b"From: shop@example.com\r\nSubject: Your order\r\nX-Password: not for the log\r\n"


def recipient(address: str = "ann@example.net", **parameters: str | None) -> Recipient:
    return Recipient(Address.parse(address), **parameters)


def message(
    *recipients: Recipient, reverse_path: str = "shop@example.com", header: bytes = HEADER, **envelope: str | None
) -> Message:
    """A small message; without recipients, to one."""
    sender = ReversePath(Address.parse(reverse_path) if reverse_path else None)
    body = MemoryBody(b"\r\nThank you.\r\n")
    return Message(
        "0123456789ABCD",
        Envelope(sender, recipients or (recipient(),), **envelope),
        Content(header, body, longest_line=72, eight_bit=not header.isascii()),
    )


def claim(what: Message | None = None, *, attempts: int = 0, age_left: float = 1e6, **rest: object) -> Claim:
    """A claim on all recipients of a message, accepted an hour ago under `billing` for subaccount 7."""
    what = what or message()
    facts = {
        "assignment": Assignment("shop", "billing", 7),
        "pending": tuple(range(len(what.envelope.recipients))),
        "received": NOON - 3600,
        "failed_before": False,
    }
    return Claim(message=what, attempts=attempts, age_left=age_left, **(facts | rest))
