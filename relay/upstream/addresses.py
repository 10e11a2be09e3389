"""Where a host can be reached: names are looked up for each dial, as SparkPost's load balancers come and go.

Name servers are down more often than SparkPost is. The last good answer is kept, and stands in where a lookup fails or
takes long: whoever answers there is verified by TLS as ever.

Nothing ends a lookup before the C library has given up, after a minute if need be. So each has a thread of its own,
which is shared by those who ask for the name meanwhile, and not waited for when the process ends: the loop's own
(libuv's) are joined then, and only two of them are for lookups.
"""

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import structlog

from relay.core.login import Endpoint
from relay.core.outcome import Failure, FailureKind, Phase
from relay.observe import log as events
from relay.upstream.failure import UpstreamFailure

log = structlog.get_logger()

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
Found = Sequence[tuple[socket.AddressFamily, SocketAddress]]

RENEWED: Final = 10.0  # seconds; one that takes longer gets another beside it, whose question may not be lost
MOST: Final = 20  # threads
_SILENT: Final = "the name servers are silent"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one port, to be dialled."""

    endpoint: Endpoint
    family: socket.AddressFamily
    address: SocketAddress


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One that is under way; its answer is what was found, or why nothing was. `before`: the one that is stuck."""

    started: float
    answer: "asyncio.Future[Found | str]"
    before: "_Lookup | None"


class Names:
    """Looks names up. One that was found before is waited for no longer than `stand_in_after` seconds."""

    def __init__(self, stand_in_after: float) -> None:
        self._stand_in_after = stand_in_after
        self._lookups: dict[str, _Lookup] = {}
        self._known: dict[str, Found] = {}
        self._stood_in: set[str] = set()
        self._threads = 0

    async def candidates(self, host: str, ports: Sequence[int], deadline: float) -> list[Candidate]:
        """Every address of every port, in order, by the time `deadline` of the loop; raises UpstreamFailure if there is
        none.
        """
        found = await self.addresses(host, deadline)
        return [
            Candidate(Endpoint(host, port, str(address[0])), family, _with_port(address, port))
            for port in ports
            for family, address in found
        ]

    async def addresses(self, host: str, deadline: float | None = None) -> Found:
        """The addresses of a host, families in turn; raises UpstreamFailure if there is none by `deadline`."""
        lookup = self._lookup(host)
        until = deadline
        if host in self._known:
            stand_in = lookup.started + self._stand_in_after
            until = stand_in if deadline is None else min(deadline, stand_in)
        if not lookup.answer.done():
            left = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
            await asyncio.wait([lookup.answer], timeout=left)
        answer = lookup.answer.result() if lookup.answer.done() else _SILENT
        if not isinstance(answer, str):
            return answer
        text = f"{host} cannot be resolved: {answer}"
        known = self._known.get(host)
        if known is None:
            raise UpstreamFailure(Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, text))
        if host not in self._stood_in:
            self._stood_in.add(host)
            log.warning(events.UPSTREAM_FALLBACK, host=host, reason=f"{text}; the addresses it had last are used")
        return known

    def _lookup(self, host: str) -> _Lookup:
        """The one that is under way, or a new one."""
        loop = asyncio.get_running_loop()
        under_way = self._lookups.get(host)
        if under_way is not None and (loop.time() < under_way.started + RENEWED or self._threads >= MOST):
            return under_way
        lookup = _Lookup(loop.time(), loop.create_future(), under_way)

        def look_up() -> None:
            answer = _look_up(host)
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self._end, host, lookup, answer)

        self._lookups[host] = lookup
        self._threads += 1
        try:
            threading.Thread(target=look_up, name=f"lookup of {host}", daemon=True).start()
        except RuntimeError:  # the system's limit
            self._end(host, lookup, "no thread can be started for it")
        return lookup

    def _end(self, host: str, lookup: _Lookup, answer: Found | str) -> None:
        self._threads -= 1
        if self._lookups.get(host) is lookup:
            del self._lookups[host]
        if not isinstance(answer, str):
            self._known[host] = answer
            if host in self._stood_in:
                self._stood_in.remove(host)
                log.warning(events.UPSTREAM_UP, host=host, reason="it can be resolved again")
        asked: _Lookup | None = lookup
        while asked is not None:
            if not asked.answer.done():
                asked.answer.set_result(answer)
            # Who waits for a question that was lost has the answer to the one after it.
            asked = None if isinstance(answer, str) else asked.before


def _look_up(host: str) -> Found | str:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError as error:
        return str(error)
    families: dict[socket.AddressFamily, list[SocketAddress]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append(address)
    turns = itertools.zip_longest(*([(family, address) for address in found] for family, found in families.items()))
    return [pair for turn in turns for pair in turn if pair is not None]


def _with_port(address: SocketAddress, port: int) -> SocketAddress:
    return cast("SocketAddress", (address[0], port, *address[2:]))  # IPv6 addresses have flow and scope behind the port
