"""The DSN parameters of RFC 3461: what is taken, what is none, what they mean."""

import pytest

from relay.core.notification import from_xtext, is_envelope_id, is_notify, is_original_recipient, wants_failure


@pytest.mark.parametrize("value", ["NEVER", "never", "SUCCESS", "FAILURE,DELAY", "success,Failure,delay"])
def test_notify_is_never_or_a_list(value):
    """In any case (§4.1)."""
    assert is_notify(value)


@pytest.mark.parametrize("value", [None, "", "NEVER,FAILURE", "ALWAYS", "FAILURE,", ",", "FAILURE;DELAY", "FAIL"])
def test_what_is_no_notify(value):
    """NEVER stands alone (§4.1)."""
    assert not is_notify(value)


@pytest.mark.parametrize(
    "value", ["rfc822;b@example.com", "RFC822;b+2Btag@example.com", "utf-8;x", "x400;/C+3Dde/", "rfc822;" + "x" * 493]
)
def test_an_original_recipient_is_a_type_and_an_address_in_xtext(value):
    """Up to 500 characters (§4.2)."""
    assert is_original_recipient(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "b@example.com",
        ";b@x",
        "rfc822;",
        "rfc822;a+b@x",
        "rfc822;a+2b@x",
        "rfc822;a=b",
        "a b;c",
        f"a;{'x' * 499}",
    ],
)
def test_what_is_no_original_recipient(value):
    """A plus that is not followed by two capital hexadecimal digits is none (§4)."""
    assert not is_original_recipient(value)


@pytest.mark.parametrize(("value", "good"), [("Qq+2B", True), ("x" * 100, True), ("x" * 101, False), ("a+b", False)])
def test_an_envelope_id_is_xtext_of_at_most_100_characters(value, good):
    """§4.4."""
    assert is_envelope_id(value) is good
    assert not is_envelope_id(None)


@pytest.mark.parametrize(
    ("notify", "wanted"), [(None, True), ("NEVER", False), ("success,delay", False), ("Delay,Failure", True)]
)
def test_failures_are_reported_unless_somebody_has_said_otherwise(notify, wanted):
    """§4.1."""
    assert wants_failure(notify) is wanted


def test_xtext_is_read_back():
    """Each octet as a character."""
    assert from_xtext("rfc822;a+2Bb+3Dc+FC@example.com") == "rfc822;a+b=c\xfc@example.com"
