"""Messages, and what becomes of them, for tests that have nothing to say about their particulars."""

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.lifecycle import Event, Fate, Settlement, Verdict
from relay.core.login import Assignment
from relay.core.message import Content, MemoryBody, Message
from relay.core.ports import Drafts
from relay.core.spooled import Deposit, Record
from relay.ingress.body import StoredBody
from relay.spool.content import INLINE_LIMIT

HEADER = b"From: a@example.com\r\nSubject: test\r\n"
SMALL = b"\r\nhello\r\n"
LARGE = b"\r\n" + b"0123456789abcdef" * (INLINE_LIMIT // 16) + b"\r\n"

MAX_AGE = 3 * 24 * 3600.0


def message(queue_id: str, *, recipients: int = 1, body: bytes = SMALL, null_sender: bool = False) -> Message:
    """A message to b0@, b1@ … with the body that is given."""
    envelope = Envelope(
        ReversePath(None if null_sender else Address("a", "example.com")),
        tuple(Recipient(Address(f"b{number}", "example.net"), "FAILURE", None) for number in range(recipients)),
        body="8BITMIME",
        ret="HDRS",
        envid="QQ314159",
    )
    return Message(queue_id, envelope, Content(HEADER, MemoryBody(body), 76, eight_bit=False))


def in_draft(deposit: Deposit, drafts: Drafts) -> Deposit:
    """The same with its body in a draft, as it comes when it is large."""
    message = deposit.message
    body = StoredBody(drafts=drafts)
    for octets in message.content.body.chunks():
        body.append(octets)
    assert not body.in_memory, "in_draft is for LARGE bodies"
    return deposit._replace(message=message._replace(content=message.content._replace(body=body)))


def deposit(
    queue_id: str,
    *,
    recipients: int = 1,
    body: bytes = SMALL,
    credential: str = "default",
    subaccount: int | None = None,
    claimed: bool = False,
    record: Record | None = None,
    max_age: float = MAX_AGE,
) -> Deposit:
    """A message to be stored, received at a time nobody looks at."""
    return Deposit(
        message=message(queue_id, recipients=recipients, body=body),
        assignment=Assignment("shop", credential, subaccount),
        received=1_800_000_000.0,
        max_age=max_age,
        claimed=claimed,
        record=record,
    )


def verdict(number: int, fate: Fate) -> Verdict:
    """One recipient after an attempt, with a reply that fits."""
    said = {
        Fate.PENDING: ("deferred", "421 4.3.0 later"),
        Fate.DELIVERED: ("delivered", "250 2.0.0 OK 1F/2E"),
        Fate.BOUNCED: ("bounced", "550 5.1.1 unknown"),
        Fate.EXPIRED: ("expired", "421 4.3.0 later"),
    }
    outcome, reply = said[fate]
    return Verdict(number, fate, outcome, "dot", reply, "1F/2E" if fate is Fate.DELIVERED else None)


def record(event: Event, *fates: Fate, delay: float = 0.0, notice: Deposit | None = None) -> Record:
    """What an attempt came to: the fates of recipients 0, 1, …"""
    verdicts = tuple(verdict(number, fate) for number, fate in enumerate(fates))
    return Record(Settlement(event, verdicts, delay=delay, reason=f"it was said to {event}"), "127.0.0.1:587", notice)


def delivered(recipients: int = 1) -> Record:
    return record(Event.DELIVER, *[Fate.DELIVERED] * recipients)


def deferred(recipients: int = 1, *, delay: float = 5.0) -> Record:
    return record(Event.DEFER, *[Fate.PENDING] * recipients, delay=delay)


def bounced(recipients: int = 1) -> Record:
    return record(Event.FAIL, *[Fate.BOUNCED] * recipients)
