"""Durations and sizes: how an operator writes them, and the number they mean.

A duration is seconds as a float (`50s`, `3d`, `500ms`; a plain number is seconds). A size is octets as an int (`20MB`
is 20,000,000 and `64MiB` is 67,108,864; a plain number is octets). The arithmetic is decimal, so that what is formatted
reads back as exactly the same number.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeVar

Number = TypeVar("Number", int, Decimal)

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")

_SECONDS: Final[Mapping[str, Decimal]] = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_OCTETS: Final[Mapping[str, int]] = {
    "GB": 10**9,
    "MB": 10**6,
    "KB": 10**3,
    "GiB": 2**30,
    "MiB": 2**20,
    "KiB": 2**10,
    "B": 1,
}
_OCTETS_BY_LOWER: Final = {unit.lower(): octets for unit, octets in _OCTETS.items()}

# More is a slip of the hand, and what computes with it would fail far from here.
_LONGEST: Final = 10**12  # seconds
_LARGEST: Final = 10**18  # octets

_DURATION_REMEDY: Final = "write 500ms, 50s, 10m, 4h or 3d (a plain number is seconds)"
_SIZE_REMEDY: Final = "write 20MB, 64MiB or 100KB (a plain number is octets)"


def parse_duration(value: object) -> float:
    """Seconds; raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{value} is not a duration: {_DURATION_REMEDY}")
        return _bounded(Decimal(value), value)
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _SECONDS:
        raise ValueError(f"{value!r} is not a duration: {_DURATION_REMEDY}")
    return _bounded(Decimal(match[1]) * _SECONDS[match[2]], value)


def _bounded(seconds: Decimal, written: object) -> float:
    if seconds > _LONGEST:
        raise ValueError(f"{written!r} is longer than anything lasts: {_LONGEST}s is the most")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest way to write it: the largest unit of which it is a whole number, else a fraction of a second."""
    exact = Decimal(repr(seconds))
    if exact:
        for unit, factor in _SECONDS.items():
            if exact % factor == 0:
                return f"{int(exact / factor)}{unit}"
    return f"{exact.normalize():f}s"


def parse_size(value: object) -> int:
    """Octets; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value} is not a size: {_SIZE_REMEDY}")
        return _fitting(value, value)
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    octets = _OCTETS_BY_LOWER.get(match[2].lower()) if match else None
    if match is None or octets is None:
        raise ValueError(f"{value!r} is not a size: {_SIZE_REMEDY}")
    exact = _fitting(Decimal(match[1]) * octets, value)
    if exact % 1:
        raise ValueError(f"{value!r} is not a whole number of octets: {_SIZE_REMEDY}")
    return int(exact)


def _fitting(octets: Number, written: object) -> Number:
    if octets > _LARGEST:
        raise ValueError(f"{written!r} is larger than any disk: {_LARGEST // 10**9}GB is the most")
    return octets


def format_size(octets: int) -> str:
    """The largest unit of which it is a whole number; decimal units before binary ones."""
    if octets == 0:
        return "0B"
    return next(f"{octets // factor}{unit}" for unit, factor in _OCTETS.items() if octets % factor == 0)
