"""Health, metrics and status: what probes, Prometheus and people look at. Public, and quick whatever the queue is."""

import math
from typing import Any

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from relay import __version__
from relay.admin import entries
from relay.admin.desk import Desk
from relay.admin.overview import BUSY, IDLE, Overview, Problem
from relay.core.ports import Clock
from relay.core.spooled import SpoolUnavailable, Stats
from relay.observe.metrics import Metrics


class Pages:
    """The pages that need no token. `desk` is None without a spool."""

    def __init__(self, overview: Overview, metrics: Metrics, desk: Desk | None, hostname: str, clock: Clock) -> None:
        self._overview = overview
        self._metrics = metrics
        self._desk = desk
        self._hostname = hostname
        self._clock = clock
        self._started = clock.now()
        self._since = clock.monotonic()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/healthz", self.healthz),
            web.get("/metrics", self.metrics),
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/endpoints", self.endpoints),
            web.get("/api/v1/credentials", self.credentials),
        ]

    async def livez(self, request: web.Request) -> web.Response:
        """That there is an answer is the answer."""
        return web.json_response({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        return _verdict("ready", [problem for problem in self._overview.problems() if problem.shuts])

    async def healthz(self, request: web.Request) -> web.Response:
        return _verdict("healthy", self._overview.problems())

    async def status(self, request: web.Request) -> web.Response:
        problems = self._overview.problems()
        sessions = self._overview.sessions()
        return web.json_response(
            {
                "version": __version__,
                "hostname": self._hostname,
                "started": entries.moment(self._started),
                "uptime_seconds": round(self._clock.monotonic() - self._since, 3),
                "phase": self._overview.phase().value,
                "ready": not any(problem.shuts for problem in problems),
                "healthy": not problems,
                "problems": [problem.as_json() for problem in problems],
                "listeners": [
                    {"name": one.name, "addresses": list(one.addresses), "open": one.open}
                    for one in self._overview.listeners()
                ],
                "connections": {
                    state: sum(count for (_, _, how), count in sessions.items() if how == state)
                    for state in (IDLE, BUSY)
                },
                "spool": await self._spool(),
            }
        )

    async def _spool(self) -> dict[str, Any] | None:
        if self._desk is None or self._overview.spool_problem is None:
            return None
        stats = await self._stats(self._desk)
        counted = {"messages": None, "oldest_seconds": None} if stats is None else entries.tally(stats)
        return {"problem": self._overview.spool_problem(), **counted}

    async def _stats(self, desk: Desk) -> Stats | None:
        """None where the spool cannot be read: the rest of a page is shown all the same."""
        try:
            return await desk.stats()
        except SpoolUnavailable:
            return None

    async def endpoints(self, request: web.Request) -> web.Response:
        return web.json_response({"endpoints": self._overview.endpoints()})

    async def credentials(self, request: web.Request) -> web.Response:
        return web.json_response({"credentials": self._overview.credentials()})

    async def metrics(self, request: web.Request) -> web.Response:
        """OpenMetrics for who asks for it, Prometheus' older text for others."""
        stats = None if self._desk is None else await self._stats(self._desk)
        self._measure(stats)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._metrics.registry), headers={"Content-Type": content_type})

    def _measure(self, stats: Stats | None) -> None:
        """Set the gauges to what is so now. Labels come from the configuration and from enumerations alone."""
        gauges = self._metrics
        gauges.queue_messages.clear()
        gauges.queue_oldest_seconds.set(math.nan if stats is None else stats.oldest)
        for state, count in ({} if stats is None else stats.messages).items():
            gauges.queue_messages.labels(state.value).set(count)
        gauges.upstream_connections.clear()
        for labels, count in self._overview.sessions().items():
            gauges.upstream_connections.labels(*labels).set(count)
        for endpoint in self._overview.endpoints():
            gauges.endpoint_up.labels(endpoint["endpoint"]).set(endpoint["up"])
        for credential in self._overview.credentials():
            gauges.credential_ok.labels(credential["credential"]).set(credential["ok"])


def _verdict(word: str, problems: list[Problem]) -> web.Response:
    body = {word: not problems, "problems": [problem.as_json() for problem in problems]}
    return web.json_response(body, status=503 if problems else 200)
