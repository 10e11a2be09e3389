"""How rules name logins and senders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.envelope import Address
from relay.core.login import MAX_SUBACCOUNT
from relay.policy.patterns import LoginPattern, MailPattern


@pytest.mark.parametrize(
    ("pattern", "login", "matches"),
    [
        ("billing", "billing", True),
        ("billing", "Billing", False),
        ("billing", "billing2", False),
        ("app-*", "app-", True),
        ("app-?", "app-", False),
        ("app-?", "app-1", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("tenant-{subaccount}", "tenant-1", True),
        ("tenant-{subaccount}", "tenant-", False),
        ("tenant-{subaccount}", "tenant-0", False),
        ("tenant-{subaccount}", "tenant-01", False),
        ("tenant-{subaccount}", "tenant--1", False),
        ("tenant-{subaccount}", "tenant-12x", False),
        ("tenant-{subaccount}", f"tenant-{MAX_SUBACCOUNT}", True),
        ("tenant-{subaccount}", f"tenant-{MAX_SUBACCOUNT + 1}", False),
        ("tenant-{subaccount}", "tenant-\u0661", False),
        ("{subaccount}@*", "7@example.com", True),
    ],
)
def test_logins(pattern, login, matches):
    """Case counts, only `*` and `?` are wild, and `{subaccount}` stands for a number that can be one."""
    assert LoginPattern.compile(pattern).matches(login) is matches


@given(st.integers(1, MAX_SUBACCOUNT))
def test_a_subaccount_is_captured(number):
    """The number in the login is the subaccount."""
    pattern = LoginPattern.compile("tenant-{subaccount}@*")

    assert pattern.subaccount(f"tenant-{number}@example.com") == number


def test_nothing_is_captured_without_a_capture():
    """A fixed login names no subaccount, and neither does a login of another form."""
    assert LoginPattern.compile("tenant-*").subaccount("tenant-5") is None
    assert LoginPattern.compile("tenant-{subaccount}").subaccount("5") is None


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("*@example.com", "a@example.com", True),
        ("*@example.com", "a@EXAMPLE.com.", True),
        ("*@example.com", "a@sub.example.com", False),
        ("*@example.com", "a@example.com.evil.test", False),
        ("*@example.com", "a@exampleXcom", False),
        ("*@*.example.com", "a@x.y.example.com", True),
        ("*@*.example.com", "a@example.com", False),
        ("billing@example.com", "Billing@example.com", True),
        ("app-?@example.com", "app-1@example.com", True),
        ("app-?@example.com", "app-12@example.com", False),
        ("*", "a@b.c", True),
        ("app@*", '"app@good.test"@evil.test', False),
        ("*@good.test", '"a@good.test"@evil.test', False),
        ('"a b"@c.d', '"a b"@c.d', True),
        ("*@[192.0.2.1]", "a@[192.0.2.1]", True),
        ("<>", "a@b.c", False),
    ],
)
def test_addresses(pattern, address, matches):
    """Both sides are compared on their own, without regard to case."""
    assert MailPattern.compile(pattern).matches(Address.parse(address)) is matches


@pytest.mark.parametrize(("pattern", "matches"), [("<>", True), ("*", False), ("*@*", False)])
def test_the_null_reverse_path_has_a_pattern_of_its_own(pattern, matches):
    """`*` stands for any address, and null is none."""
    assert MailPattern.compile(pattern).matches(None) is matches


def test_patterns_are_quoted_as_they_were_written():
    """Explanations show the configuration's own words."""
    assert str(MailPattern.compile("*@Example.com")) == "*@Example.com"
    assert str(LoginPattern.compile("t-{subaccount}")) == "t-{subaccount}"
