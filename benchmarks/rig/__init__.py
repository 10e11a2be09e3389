"""The programs in C that load and measure, and how they are built."""

import subprocess
from pathlib import Path
from typing import Final

BENCHMARKS: Final = Path(__file__).parent.parent
BUILD: Final = BENCHMARKS / "build"


class RigError(Exception):
    """The rig itself did not work; nothing was measured."""


def build() -> None:
    """Compiles what is not up to date. The Makefile says which packages are missing."""
    command = ["make", "--silent", "-C", str(BENCHMARKS)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RigError("make is not installed; on Debian: apt-get install make gcc libc6-dev libssl-dev") from None
    if made.returncode != 0:
        raise RigError(f"the programs of the rig could not be built:\n{made.stdout}{made.stderr}".rstrip())
