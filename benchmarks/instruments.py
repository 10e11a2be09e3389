"""The load generator and the sink of `rig/`, from Python: built, started, read and stopped."""

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.certificates import Certificates

HERE = Path(__file__).parent
BUILD = HERE / "build"


class RigError(Exception):
    """The rig itself did not work; nothing was measured."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the load generator saw; times are CLOCK_MONOTONIC. `rig/load.c` says what each count means."""

    started: float
    ended: float
    cpu_seconds: float
    accepted: int
    refused: int
    broken: int
    unanswered: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    last_failure: str


@dataclass(frozen=True, slots=True)
class SinkCounters:
    """What the sink had counted at the time `at`; all but `max_open` and `last_message_at` only ever grow by events."""

    at: float
    cpu_seconds: float
    messages: int
    distinct: int
    octets: int
    connections: int
    max_open: int
    handshakes: int
    auths: int
    commands: int
    flights: int
    refusals: int
    last_message_at: float


def build() -> None:
    """Compiles what is not up to date. The Makefile says which packages are missing."""
    try:
        made = subprocess.run(["make", "--silent", "-C", str(HERE)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RigError("make is not installed; on Debian: apt-get install make gcc libc6-dev libssl-dev") from None
    if made.returncode != 0:
        raise RigError(f"the load generator and the sink could not be built:\n{made.stdout}{made.stderr}".rstrip())


def run_load(port: int, *options: str | float) -> LoadResult:
    """Runs the load generator to its end against 127.0.0.1:`port`; `options` are those of `rig/load.c`."""
    command = [str(BUILD / "load"), "--port", str(port), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RigError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return LoadResult(**json.loads(done.stdout))


class Sink:
    """A running sink; `with Sink(…) as sink` ends it afterwards."""

    def __init__(self, certificates: Certificates, reply_delay_ms: float = 0) -> None:
        command = [str(BUILD / "sink"), "--certificate", str(certificates.certificate), "--key", str(certificates.key)]
        command += ["--reply-delay", str(reply_delay_ms)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line()["port"])

    @property
    def pid(self) -> int:
        """The sink's process id."""
        return self._process.pid

    def read(self) -> SinkCounters:
        """The counters of this moment."""
        self._process.send_signal(signal.SIGUSR1)
        return SinkCounters(**self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def _line(self) -> dict[str, Any]:
        """The next line of the sink's standard output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RigError(f"the sink ended with {self._process.wait()}")
        values: dict[str, Any] = json.loads(line)
        return values
