"""A leniency is named once a day for each client, in bounded memory."""

from relay.core.tolerance import Tolerance
from relay.ingress import oddities
from relay.ingress.oddities import Oddities


def test_once_a_day_for_each_client_and_kind():
    """And again on the next day."""
    book = Oddities()

    assert book.worth_naming("192.0.2.1", Tolerance.BARE_LF, 0.0)
    assert not book.worth_naming("192.0.2.1", Tolerance.BARE_LF, 86_399.0)
    assert book.worth_naming("192.0.2.1", Tolerance.NUL, 86_399.0)
    assert book.worth_naming("192.0.2.2", Tolerance.BARE_LF, 86_399.0)
    assert book.worth_naming("192.0.2.1", Tolerance.BARE_LF, 86_400.0)


def test_the_book_is_bounded(monkeypatch):
    """However many clients there are."""
    monkeypatch.setattr(oddities, "REMEMBERED", 100)
    book = Oddities()
    for number in range(1000):
        book.worth_naming(f"client{number}", Tolerance.BARE_LF, float(number))

    assert len(book._named) == 100
    assert not book.worth_naming("client999", Tolerance.BARE_LF, 1000.0)
