"""The relay as a process: signals, what systemd is told, and the exit status."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
from typing import Final

import structlog

from relay import __version__, is_compiled
from relay.app import Relay
from relay.config import Loaded
from relay.observe import log as events
from relay.observe.notify import Notifier

log = structlog.get_logger()

EX_SOFTWARE: Final = 70  # sysexits(3): a defect of the relay itself has ended it


def keep_to_one_processor() -> None:
    """Have all threads on one of the processors that the process may use.

    Python runs one of them at a time. On several processors the loop and the spool's writer pass its lock from one to
    the other at every turn: a stored message of 2 kB then took up to twice the CPU time, and none was done sooner.
    Which one is left to chance: in containers every relay is process 1, and a host may have many of them. Where a
    sandbox forbids it, with whatever errno, it is only dearer.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            usable = list(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {random.choice(usable)})  # noqa: S311 - spreads relays, guards nothing


def spare_the_collector() -> None:
    """Have the cyclic collector look at mail, not at the program.

    What has been imported and built by now stays until the end: some hundred thousand objects, to be walked through
    again and again. A message leaves no cycles behind and a connection only small ones, so what is collected seldom
    comes to a few megabytes. At the defaults, collecting was a tenth of the CPU time of a small message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _started(relay: Relay, stop: asyncio.Event) -> bool:
    """Start it, unless the signal to stop comes first. Raises what `Relay.start` raises."""
    starting, stopping = asyncio.ensure_future(relay.start()), asyncio.ensure_future(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return False
    starting.result()
    return True


async def run(loaded: Loaded) -> int:
    """Run a relay until SIGTERM, SIGINT or SIGHUP; the exit status.

    Raises SpoolUnusable, SpoolInUse, BindError if a listener cannot be opened, AdminUnavailable for the admin server.
    """
    config = loaded.config
    keep_to_one_processor()  # before there are threads: they do as the one that makes them
    loop = asyncio.get_running_loop()
    events.configure(form=config.log.format, level=config.log.level, addresses=config.log.addresses, loop=loop)
    notifier = Notifier()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # not below nohup(1)
            loop.add_signal_handler(number, stop.set)
    relay = Relay(config, loaded.references)
    if not await _started(relay, stop):
        return 0
    listening = {one.name: one.places for one in relay.listeners}
    log.info(
        events.RELAY_STARTED,
        version=__version__,
        compiled=is_compiled(),
        listeners=listening,
        admin=relay.admin.addresses if relay.admin is not None else [],
        upstream=config.upstream.host,
        spool=config.spool.url,
    )
    spare_the_collector()
    notifier.ready(f"listening on {', '.join(address for some in listening.values() for address in some)}")
    waits = [asyncio.ensure_future(event.wait()) for event in (stop, relay.failed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    log.info(events.RELAY_STOPPING, drain_timeout=config.drain_timeout)
    notifier.stopping()
    await relay.stop()
    log.info(events.RELAY_STOPPED)
    return EX_SOFTWARE if relay.failed.is_set() else 0
