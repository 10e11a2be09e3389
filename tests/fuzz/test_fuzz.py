"""A short slice of `python -m tests.fuzz`, always the same; and the fuzzer itself finds what it is there for."""

import pytest

from tests.fuzz.engine import GROWTH, Target, run, watched
from tests.fuzz.targets import TARGETS

INPUTS, SEED = 20_000, 5


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_it_is_given_it_neither_fails_nor_dawdles_nor_grows(target):
    """What its check says holds, no input takes 50 ms, and memory stays as it was."""
    with watched():
        result = run(target, INPUTS * target.share // sum(each.share for each in TARGETS), SEED)

    assert result.defects == []
    assert result.growth < GROWTH


def _bracket_within(octets: bytes) -> int:
    assert b"<" not in octets[1:], "a bracket"
    return len(octets) % 7


def test_a_defect_is_found_and_made_small():
    """A piece that it does not need is not in what is shown."""
    target = Target("brackets", _bracket_within, [b"MAIL FROM:a"], [b"<", b">", b"@"])
    with watched():
        [defect] = run(target, 1000, SEED, most_defects=1).defects

    assert defect.words.startswith("AssertionError: a bracket")
    assert len(defect.octets) == 2
    assert defect.octets[1:] == b"<"


def _slow(octets: bytes) -> int:
    return sum(range(40_000_000)) if b"a" in octets else 0


def test_an_input_that_takes_too_long_is_a_defect():
    """Though its result is right."""
    with watched():
        [defect] = run(Target("slow", _slow, [b"a"], [b"b"]), 1, SEED, most_defects=1).defects

    assert defect.words.startswith("Slow: ")
    assert defect.octets == b"a"


def test_the_same_seed_gives_the_same_inputs():
    """So that what a run found can be found again."""

    def inputs() -> list[bytes]:
        given: list[bytes] = []
        run(Target("all", lambda octets: given.append(octets), [b"seed"], [b"token"]), 200, SEED)
        return given

    assert inputs() == inputs()
