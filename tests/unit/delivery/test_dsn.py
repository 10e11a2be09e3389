"""Telling the sender what failed: the bounce message as a mail reader parses it."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest

from relay.core.envelope import Address
from relay.core.lifecycle import Fate, Verdict
from relay.core.login import Assignment, Terms
from relay.core.mime import MAX_LINE
from relay.core.recode import must_recode, recode
from relay.core.spooled import Deposit
from relay.delivery.dsn import HEADER_LIMIT, Notices
from tests.support.claims import HEADER, claim, message, recipient
from tests.support.clock import NOON, HandClock

REFUSAL = "550 5.7.1 Unconfigured Sending Domain <example.com>"


def notices(sender: str | None = "bounces@example.com", to: str = "sender") -> Notices:
    terms = {"shop": Terms(queue=False, deadline=4, max_age=1000)}
    return Notices(hostname="relay.example.com", sender=sender, to=to, terms=terms.__getitem__, clock=HandClock())


def bounced(number: int = 0, reply: str = REFUSAL) -> Verdict:
    return Verdict(number, Fate.BOUNCED, "bounced", "dot", reply)


def expired(number: int = 0, reply: str = "450 4.2.1 busy mailbox") -> Verdict:
    return Verdict(number, Fate.EXPIRED, "expired", "rcpt", reply)


def told(deposit: Deposit | None) -> Deposit:
    assert deposit is not None
    return deposit


def octets(deposit: Deposit) -> bytes:
    return b"".join(deposit.message.content.chunks())


def parsed(deposit: Deposit | None) -> EmailMessage:
    """As a mail reader sees it; nothing in it is a defect."""
    whole = email.message_from_bytes(octets(told(deposit)), policy=email.policy.default)
    assert isinstance(whole, EmailMessage)
    for part in whole.walk():
        assert part.defects == []
    return whole


def status(deposit: Deposit | None) -> list[dict[str, Any]]:
    """The groups of fields: the message's, then each recipient's."""
    _, report, _ = parsed(deposit).iter_parts()
    groups = report.get_payload()
    assert isinstance(groups, list)
    return [dict(group.items()) for group in groups]


def about(*recipients_: Any, verdicts: tuple[Verdict, ...] = (bounced(),), to: str = "sender", **rest: Any) -> Any:
    return notices(to=to).about(claim(message(*recipients_, **rest)), verdicts)


# -- its form ---------------------------------------------------------------------------------------------------------


def test_it_is_a_delivery_status_report_in_three_parts() -> None:
    """RFC 3464: an explanation for people, fields for programs, the headers of the message."""
    whole = parsed(about())

    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in whole.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert whole["From"] == "Mail delivery <bounces@example.com>"
    assert whole["To"] == "shop@example.com"
    assert whole["Auto-Submitted"] == "auto-replied"
    assert whole["Message-ID"].endswith("@relay.example.com>")
    assert whole["Date"].datetime.timestamp() == NOON


def test_the_explanation_says_who_why_and_which_message() -> None:
    """In words that the sender understands, with the queue id that the operator asks for."""
    text = next(parsed(about(verdicts=(bounced(),))).iter_parts()).get_content()

    assert "0123456789ABCD" in text
    assert "<ann@example.net>, because:" in text
    assert REFUSAL in text


def test_the_fields_are_those_of_rfc_3464() -> None:
    """One group for the message, one for each recipient; the status is the one of the reply."""
    of_message, *of_recipients = status(
        about(recipient("ann@example.net"), recipient("bob@example.net"), verdicts=(bounced(0), bounced(1, "554 no")))
    )

    assert of_message["Reporting-MTA"] == "dns; relay.example.com"
    assert of_message["X-Relay-Queue-ID"] == "0123456789ABCD"
    assert "Arrival-Date" in of_message
    assert of_recipients == [
        {
            "Final-Recipient": "rfc822; ann@example.net",
            "Action": "failed",
            "Status": "5.7.1",
            "Diagnostic-Code": f"smtp; {REFUSAL}",
        },
        {
            "Final-Recipient": "rfc822; bob@example.net",
            "Action": "failed",
            "Status": "5.0.0",
            "Diagnostic-Code": "smtp; 554 no",
        },
    ]


def test_only_those_that_failed_are_named() -> None:
    """The others may have the message, or may still get it."""
    people = [recipient(f"{name}@example.net") for name in ("ann", "bob", "carl")]

    groups = status(about(*people, verdicts=(bounced(1),)))

    assert [group["Final-Recipient"] for group in groups[1:]] == ["rfc822; bob@example.net"]


@pytest.mark.parametrize(
    ("reply", "kind"), [("450 4.2.1 busy mailbox", "smtp"), ("closed after the final dot", "x-relay")]
)
def test_expired_mail_says_so(reply: str, kind: str) -> None:
    """4.4.7 (RFC 3463), whatever the last answer was; what no server has said is not called an SMTP reply."""
    deposit = about(verdicts=(expired(reply=reply),))
    (_, group), text = status(deposit), next(parsed(deposit).iter_parts()).get_content()

    assert group["Status"] == "4.4.7"
    assert group["Diagnostic-Code"] == f"{kind}; {reply}"
    assert "as long as a message may wait" in text


def test_the_parameters_of_the_envelope_come_back_as_they_were_meant() -> None:
    """RFC 3461 has them in xtext on the wire, and RFC 3464 without."""
    of_message, of_ann = status(about(recipient(orcpt="rfc822;ann+2Blist@example.net"), envid="QQ+2B314159"))

    assert of_message["Original-Envelope-Id"] == "QQ+314159"
    assert of_ann["Original-Recipient"] == "rfc822;ann+list@example.net"


def test_a_parameter_cannot_bring_in_lines_of_its_own() -> None:
    """CR and LF in xtext stay out of the fields, and so do they in replies."""
    groups = status(
        about(
            recipient(orcpt="rfc822;a+0D+0AAction:+20delivered"),
            envid="x+0D+0A+0D+0Ay",
            verdicts=(bounced(reply="550 5.0.0 no\r\nAction: delivered"),),
        )
    )

    assert len(groups) == 2
    assert groups[1]["Action"] == "failed"
    assert groups[0]["Original-Envelope-Id"] == "x????y"


# -- what it brings back ----------------------------------------------------------------------------------------------


def test_it_brings_back_the_headers_and_nothing_of_the_body() -> None:
    """Octet by octet."""
    deposit = about()

    assert HEADER in octets(deposit)
    assert b"Thank you" not in octets(deposit)


def test_eight_bit_headers_come_back_and_are_declared() -> None:
    """Where 8BITMIME is offered as they were, elsewhere re-encoded on the way out."""
    header = HEADER + "Subject: Grüße\r\n".encode()
    content = told(about(header=header)).message.content

    assert content.eight_bit
    assert header in octets(told(about(header=header)))
    assert parsed(about(header=header)).get_payload()[2]["Content-Transfer-Encoding"] == "8bit"
    assert b"".join(recode(content.chunks, eight_bit_ok=False)).isascii()


def test_over_long_header_lines_come_back_and_can_travel() -> None:
    """The content says how long its longest line is, so that it is re-encoded on the way out."""
    header = HEADER + b"X-Long: " + b"x" * 5000 + b"\r\n"
    content = told(about(header=header)).message.content

    assert content.longest_line == 5008
    assert must_recode(content.longest_line, eight_bit=content.eight_bit, eight_bit_ok=True)
    sent = b"".join(recode(content.chunks, eight_bit_ok=True))
    assert max(map(len, sent.split(b"\r\n"))) <= MAX_LINE
    returned = email.message_from_bytes(sent, policy=email.policy.default).get_payload()[2]
    assert b"X-Long: " + b"x" * 5000 in returned.get_payload(decode=True).replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    "header",
    [
        HEADER + b"X-Many: 1\r\n" * 10_000,
        HEADER + b"X-Long: " + b"x" * 100_000 + b"\r\n",
        b"X-Long: " + b"x" * 100_000 + b"\r\n",
        b"X-Edge: " + b"x" * (HEADER_LIMIT - 11) + b"\r\r\n" + HEADER,
    ],
    ids=["many lines", "long line last", "one long line", "at the edge"],
)
def test_of_a_very_large_header_the_beginning_comes_back(header: bytes) -> None:
    """In whole lines where there are any."""
    deposit = about(header=header)
    returned = octets(told(deposit)).partition(b"text/rfc822-headers")[2].partition(b"\r\n\r\n")[2]
    returned = returned[: returned.rindex(b"\r\n--=_")]

    assert returned
    assert len(returned) <= HEADER_LIMIT
    assert returned.endswith(b"\r\n")
    assert header.startswith(returned.removesuffix(b"\r\n"))


def test_an_original_without_any_header_has_its_report_too() -> None:
    """There is nothing to bring back, and still something to tell."""
    assert len(status(about(header=b""))) == 2


# -- where it goes, and when there is none ----------------------------------------------------------------------------


def test_it_goes_to_the_reverse_path_from_nobody() -> None:
    """With the null reverse-path, so that no report about it can come back (RFC 5321 §4.5.5)."""
    envelope = told(about()).message.envelope

    assert envelope.reverse_path.address is None
    assert [str(one) for one in envelope.recipients] == ["shop@example.com"]


def test_it_goes_to_a_fixed_address_where_one_is_configured() -> None:
    """Instead of the reverse-path."""
    deposit = about(to="postmaster@example.com")

    assert [str(one) for one in told(deposit).message.envelope.recipients] == ["postmaster@example.com"]
    assert parsed(deposit)["To"] == "postmaster@example.com"


def test_it_travels_as_the_message_did() -> None:
    """Under the same identity, credential and subaccount, with that identity's time to live, from now on."""
    deposit = told(about())

    assert deposit.assignment == Assignment("shop", "billing", 7)
    assert deposit.max_age == 1000
    assert deposit.received == NOON
    assert deposit.record is None
    assert not deposit.claimed


def test_each_has_a_queue_id_of_its_own() -> None:
    """It is a message like any other."""
    one, other = told(about()).message.queue_id, told(about()).message.queue_id

    assert len({one, other, "0123456789ABCD"}) == 3
    assert len(one) == 14


@pytest.mark.parametrize("to", ["sender", "postmaster@example.com"])
def test_nobody_is_told_about_mail_from_nobody(to: str) -> None:
    """A report about a report would loop; a fixed address makes no difference."""
    assert about(reverse_path="", to=to) is None


def test_the_failure_of_a_report_makes_no_report() -> None:
    """It has the null reverse-path, so it just becomes a dead letter."""
    report = told(about()).message

    assert notices().about(claim(report), [bounced()]) is None


def test_without_an_address_to_send_from_there_is_none() -> None:
    """SparkPost takes mail from verified domains only, so the operator has to name one."""
    assert notices(sender=None).about(claim(), [bounced()]) is None


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        (None, True),
        ("NEVER", False),
        ("never", False),
        ("SUCCESS,DELAY", False),
        ("FAILURE", True),
        ("success,failure", True),
    ],
)
def test_a_recipient_may_ask_not_to_be_reported(notify: str | None, wanted: bool) -> None:
    """NOTIFY of RFC 3461 §4.1."""
    assert (about(recipient(notify=notify)) is not None) is wanted


def test_who_asked_not_to_be_reported_is_not_named_beside_others() -> None:
    """Each recipient has a NOTIFY of its own."""
    people = recipient("ann@example.net", notify="NEVER"), recipient("bob@example.net")

    _, group = status(about(*people, verdicts=(bounced(0), bounced(1))))

    assert group["Final-Recipient"] == "rfc822; bob@example.net"


def test_odd_addresses_stay_what_they_are() -> None:
    """A quoted local part with everything that could be taken for syntax."""
    odd = r'"a;b>, \"c\" d"@example.net'

    _, group = status(about(recipient(odd)))

    assert group["Final-Recipient"] == f"rfc822; {odd}"
    assert Address.parse(odd)
