"""Where a host can be reached: names are looked up for each dial, as SparkPost's load balancers come and go."""

import asyncio
import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from relay.core.login import Endpoint
from relay.core.outcome import Failure, FailureKind, Phase
from relay.upstream.failure import UpstreamFailure

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one port, to be dialled."""

    endpoint: Endpoint
    family: socket.AddressFamily
    address: SocketAddress


async def resolved(host: str, ports: Sequence[int], deadline: float) -> list[Candidate]:
    """`candidates` by the time `deadline` of the loop."""
    try:
        async with asyncio.timeout_at(deadline):
            return await candidates(host, ports)
    except TimeoutError as error:
        text = f"{host} cannot be resolved: the name servers are silent"
        raise UpstreamFailure(Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, text)) from error


async def candidates(host: str, ports: Sequence[int]) -> list[Candidate]:
    """Every address of every port, in order, address families in turn; raises UpstreamFailure if there is none."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        text = f"{host} cannot be resolved: {error.strerror or error}"
        raise UpstreamFailure(Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, text)) from error
    families: dict[socket.AddressFamily, list[SocketAddress]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append(address)
    turns = itertools.zip_longest(*([(family, address) for address in found] for family, found in families.items()))
    in_turn = [pair for turn in turns for pair in turn if pair is not None]
    return [
        Candidate(Endpoint(host, port, str(address[0])), family, _with_port(address, port))
        for port in ports
        for family, address in in_turn
    ]


def _with_port(address: SocketAddress, port: int) -> SocketAddress:
    return cast("SocketAddress", (address[0], port, *address[2:]))  # IPv6 addresses have flow and scope behind the port
