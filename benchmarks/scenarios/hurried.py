"""The relay with a short memory: `python -m benchmarks.scenarios.hurried SECONDS COMMAND ...`.

A relay that has moved to another port looks back at the preferred one after some minutes. A scenario cannot wait for
that; everything else is as it is.
"""

import sys

from relay.cli import main
from relay.upstream import dial

if __name__ == "__main__":
    assert hasattr(dial, "MEMORY_SECONDS")
    dial.MEMORY_SECONDS = float(sys.argv.pop(1))  # type: ignore[misc]  # Final for everybody else
    main()
