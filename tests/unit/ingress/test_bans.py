"""Failed logins: how late they are told, and when AUTH is closed, to whom and to whom not."""

import pytest

from relay.ingress import bans
from relay.ingress.bans import FailedLogins


def books() -> FailedLogins:
    return FailedLogins(allowed=10, seconds=600.0)


def fail(book: FailedLogins, client: str, login: str, times: int, *, now: float = 0.0, on_host: bool = False) -> bool:
    """Whether AUTH was closed in the end."""
    return [book.failed(client, login, now, on_host=on_host)[1] for _ in range(times)][-1]


def test_each_failure_is_told_later_than_the_one_before():
    """From a second to eight, whatever session they come in; another login begins anew."""
    book = books()
    delays = [book.failed("192.0.2.1", "app", 0.0, on_host=False)[0] for _ in range(6)]

    assert delays == [1, 2, 4, 8, 8, 8]
    assert book.failed("192.0.2.1", "other", 0.0, on_host=False)[0] == 1


def test_a_program_with_an_old_password_closes_its_own_login_and_no_other():
    """Ten failures: closed for that client with that login, for ten minutes."""
    book = books()
    assert not fail(book, "192.0.2.1", "app", 9)
    assert fail(book, "192.0.2.1", "app", 1, now=60.0)

    assert book.closed("192.0.2.1", "app", 61.0) == pytest.approx(599)
    assert book.closed("192.0.2.1", "app", 660.0) == 0
    assert book.closed("192.0.2.1", "other", 61.0) == 0
    assert book.closed("192.0.2.2", "app", 61.0) == 0


def test_failures_that_are_far_apart_do_not_add_up():
    """Somebody mistypes a password every quarter of an hour."""
    book = books()

    assert not any(fail(book, "192.0.2.1", "app", 1, now=900.0 * number) for number in range(50))


def test_a_success_forgives():
    """What was wrong before it does not count any more."""
    book = books()
    fail(book, "192.0.2.1", "app", 9)
    book.succeeded("192.0.2.1", "app")

    assert not fail(book, "192.0.2.1", "app", 9)


def guess(book: FailedLogins, client: str, *, on_host: bool = False) -> bool:
    """Whether thirty logins, each tried once, are too many."""
    return sum(fail(book, client, f"user{number}", 1, on_host=on_host) for number in range(30)) > 0


def test_a_client_that_tries_many_logins_is_closed_out():
    """Thirty failures: any login, but for one that it has logged in with before."""
    book = books()
    book.succeeded("192.0.2.1", "known")
    assert guess(book, "192.0.2.1")

    assert book.closed("192.0.2.1", "fresh", 1.0) > 0
    assert book.closed("192.0.2.1", "known", 1.0) == 0
    assert book.closed("192.0.2.2", "fresh", 1.0) == 0


def test_this_host_is_not_closed_out_as_a_whole():
    """Its programs have nothing to do with each other."""
    book = books()
    assert not guess(book, "127.0.0.1", on_host=True)

    assert book.closed("127.0.0.1", "fresh", 1.0) == 0


def test_a_login_that_is_guessed_from_everywhere_is_closed_but_not_where_it_is_used():
    """A hundred failures from a hundred addresses: nobody can lock out the application whose login it is."""
    book = books()
    book.succeeded("192.0.2.1", "app")
    assert sum(fail(book, f"198.51.100.{number}", "app", 1) for number in range(100)) == 1

    assert book.closed("203.0.113.9", "app", 1.0) > 0
    assert book.closed("203.0.113.9", "other", 1.0) == 0
    assert book.closed("192.0.2.1", "app", 1.0) == 0


def test_the_books_are_bounded(monkeypatch):
    """However many clients and logins there are."""
    monkeypatch.setattr(bans, "REMEMBERED", 50)
    book = books()
    for number in range(500):
        book.failed(f"client{number}", f"user{number}", 0.0, on_host=False)
        book.succeeded(f"client{number}", f"user{number}")

    assert len(book._records) <= 50
    assert len(book._known) <= 50


def test_no_login_is_kept_as_it_is():
    """Some put their password in its place."""
    book = books()
    book.failed("192.0.2.1", "a-secret", 0.0, on_host=False)

    assert "a-secret" not in repr(book._records)
