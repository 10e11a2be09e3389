"""When a deferred message is tried again, whatever the policy and however often it has been."""

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import Config
from relay.core.lifecycle import RetryPolicy, retry_delay
from relay.delivery import circuits

RNG = random.Random(7)

policies = st.builds(
    RetryPolicy,
    first=st.floats(0.001, 1e6),
    factor=st.floats(1, 1e6),
    longest=st.floats(0.001, 1e9),
    jitter=st.floats(0, 0.999),
)
counts = st.integers(1, 10**9)


def steady(first: float, factor: float, longest: float) -> RetryPolicy:
    return RetryPolicy(first, factor, longest, jitter=0)


@given(policies, counts, st.randoms(use_true_random=False))
def test_a_wait_is_never_longer_than_the_longest_and_its_jitter(
    policy: RetryPolicy, attempts: int, rng: random.Random
) -> None:
    """Nor is it ever none at all, or no number: a billion attempts overflow nothing."""
    wait = retry_delay(attempts, policy, rng)

    assert 0 < wait <= policy.longest * (1 + policy.jitter) * (1 + 1e-9)
    assert wait >= min(policy.first, policy.longest) * (1 - policy.jitter) * (1 - 1e-9)


@given(policies, counts, counts)
def test_without_jitter_no_wait_is_shorter_than_the_one_before(policy: RetryPolicy, one: int, another: int) -> None:
    """Patience grows until it is as long as it may be."""
    calm = steady(policy.first, policy.factor, policy.longest)
    earlier, later = sorted([one, another])

    assert retry_delay(earlier, calm, RNG) <= retry_delay(later, calm, RNG) * (1 + 1e-9)


@given(policies, counts, st.randoms(use_true_random=False))
def test_jitter_keeps_to_its_share(policy: RetryPolicy, attempts: int, rng: random.Random) -> None:
    """Chance moves a wait by its share at most, either way."""
    middle = retry_delay(attempts, steady(policy.first, policy.factor, policy.longest), RNG)

    assert retry_delay(attempts, policy, rng) == pytest.approx(middle, rel=policy.jitter + 1e-9)


def test_the_default_schedule_begins_at_five_seconds_and_doubles_to_half_an_hour() -> None:
    """As the configuration says, with its jitter taken out."""
    retry = Config.model_validate({}).delivery.retry
    calm = steady(retry.first, retry.factor, retry.max)

    waits = [retry_delay(attempts, calm, RNG) for attempts in range(1, 12)]

    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800])
    assert retry.jitter == 0.2


def test_mail_that_failed_together_does_not_come_back_together() -> None:
    """With jitter, waits after the same attempt are spread."""
    policy = RetryPolicy(5, 2, 1800, 0.2)
    waits = sorted(retry_delay(3, policy, RNG) for _ in range(200))

    assert waits[0] < 18
    assert waits[-1] > 22
    assert max(b - a for a, b in itertools.pairwise(waits)) < 1


def test_the_documentation_has_the_schedule_and_the_waits_of_the_code() -> None:
    """docs/queue.md speaks in numbers, and these are the ones."""
    page = (Path(__file__).parents[2] / "docs" / "queue.md").read_text()
    delivery = Config.model_validate({}).delivery
    retry = delivery.retry

    assert f"`delivery.retry.first` ({retry.first:.0f} s) times `factor` ({retry.factor:g})" in page
    assert f"`max`\n({retry.max / 60:.0f} min), give or take the share `jitter` ({retry.jitter})" in page
    assert f"`max_age` ({delivery.max_age / 86400:.0f} d)" in page
    assert f"every {circuits.TARGET_PROBE:.0f} s. After a greeting of 4yz: {circuits.BUSY_FIRST:.0f} s" in page
    assert f"time: {circuits.BUSY_FIRST:.0f} s, doubled up to {circuits.BUSY_LONGEST / 60:.0f} min" in page
    assert f"time: {circuits.QUOTA_FIRST / 60:.0f} min, doubled up to {circuits.QUOTA_LONGEST / 3600:.0f} h" in page
    assert circuits.LOGIN_PROBE == 60
    assert "at most once a minute" in page
    assert circuits.CREDENTIAL_AFTER == 3
    assert "or three others" in page
