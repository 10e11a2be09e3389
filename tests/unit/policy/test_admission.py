"""May it pass: senders, recipients and loops."""

import pytest

from relay.core import reply
from relay.core.envelope import Address, ReversePath
from relay.core.login import Assignment
from relay.policy import admission
from relay.policy.identity import Decision
from relay.policy.patterns import MailPattern


def decision(*senders: str, max_recipients: int = 1000) -> Decision:
    patterns = tuple(map(MailPattern.compile, senders))
    return Decision(Assignment("billing", "default", None), patterns, max_recipients)


RESTRICTED = decision("*@a.example", "boss@b.example")


def test_a_strange_reverse_path_is_refused():
    """The reply names the address and the identity; what is listed passes."""
    assert admission.reverse_path(RESTRICTED, ReversePath(Address("x", "a.example"))) is None
    assert admission.reverse_path(RESTRICTED, ReversePath(Address("x", "b.example"))) == reply.sender_not_allowed(
        "reverse-path", "x@b.example", "billing"
    )


def test_the_null_reverse_path_is_always_allowed():
    """Reports about mail have no other."""
    assert admission.reverse_path(RESTRICTED, ReversePath(None)) is None


def test_without_senders_everything_passes():
    """No list, no restriction: the header From need not even be readable."""
    assert admission.reverse_path(decision(), ReversePath(Address("x", "b.example"))) is None
    assert admission.content(decision(), b"") is None
    assert admission.content(decision(), b"From: a@b.c\r\nFrom: <<<\r\n") is None


@pytest.mark.parametrize(("general", "own", "limit"), [(10, 1000, 10), (10, 5, 5)])
def test_the_lower_limit_of_recipients_counts(general, own, limit):
    """An identity can have less than everybody, never more."""
    assert admission.recipient_limit(decision(max_recipients=own), general) == limit


@pytest.mark.parametrize(
    ("header", "strange"),
    [
        (b"From: x@a.example\r\n", None),
        (b"From: The Boss <Boss@B.example>\r\n", None),
        (b"From: x@a.example, boss@b.example\r\n", None),
        (b"From: x@b.example\r\n", "x@b.example"),
        (b"From: x@a.example, x@b.example\r\n", "x@b.example"),
        (b"From: x@b.example <x@a.example>\r\n", "x@b.example"),
        (b"From: x@a.example.evil.test\r\n", "x@a.example.evil.test"),
    ],
)
def test_every_address_of_the_header_from_must_be_listed(header, strange):
    """One that is not is refused by name."""
    expected = None if strange is None else reply.sender_not_allowed("header From", strange, "billing")

    assert admission.content(RESTRICTED, header) == expected


@pytest.mark.parametrize(
    "header", [b"", b"Subject: x\r\n", b"From: x@a.example\r\nFrom: x@a.example\r\n", b"From: g:;\r\n"]
)
def test_listed_senders_need_one_readable_header_from(header):
    """Who cannot be read cannot be allowed."""
    assert admission.content(RESTRICTED, header) == reply.header_from_unusable("billing")


@pytest.mark.parametrize(("hops", "expected"), [(99, None), (100, reply.LOOP)])
def test_loops_are_cut(hops, expected):
    """At the hundredth Received line, whoever sends."""
    assert admission.content(decision(), b"Received: by x\r\n\ty\r\n" * hops) == expected
