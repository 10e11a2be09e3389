"""The environment of a program under test: nothing of the tester's own, but what coverage needs to follow it."""

import os


def clean(**more: str) -> dict[str, str]:
    """A bare environment, with `more` in it."""
    followed = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return {"PATH": "/usr/bin:/bin", **followed, **more}
