"""`python -m benchmarks.scenarios [NAME ...]`: plays them, prints what was found. Exit status 1 if something failed."""

import argparse
import sys
from functools import partial
from typing import Final

from benchmarks import rig
from benchmarks.place import PeerError
from benchmarks.scenarios.hostile import hostile
from benchmarks.scenarios.refused import refused
from benchmarks.scenarios.shares import shares
from benchmarks.scenarios.stage import Scenario
from benchmarks.scenarios.switch import switch

SCENARIOS: Final[dict[str, tuple[str, Scenario]]] = {
    "switch": ("the preferred port is blocked under load, and opened again", switch),
    "shares": ("five credentials share ten connections, cut-through", partial(shares, "cut-through")),
    "shares-queue": ("five credentials share ten connections, delivery: queue", partial(shares, "queue")),
    "hostile": ("ten thousand clients that mean no good, and one that does", hostile),
    "refused": ("a refused key among good ones", refused),
}


def main() -> int:
    """Reads the command line and plays what it names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenarios", description="Play scenarios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SCENARIOS)} (default all)")
    names = parser.parse_args().names or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    failed = 0
    try:
        rig.build()
        for name in names:
            words, play = SCENARIOS[name]
            print(f"{name}: {words}", flush=True)
            findings = play()
            print("\n".join(map(str, findings)), flush=True)
            failed += sum(finding.good is False for finding in findings)
    except (rig.RigError, PeerError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(f"{failed} findings are not as they should be" if failed else "all is as it should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
