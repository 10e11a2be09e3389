"""The load generator and the sink of `rig/`, from Python: built, started, read and stopped."""

import base64
import json
import signal
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks.certificates import Certificates
from benchmarks.line import Line
from benchmarks.rig import BUILD, RigError


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
class KeyCounters:
    """What was done with one API key: logins tried, those refused, and messages."""

    logins: int = 0
    refused: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True)
class SinkCounters:
    """What the sink had counted at the time `at`; all but `max_open` and `last_message_at` only ever grow by events.

    `flights`: how often a client had sent something and waited for the sink; `mail_flights`: those after the login and
    before QUIT. `ports`: messages by port. `keys`: by digest, see `of_key`.
    """

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
    mail_flights: int
    refusals: int
    last_message_at: float
    ports: list[int]
    keys: dict[str, KeyCounters]

    def of_key(self, api_key: str) -> KeyCounters:
        """The account of one API key."""
        digest = 0xCBF29CE484222325
        for octet in base64.b64encode(api_key.encode()):
            digest = (digest ^ octet) * 0x100000001B3 % 2**64
        return self.keys.get(f"{digest:016x}", KeyCounters())


class Load:
    """A running load generator, against 127.0.0.1:`port`; `options` are those of `rig/load.c`."""

    def __init__(self, port: int, *options: str | float) -> None:
        self._command = [str(BUILD / "load"), "--port", str(port), *map(str, options)]
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> LoadResult:
        """What it saw, once it has come to its end."""
        output, errors = self._process.communicate()
        if self._process.returncode != 0:
            raise RigError(f"{' '.join(self._command)} ended with {self._process.returncode}: {errors.strip()}")
        return LoadResult(**json.loads(output))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def run_load(port: int, *options: str | float) -> LoadResult:
    """Runs the load generator to its end."""
    with Load(port, *options) as load:
        return load.result()


class Sink:
    """A running sink; `with Sink(…) as sink` ends it afterwards. It is at the far end of `line`, if there is one.

    `host` and `port` are where a relay on this side finds it; `ports` are all of them, if there are to be more. Logins
    with `refused_key` are refused.
    """

    def __init__(
        self,
        certificates: Certificates,
        reply_delay_ms: float = 0,
        *,
        line: Line | None = None,
        refused_key: str | None = None,
        port_count: int = 1,
    ) -> None:
        line = line or Line()
        command = [str(BUILD / "sink"), "--certificate", str(certificates.certificate), "--key", str(certificates.key)]
        command += ["--reply-delay", str(reply_delay_ms), "--round-trip", str(line.rtt_ms), "--address", line.address]
        command += ["--ports", str(port_count)]
        if refused_key is not None:
            command += ["--refuse", base64.b64encode(refused_key.encode()).decode()]
        self._process = subprocess.Popen(line.beyond(command), stdout=subprocess.PIPE, text=True)
        try:
            reached = [line.reach(port) for port in self._answer()["ports"]]
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        self.host = reached[0][0]
        self.ports = [port for _, port in reached]

    @property
    def port(self) -> int:
        """The first of the ports."""
        return self.ports[0]

    @property
    def pid(self) -> int:
        """The sink's process id."""
        return self._process.pid

    def read(self) -> SinkCounters:
        """The counters of this moment."""
        self._process.send_signal(signal.SIGUSR1)
        answer = self._answer()
        keys = {digest: KeyCounters(**counts) for digest, counts in answer.pop("keys").items()}
        return SinkCounters(**answer, keys=keys)

    def block_or_open(self) -> None:
        """Blocks the first port as a firewall would, and resets what is open there; the next call opens it again."""
        self._process.send_signal(signal.SIGUSR2)
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        """The next line of the sink's standard output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RigError(f"the sink ended with {self._process.wait()}")
        values: dict[str, Any] = json.loads(line)
        return values
