"""How many messages an identity may send: by the minute, by the day, each subaccount for itself."""

from hypothesis import given
from hypothesis import strategies as st

from relay.core.login import Assignment
from relay.policy import rates
from relay.policy.rates import Quotas, Rate, Window

APP = Assignment("app", "default", None)


def taken(quotas: Quotas, rate: Rate, now: float, times: int) -> int:
    """How many of so many messages may be sent now."""
    return sum(quotas.take(APP, rate, now) is None for _ in range(times))


def test_no_rate_is_no_limit():
    """Most identities have none, and nothing is counted for them."""
    quotas = Quotas()

    assert quotas.take(APP, None, 0.0) is None
    quotas.give_back(APP, None, 0.0)
    assert not quotas._windows


def test_a_minute():
    """So many in any 60 seconds; the reply says when there is room again."""
    quotas, rate = Quotas(), Rate(3, None)
    assert taken(quotas, rate, 30.0, 5) == 3

    refused = quotas.refusal(APP, rate, 40.5)
    assert str(refused) == "451 4.7.1 identity app may send 3 messages a minute, try again in 51 s"
    assert taken(quotas, rate, 90.9, 1) == 0
    assert taken(quotas, rate, 91.5, 5) == 3


def test_a_day():
    """It goes on beside the minute."""
    quotas, rate = Quotas(), Rate(10, 15)

    assert [taken(quotas, rate, now, 20) for now in (0.0, 62.0, 124.0, 86_000.0)] == [10, 5, 0, 0]
    assert "15 messages a day, try again in " in str(quotas.refusal(APP, rate, 86_000.0))
    assert taken(quotas, rate, 86_400.0 + 1440, 20) == 10


def test_what_was_refused_in_the_end_does_not_count():
    """Its place is given back."""
    quotas, rate = Quotas(), Rate(1, 1)
    for _ in range(5):
        assert taken(quotas, rate, 0.0, 1) == 1
        quotas.give_back(APP, rate, 0.0)

    assert taken(quotas, rate, 0.0, 2) == 1


def test_the_place_given_back_is_the_refused_messages_own():
    """It was counted long before the refusal, and others have been counted since."""
    quotas, rate = Quotas(), Rate(2, None)
    assert taken(quotas, rate, 0.5, 1) == 1
    assert taken(quotas, rate, 30.5, 1) == 1
    quotas.give_back(APP, rate, 0.5)
    assert taken(quotas, rate, 61.5, 3) == 1

    assert taken(quotas, rate, 100.5, 1) == 1
    quotas.give_back(APP, rate, 30.5)
    assert taken(quotas, rate, 100.5, 1) == 0


def test_each_subaccount_of_a_rule_has_its_own():
    """One tenant cannot use up the day of the others."""
    quotas, rate = Quotas(), Rate(1, None)

    assert quotas.take(Assignment("tenants", "default", 1), rate, 0.0) is None
    assert quotas.take(Assignment("tenants", "default", 2), rate, 0.0) is None
    assert quotas.take(Assignment("tenants", "default", 1), rate, 0.0) is not None


def test_the_books_are_bounded(monkeypatch):
    """However many subaccounts there are."""
    monkeypatch.setattr(rates, "REMEMBERED", 10)
    quotas = Quotas()
    for number in range(1, 100):
        quotas.take(Assignment("tenants", "default", number), Rate(1, 1), 0.0)

    assert len(quotas._windows) == 10


@given(
    steps=st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["take", "give back"]), st.integers(0, 5)), max_size=80),
    limit=st.integers(1, 6),
)
def test_a_window_never_lets_more_pass_than_its_limit(steps, limit):
    """In any 60 seconds, wherever they begin; and when the wait is over there is room."""
    window, now, passed = Window("minute", 60.0, limit), 0.0, []
    for pause, act, which in steps:
        now += pause
        wait = window.wait(now)
        assert 0 <= wait <= 61.0
        if act == "give back":
            if passed:
                window.take_back(passed.pop(-1 - which % len(passed)))
        elif wait == 0:
            window.add(now)
            passed.append(now)
        else:
            now += wait + 1e-6
            assert window.wait(now) == 0
        assert sum(at > now - 60.0 for at in passed) <= limit
