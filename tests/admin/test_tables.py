"""What people see of the queue: good at 80 columns, and harmless whatever the mail says."""

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from relay.admin.tables import details, listing, printable, size, span

NOW = datetime(2026, 11, 25, 10, 50, tzinfo=UTC)


def message(**changes) -> dict:
    """A message as the admin server shows it."""
    return {
        "id": "1M895776EPH3VG",
        "state": "queued",
        "identity": "default",
        "credential": "default",
        "subaccount": None,
        "login": "SMTP_Injection",
        "reverse_path": "a@example.com",
        "size": 2134,
        "accepted": "2026-11-25T10:38:00.000Z",
        "due": "2026-11-25T10:53:00.000Z",
        "attempts": 2,
        "possibly_sent_twice": False,
        "reason": None,
        "finished": None,
        "recipients": [{"address": "b@example.net", "state": "pending", "reply": "451 4.3.0 try again"}],
        "history": [],
        "header": "Subject: hello\r\n",
    } | changes


def shown(renderable) -> str:
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=False, markup=False, highlight=False).print(renderable)
    return out.getvalue()


def lines(renderable) -> list[str]:
    return [line.rstrip() for line in shown(renderable).splitlines()]


def test_a_list_fits_in_80_columns():
    """Long addresses go on in the next line; a reply is cut."""
    long = f"{'x' * 60}@{'y' * 60}.example.com"
    text = lines(listing([message(reverse_path=long, attempts=1234, size=19_999_999, state="delivered")], NOW))

    assert all(len(line) <= 80 for line in text)
    assert "".join(line.split()[-1] for line in text[1:-2]).endswith("example.com")


def test_a_row_says_where_a_message_is():
    """Age, when it is due, tries, size, from and to."""
    assert lines(listing([message()], NOW)) == [
        "ID             STATE  AGE DUE TRIES SIZE MAIL",
        "1M895776EPH3VG queued 12m  3m     2 2.1k a@example.com",
        "                                         -> b@example.net",
        "                                         451 4.3.0 try again",
    ]


def test_of_several_recipients_the_telling_one_is_shown():
    """Who still waits for what is queued, who was refused for what has failed."""
    both = [
        {"address": "ok@example.net", "state": "delivered", "reply": "250 OK"},
        {"address": "waits@example.net", "state": "pending", "reply": None},
        {"address": "bad@example.net", "state": "bounced", "reply": "550 no"},
    ]

    assert "-> waits@example.net and 2 more" in shown(listing([message(recipients=both)], NOW))
    assert "-> bad@example.net and 2 more" in shown(listing([message(recipients=both, state="failed")], NOW))


def test_a_null_reverse_path_and_a_lost_content_are_named():
    """`<>`, and no header where there is none."""
    text = shown(details(message(reverse_path="", header=None, state="delivered", login=None), NOW))

    assert "from        <>" in text
    assert "its content is not kept any more" in text
    assert "its credential is not configured any more" in text


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2028\r\n\ttab [bold]markup[/bold] \\x41"


def test_nothing_in_a_message_controls_the_terminal():
    """Wherever it stands: in addresses, replies, reasons, history and header."""
    recipients = [{"address": HOSTILE, "state": "pending", "reply": HOSTILE}]
    line = {
        "attempt": 1,
        "time": "2026-11-25T10:38:00.000Z",
        "endpoint": HOSTILE,
        "outcome": "deferred",
        "phase": "mail",
        "reply": HOSTILE,
        "recipients": [HOSTILE],
    }
    hostile = message(
        reverse_path=HOSTILE,
        reason=HOSTILE,
        recipients=recipients,
        history=[line, line],
        header=f"Subject: {HOSTILE}\r\n",
    )
    for text in (shown(listing([hostile], NOW)), shown(details(hostile, NOW))):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert "[bold]" in text


@given(st.text())
def test_printable_text_is_printable(text):
    """Any text at all; what was printable before stays as it is."""
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (3599, "60m"), (3600, "1h"), (86400, "1d"), (1e6, "12d")],
)
def test_a_duration_in_a_few_characters(seconds, text):
    """The largest unit that fits."""
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("octets", "text"), [(0, "0"), (999, "999"), (1000, "1.0k"), (9999, "10.0k"), (10_000, "10k"), (2_000_000, "2.0M")]
)
def test_a_size_in_a_few_characters(octets, text):
    """Decimal units, as the configuration has them."""
    assert size(octets) == text
