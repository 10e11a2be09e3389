"""How the naive relay of `naive_relay.py` is started."""

import sys
from collections.abc import Callable

from benchmarks.place import Place


def command(*options: str) -> Callable[[Place], list[str]]:
    """The command of the naive relay with these options."""

    def at(place: Place) -> list[str]:
        return [
            *(sys.executable, "-m", "benchmarks.naive_relay"),
            *("--port", str(place.port)),
            *("--upstream-host", place.upstream_host, "--upstream-port", str(place.upstream_port)),
            *("--ca-file", str(place.ca_file), *options),
        ]

    return at
