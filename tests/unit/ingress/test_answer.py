"""One reply out of all outcomes: whose words the application hears, in which class, with which hint."""

import pytest

from relay.core.envelope import Address, Recipient
from relay.core.login import Assignment
from relay.core.outcome import Answer, Fact, Failure, FailureKind, Phase, classify, defect
from relay.core.ports import AttemptReport
from relay.core.reply import MAX_LINE, Reply
from relay.ingress.answer import answer

ASSIGNMENT = Assignment("default", "billing", None)
B, C, D = (Recipient(Address(name, "example.net")) for name in "bcd")
OK = Answer(Phase.DOT, Reply.parse(250, ["2.0.0 OK 95/6F-30607-EA5D4555"]))
GONE = Failure(Phase.DOT, FailureKind.LOST, "connection closed at DOT")
WITHHELD = Failure(Phase.RCPT, FailureKind.WITHHELD, "not sent, because another recipient was refused")


def said(phase: Phase, text: str) -> Answer:
    return Answer(phase, Reply.parse(int(text[:3]), [text[4:]]))


def heard(*facts: Fact) -> str:
    outcomes = tuple((recipient, classify(fact)) for recipient, fact in zip((B, C, D), facts, strict=False))
    return str(answer(AttemptReport(outcomes), "QID", ASSIGNMENT))


def test_250_is_sparkposts_own():
    """Its text with its id, and ours behind it."""
    assert heard(OK) == "250 2.0.0 OK 95/6F-30607-EA5D4555 (QID)"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("550 5.7.1 Unconfigured Sending Domain <x.example>", "must be a verified sending domain"),
        ("550 5.7.1 Unconfigured Sending Domain <sparkpostbox.com>", "cannot be used over SMTP"),
        ("550 5.6.0 JSON parsing error in X-MSYS-API", "the X-MSYS-API header of the message is not valid"),
        ("550 5.6.0 smtpapi_campaign_id context is limited to 64 bytes", "the X-MSYS-API header"),
        ("550 5.7.1 Account suspended", "the SparkPost account or subaccount is suspended"),
        ("451 4.7.1 Exceed Sending Limit (hourly)", "the sending limit of the SparkPost plan is reached"),
    ],
)
def test_a_known_cause_gets_a_hint(text, hint):
    """SparkPost's words stay in front, untouched."""
    reply = heard(said(Phase.DOT, text))

    assert reply.startswith(f"{text} [")
    assert hint in reply
    assert reply.endswith("] (QID)")


@pytest.mark.parametrize(
    ("fact", "begins"),
    [
        (said(Phase.DOT, "550 5.1.1 nobody"), "550 5.1.1 nobody (QID)"),
        (said(Phase.DOT, "552 5.3.4 message size limit exceeded"), "552 5.3.4 message"),
        (said(Phase.MAIL, "452 4.3.1 full"), "452 4.3.1 full (QID)"),
        (said(Phase.DOT, "550 5.7.1 Exceed Sending Limit (daily)"), "451 4.7.1 Exceed Sending Limit (daily) ["),
        (said(Phase.RCPT, "552 5.5.3 too many recipients"), "451 4.5.3 too many recipients"),
        (said(Phase.DOT, "421 4.3.3 not now"), "451 4.4.1 SparkPost cannot be reached: 421 4.3.3 not now"),
        (said(Phase.AUTH, "454 4.7.0 not now"), "451 4.4.1 SparkPost cannot be reached: 454"),
        (said(Phase.AUTH, "535 5.7.8 Sorry."), "451 4.3.5 SparkPost refused the relay's credential billing: 535 5.7.8"),
        (said(Phase.RCPT, "550 5.7.1 relaying denied"), "451 4.3.5 SparkPost refused the relay's credential billing"),
        (said(Phase.MAIL, "530 5.7.0 TLS first"), "451 4.3.5 SparkPost refused the relay's credential billing"),
        (said(Phase.MAIL, "503 5.5.1 nested MAIL"), "451 4.3.5 SparkPost and the relay disagree: 503"),
        (said(Phase.EHLO, "550 5.7.1 no"), "451 4.3.5 SparkPost and the relay disagree: 550"),
        (Failure(Phase.CONNECT, FailureKind.REFUSED, "connection refused"), "451 4.4.1 SparkPost cannot be reached: "),
        (defect(sent=False), "451 4.3.0 internal error in the relay, try again later (QID)"),
        (
            defect(sent=True),
            "451 4.4.2 SparkPost fell silent after the final dot (internal error in the relay), it may",
        ),
        (GONE, "451 4.4.2 SparkPost fell silent after the final dot (connection closed at DOT), it may be delivered"),
    ],
)
def test_whose_fault_it_is(fact, begins):
    """The message's: SparkPost's own code. Ours, or the moment's: 451."""
    assert heard(fact).startswith(begins)


@pytest.mark.parametrize(
    ("facts", "begins"),
    [
        ((OK, OK), "250 "),
        ((WITHHELD, said(Phase.RCPT, "550 5.1.1 nobody")), "550 5.1.1 nobody [<c@example.net>, nothing was sent]"),
        ((said(Phase.RCPT, "550 5.1.1 no"), said(Phase.RCPT, "551 5.1.6 moved"), WITHHELD), "550 5.1.1 no [<b@"),
        ((said(Phase.RCPT, "550 5.1.1 no"), WITHHELD, said(Phase.RCPT, "450 4.2.1 busy")), "450 4.2.1 busy [<d@"),
        ((GONE, GONE), "451 4.4.2 "),
    ],
)
def test_several_recipients_have_one_answer(facts, begins):
    """What may have been delivered first, then what may pass later, then the first that never will."""
    assert heard(*facts).startswith(begins)


def test_words_that_are_too_many_are_cut_and_the_id_stays():
    """One line of 512 octets, whatever SparkPost says."""
    outcome = classify(said(Phase.DOT, "550 5.7.1 Account suspended " + "x" * 2000))
    line = answer(AttemptReport(((B, outcome),)), "QID", ASSIGNMENT).wire()

    assert len(line) <= MAX_LINE
    assert line.endswith(b"x... [the SparkPost account or subaccount is suspended] (QID)\r\n")
