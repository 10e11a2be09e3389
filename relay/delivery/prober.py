"""Tries again what is closed, off the path of mail: ports that were blocked, keys that were refused."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from relay.core.login import Login
from relay.core.ports import Clock, LoginProof, Reach
from relay.delivery.circuits import Circuits
from relay.observe import log as events

log = structlog.get_logger()

TICK: Final = 0.5  # seconds, while anything is closed
PATIENCE: Final = 4.0  # seconds for one probe; more than one may be under way, as a blocked port says nothing for long
LOGIN_PATIENCE: Final = 30.0


class Prober:
    """Probes for as long as it runs. Nothing is done while everything is open."""

    def __init__(self, circuits: Circuits, reach: Reach, proof: LoginProof, clock: Clock) -> None:
        self._circuits = circuits
        self._reach = reach
        self._proof = proof
        self._clock = clock
        self._closed = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something has been closed, or may have been."""
        self._closed.set()

    async def run(self) -> None:
        try:
            while True:
                if not (self._circuits.targets_down or self._circuits.logins_refused):
                    self._closed.clear()
                    await self._closed.wait()
                for target in self._circuits.targets_to_probe():
                    self._spawn(self._reach.reach(target, patience=PATIENCE))
                for login in self._circuits.logins_to_probe():
                    self._spawn(self._try(login))
                await self._clock.sleep(TICK)
        finally:
            for probe in self._probes:
                probe.cancel()
            if self._probes:
                await asyncio.wait(self._probes)

    async def _try(self, login: Login) -> None:
        refusal = await self._proof.prove(login, patience=LOGIN_PATIENCE, fresh=True)
        if refusal is None:
            self._circuits.login_works(login)
        else:
            self._circuits.learn(login, [refusal])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        probe = asyncio.get_running_loop().create_task(work)
        self._probes.add(probe)
        probe.add_done_callback(self._ended)

    def _ended(self, probe: asyncio.Task[None]) -> None:
        self._probes.discard(probe)
        if not probe.cancelled() and (error := probe.exception()) is not None:
            log.error(events.INTERNAL_ERROR, exc_info=error)  # the next probe has its turn all the same
