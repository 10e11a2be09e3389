"""The line between a relay and the sink: none, or as long as a real one.

`distance(RTT)` makes the best line that this machine allows: real packet delay (`rig/link.c`; it needs root and
/dev/net/tun), or else a proxy that delays data only (`delaying_proxy.py`), which says so. Tests may use it for any
program: start it with `beyond`, at `address`, and find it at `reach`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import processes
from benchmarks.rig import BUILD, RigError

ROOT = Path(__file__).parent.parent


class Line:
    """No distance at all: both sides are this machine's loopback."""

    rtt_ms = 0.0

    address = "127.0.0.1"
    """Where programs on the far side listen."""

    note: str | None = None
    """What a reader must know about this line, if anything."""

    def beyond(self, command: Sequence[str]) -> list[str]:
        """The command that runs a command on the far side."""
        return list(command)

    def reach(self, port: int) -> tuple[str, int]:
        """Where this side finds what listens on the far side."""
        return "localhost", port

    def set_rtt(self, milliseconds: float) -> None:
        """Changes the distance, for what is under way too."""

    def cpu_seconds(self) -> float:
        """What the line itself has cost."""
        return 0.0


class _Helper:
    """A child process that is told a one-way delay on standard input and answers in lines of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def answer(self) -> dict[str, str]:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise RigError(errors.strip() or f"{' '.join(self._command)} ended with {self._process.returncode}")
        values: dict[str, str] = json.loads(line)
        return values

    def delay(self, milliseconds: float) -> None:
        """Sets the one-way delay, and waits until it holds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{milliseconds:g}\n")
        self._process.stdin.flush()
        self.answer()

    def end(self) -> None:
        """Ends it; everything that it has set up goes with it."""
        self._process.kill()
        self._process.communicate()


class PacketLine(Line):
    """Two network namespaces with TUN devices between them: every packet is held back."""

    def __init__(self) -> None:
        self._link = _Helper([str(BUILD / "link")])
        try:
            self.address = self._link.answer()["far"]
        except BaseException:
            self._link.end()
            raise

    def beyond(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._link.pid}/ns/net", *command]

    def reach(self, port: int) -> tuple[str, int]:
        return self.address, port

    def set_rtt(self, milliseconds: float) -> None:
        self._link.delay(milliseconds / 2)
        self.rtt_ms = milliseconds

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self._link.pid)

    def end(self) -> None:
        """Takes devices and namespace away."""
        self._link.end()


class ProxyLine(Line):
    """A TCP proxy for each port: data is held back, but connections and acknowledgements are not."""

    def __init__(self, reason: str) -> None:
        self.note = f"data is delayed, packets are not ({reason}): connecting is too cheap in this table"
        self._proxies: list[_Helper] = []

    def reach(self, port: int) -> tuple[str, int]:
        proxy = _Helper([sys.executable, "-m", "benchmarks.delaying_proxy", "--upstream-port", str(port)])
        self._proxies.append(proxy)
        own = int(proxy.answer()["port"])
        proxy.delay(self.rtt_ms / 2)
        return "localhost", own

    def set_rtt(self, milliseconds: float) -> None:
        self.rtt_ms = milliseconds
        for proxy in self._proxies:
            proxy.delay(milliseconds / 2)

    def cpu_seconds(self) -> float:
        return sum(processes.cpu_seconds(proxy.pid) for proxy in self._proxies)

    def end(self) -> None:
        """Ends the proxies."""
        for proxy in self._proxies:
            proxy.end()


@contextmanager
def distance(rtt_ms: float, *, packets: bool = True) -> Iterator[Line]:
    """A line with this round trip time, taken down afterwards; `packets`: false asks for the proxy."""
    if rtt_ms == 0:
        yield Line()
        return
    with ExitStack() as stack:
        line: PacketLine | ProxyLine
        try:
            line = PacketLine() if packets else ProxyLine("as asked for")
        except RigError as error:
            line = ProxyLine(str(error))
        stack.callback(line.end)
        line.set_rtt(rtt_ms)
        yield line
