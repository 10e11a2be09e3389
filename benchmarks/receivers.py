"""What takes mail in and drops it: this relay's ingress before an intake that accepts everything, and stock aiosmtpd.

    python -m benchmarks.receivers (relay | relay-asyncio | aiosmtpd) --port N

The relay logs, and spares the collector, as it does when it serves; aiosmtpd comes as it is, logs nothing, and its
handler does nothing. SIGUSR1 asks for a line of JSON on standard output: for how many milliseconds the loop did nothing
but one thing, at most, since the last line.
"""

import argparse
import asyncio
import ipaddress
import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop
from aiosmtpd.smtp import SMTP

from benchmarks.depth import BenchmarkClock
from relay.config import Identity, TcpAddress
from relay.core.login import Assignment, Login, Target, Terms
from relay.core.message import Message
from relay.core.ports import Bearer
from relay.core.reply import Reply, queued
from relay.core.secret import Secret
from relay.ingress.bans import FailedLogins
from relay.ingress.data import DataLimits
from relay.ingress.doors import TcpDoor
from relay.ingress.listener import Admission, Connections, Listener
from relay.ingress.memory import DataMemory
from relay.ingress.oddities import Oddities
from relay.ingress.reception import Reception
from relay.ingress.service import Service
from relay.ingress.steps import DialogueSettings
from relay.ingress.transaction import EnvelopeLimits
from relay.observe import log as events
from relay.observe.metrics import Metrics
from relay.policy.identity import Decision, Identities
from relay.policy.rates import Quotas
from relay.serve import spare_the_collector

MESSAGE_SIZE: Final = 50_000_000
DATA_MEMORY: Final = 64_000_000
TICK: Final = 0.001

Start = Callable[[int], Awaitable[None]]


class NullIntake:
    """Takes every message, and keeps none."""

    def accept(self, message: Message, bearer: Bearer) -> Reply:
        message.content.close()
        return queued(message.queue_id)


class NullHandler:
    """The same for aiosmtpd."""

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        return "250 2.0.0 queued"


async def serve_relay(port: int) -> None:
    """The relay's listener, with everything that it does for a message until the intake is asked."""
    metrics, connections = Metrics(), Connections()
    admission = Admission((ipaddress.ip_network("127.0.0.0/8"),), 2000, 2000)
    login = Login(Target("localhost", (587,)), "SMTP_Injection", Secret("secret"), "default")
    promised = Bearer(
        Assignment("default", "default", None), login, Terms(queue=False, deadline=4.0, max_age=259_200.0)
    )

    def bearer(decision: Decision, passthrough: Login | None) -> Bearer:
        return promised

    service = Service(
        listener="bench",
        settings=DialogueSettings(
            hostname="relay.example",
            auth="none",
            starttls=False,
            envelope=EnvelopeLimits(MESSAGE_SIZE, 1000),
            data=DataLimits(MESSAGE_SIZE, 100_000),
            memory=DataMemory(DATA_MEMORY),
        ),
        tls=None,
        implicit_tls=False,
        identities=Identities((Identity(),)),
        bearer=bearer,
        authenticator=None,
        reception=Reception("relay.example", NullIntake(), BenchmarkClock(), metrics, Quotas()),
        clock=BenchmarkClock(),
        metrics=metrics,
        quotas=Quotas(),
        failed_logins=FailedLogins(10, 600.0),
        oddities=Oddities(),
        command_timeout=300.0,
        plain_auth_off_host=False,
        admit=lambda session: connections.admit(session, admission),
        forget=connections.forget,
        spawn=connections.spawn,
    )
    await Listener("bench", TcpDoor("bench", TcpAddress("127.0.0.1", port))).open(service, connections)
    spare_the_collector()


async def serve_aiosmtpd(port: int) -> None:
    """aiosmtpd as it comes, but without a thread of its own."""
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    loop = asyncio.get_running_loop()
    handler = NullHandler()

    def session() -> SMTP:
        return SMTP(handler, hostname="relay.example", data_size_limit=MESSAGE_SIZE, loop=loop)

    await loop.create_server(session, "127.0.0.1", port)


class Stalls:
    """For how long the loop does one thing: by the clock, and in CPU time, which the neighbours do not touch.

    A loop at rest is looked at every millisecond. One that has much to do is looked at each time round: a timer that
    comes due within a turn would wait for the next one's end, and count two.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin()
        self._tick(0.0)

    def _begin(self) -> None:
        self._wall = self._cpu = 0.0
        self._at, self._used = time.perf_counter(), time.thread_time()

    def _tick(self, after: float) -> None:
        at, used = time.perf_counter(), time.thread_time()
        stall = at - self._at - after
        self._wall, self._cpu = max(self._wall, stall), max(self._cpu, used - self._used)
        self._at, self._used = at, used
        if stall > TICK:
            self._loop.call_soon(self._tick, 0.0)
        else:
            self._loop.call_later(TICK, self._tick, TICK)

    def report(self) -> None:
        """Prints the longest, and begins anew."""
        print(json.dumps({"stall_ms": self._wall * 1000, "stall_cpu_ms": self._cpu * 1000}), flush=True)
        self._begin()


async def serve(start: Start, port: int) -> None:
    """Until SIGTERM. The first SIGUSR1 begins the watch for stalls, so that otherwise it costs nothing."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    watches: list[Stalls] = []

    def report() -> None:
        if not watches:
            watches.append(Stalls())
        watches[0].report()

    events.configure(form="json", level="info", addresses="plain", loop=loop)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, report)
    await start(port)
    await stop.wait()


def main() -> None:
    """Reads the command line and serves on the loop that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("receiver", choices=["relay", "relay-asyncio", "aiosmtpd"])
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    loop_factory = uvloop.new_event_loop if options.receiver == "relay" else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(serve_aiosmtpd if options.receiver == "aiosmtpd" else serve_relay, options.port))


if __name__ == "__main__":
    main()
