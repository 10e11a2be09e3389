"""The environment of a program under test: nothing of the tester's own, but where the program is, compiled or not, and
what coverage needs to follow it.
"""

import os
from pathlib import Path
from typing import Final

from relay.config.loader import CONFIG_VARIABLE, USUAL_PLACE

_KEPT: Final = ("COVERAGE", "PYTHONPATH", "PYTHONSAFEPATH")


def clean(**more: str) -> dict[str, str]:
    """A bare environment, with `more` in it. Where a relay is installed, its configuration is kept out of the test."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    installed = {CONFIG_VARIABLE: os.devnull} if Path(USUAL_PLACE).exists() else {}
    return {"PATH": "/usr/bin:/bin", **kept, **installed, **more}
