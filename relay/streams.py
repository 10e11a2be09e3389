"""The descriptors that a program is started with: one may be closed, and one may lead to a disk that is full.

The number of a closed one would go to the next file or socket that is opened, and what is printed would land there; and
libuv ends a process that closes a connection of such a number.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, Final, TextIO

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}  # in the order of their numbers


class CannotWrite(Exception):
    """Standard output does not take what is written. A reader that has gone away is a BrokenPipeError, as ever."""


class _Output(io.FileIO):
    """Standard output, whose errors are told from those of all other files."""

    def write(self, octets: Any) -> int:
        try:
            return super().write(octets)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CannotWrite(error.strerror) from None


def run(program: Callable[[], object]) -> None:
    """Run a program that ends with SystemExit; its status is 1 if its output could not be written."""
    _prepare()
    try:
        try:
            program()
        finally:
            sys.stdout.flush()
    except (CannotWrite, BrokenPipeError) as error:
        _abandon(sys.stdout)
        if isinstance(error, CannotWrite):  # a reader that has gone away has seen enough
            tell(f"the output cannot be written: {error}")
        sys.exit(1)
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _abandon(sys.stderr)


def tell(text: str) -> None:
    """On stderr, where that takes it: nobody is kept from the work because there is no room to say something."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")


def _prepare() -> None:
    """Fill the places of those that are closed, before any other file is opened; guard stdout.

    A character that the terminal's encoding does not know is shown escaped.
    """
    stdout = sys.stdout
    for name, mode in _MODES.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the program runs
    if isinstance(stdout, io.TextIOWrapper):
        raw = _Output(stdout.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            raw if stdout.write_through else io.BufferedWriter(raw),
            encoding=stdout.encoding,
            errors="backslashreplace",
            line_buffering=stdout.line_buffering,
            write_through=stdout.write_through,
        )


def _abandon(stream: TextIO) -> None:
    """What it has not taken goes nowhere: at the end of the program it would be tried again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
