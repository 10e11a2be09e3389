"""Durations and sizes: what is written is what is meant, and what is printed reads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("50s", 50.0),
        ("3d", 259_200.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        ("10 m", 600.0),
        (4, 4.0),
        (0.25, 0.25),
        (0, 0),
    ],
)
def test_a_duration_has_a_unit_or_is_in_seconds(written: object, seconds: float) -> None:
    """`50s`, `3d` and `500ms` are what they say, and a plain number is seconds."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["50", "50 sec", "-1s", "1h30m", "5S", "", "s", -1, True, None, float("inf"), "٣s", []]
)
def test_what_is_no_duration_is_refused_with_the_remedy(written: object) -> None:
    """Anything else is refused, and the error shows how a duration is written."""
    with pytest.raises(ValueError, match="is not a duration: write 500ms, 50s"):
        parse_duration(written)


@given(st.floats(min_value=0, max_value=1e12))
def test_a_duration_reads_back_as_it_was(seconds: float) -> None:
    """Formatting loses nothing, down to the last bit."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "written"), [(259_200.0, "3d"), (1_209_600.0, "14d"), (90.0, "90s"), (0.5, "500ms"), (0.0, "0s")]
)
def test_a_duration_is_printed_in_its_largest_whole_unit(seconds: float, written: str) -> None:
    """What an operator reads is short."""
    assert format_duration(seconds) == written


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        ("20MB", 20_000_000),
        ("64MiB", 67_108_864),
        ("100 kb", 100_000),
        ("1.5KB", 1500),
        ("7B", 7),
        (4096, 4096),
        (0, 0),
    ],
)
def test_a_size_has_a_unit_or_is_in_octets(written: object, octets: int) -> None:
    """`MB` is a million octets, `MiB` is 1024 times 1024, and a plain number is octets."""
    assert parse_size(written) == octets


@pytest.mark.parametrize("written", ["20M", "20", "-1MB", "MB", "", 1.5, -1, True, None, {}])
def test_what_is_no_size_is_refused_with_the_remedy(written: object) -> None:
    """Anything else is refused, and the error shows how a size is written."""
    with pytest.raises(ValueError, match="is not a size: write 20MB"):
        parse_size(written)


def test_half_an_octet_is_refused() -> None:
    """A size is a whole number of octets."""
    with pytest.raises(ValueError, match="not a whole number of octets"):
        parse_size("1.2345KB")


@given(st.integers(min_value=0, max_value=10**18))
def test_a_size_reads_back_as_it_was(octets: int) -> None:
    """Formatting loses nothing."""
    assert parse_size(format_size(octets)) == octets


@pytest.mark.parametrize(
    ("octets", "written"), [(20_000_000, "20MB"), (2**20, "1MiB"), (1001, "1001B"), (0, "0B"), (1_024_000, "1024KB")]
)
def test_a_size_is_printed_in_its_largest_whole_unit(octets: int, written: str) -> None:
    """What an operator reads is short."""
    assert format_size(octets) == written


@pytest.mark.parametrize("written", [10**13, 1e308, "99999999999d", "9" * 400 + "s"])
def test_no_duration_is_too_long_to_be_computed_with(written: object) -> None:
    """What would overflow where it is used is refused where it is written."""
    with pytest.raises(ValueError, match="is longer than anything lasts: 1000000000000s is the most"):
        parse_duration(written)


@pytest.mark.parametrize("written", [10**19, "9" * 400 + "GB"])
def test_no_size_is_too_large_to_be_computed_with(written: object) -> None:
    """So are sizes."""
    with pytest.raises(ValueError, match="is larger than any disk: 1000000000GB is the most"):
        parse_size(written)
