"""What a session bears of a client that brings no mail."""

import pytest

from relay.core import reply
from relay.ingress.patience import Patience


def last_straw(act, *, most: int = 200_000) -> int:
    """How often it takes to be too often."""
    return next(number for number in range(1, most) if act())


@pytest.mark.parametrize(
    ("verb", "answer", "times"),
    [
        ("", reply.UNKNOWN_COMMAND, 20),
        ("MAIL", reply.MAIL_SYNTAX, 20),
        ("MAIL", reply.too_many_messages("app", 1, "minute", 3), 100),
        ("AUTH", reply.auth_unavailable("no route"), 100),
        ("RCPT", reply.too_many_recipients(1000), 100_001),
        ("RCPT", reply.NULL_RECIPIENT, 100_001),
    ],
)
def test_refusals_add_up(verb, answer, times):
    """Errors soon, what is only put off later, recipients very late."""
    patience = Patience()

    assert last_straw(lambda: patience.tried_by_refusal(verb, answer)) == times


def test_a_message_that_was_brought_is_no_trial():
    """A bulk sender is told 451 for each of its thousands while SparkPost is away."""
    patience = Patience()

    assert not any(patience.tried_by_refusal("DOT", reply.SPOOL_UNAVAILABLE) for _ in range(20_000))


def test_commands_without_mail_add_up():
    """A hundred; QUIT is always welcome."""
    patience = Patience()

    assert last_straw(lambda: patience.tried_by_command("NOOP")) == 101
    assert not patience.tried_by_command("QUIT")


def test_a_message_forgives():
    """What came before it does not count any more."""
    patience = Patience()
    for _ in range(19):
        patience.tried_by_refusal("", reply.UNKNOWN_COMMAND)
    patience.message_accepted()

    assert not any(patience.tried_by_refusal("", reply.UNKNOWN_COMMAND) for _ in range(19))


@pytest.mark.parametrize("answer", [reply.AUTH_FAILED, reply.auth_banned(60)])
def test_three_failed_logins_end_a_session(answer):
    """Those that were not even looked at, too."""
    patience = Patience()

    assert last_straw(lambda: patience.tried_by_login(answer)) == 3


def test_a_login_that_could_not_be_checked_is_nobodys_fault():
    """SparkPost was away."""
    patience = Patience()

    assert not any(patience.tried_by_login(reply.auth_unavailable("no route")) for _ in range(10))
