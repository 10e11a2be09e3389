"""The composition root: the one place that knows every room, puts all together as configured, starts and stops it.

Start: spool, upstream, queue, admin, then listeners. Stop is the reverse: no new mail, messages in hand are answered
and attempts come to their end within `drain_timeout`, then the upstream sessions say QUIT and the spool is closed.
"""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import structlog

from relay.admin.desk import Desk
from relay.admin.http import AdminServer
from relay.admin.messages import Messages
from relay.admin.overview import Listening, Overview, Phase, PortsInUse
from relay.admin.pages import Pages
from relay.admin.sockets import socket_path
from relay.clock import SystemClock
from relay.config import Config
from relay.config import Listener as ListenerConfig
from relay.config.problems import Path
from relay.config.rotation import KeyFiles
from relay.core.lifecycle import RetryPolicy
from relay.core.login import PASSTHROUGH, Login, Target
from relay.core.outcome import Fact
from relay.core.ports import Bearer, Clock, Intake
from relay.core.secret import Secret
from relay.delivery.bookkeeping import Bookkeeper
from relay.delivery.circuits import Circuits
from relay.delivery.dsn import Notices
from relay.delivery.last_resort import LastResort
from relay.delivery.prober import Prober
from relay.delivery.queue import DeliveryQueue
from relay.delivery.route import ProofByRoute, Route
from relay.delivery.upkeep import Upkeep
from relay.ingress.activation import Activation
from relay.ingress.auth import PassthroughAuthenticator, PasswordAuthenticator
from relay.ingress.bans import FailedLogins
from relay.ingress.certificate import ServerTls
from relay.ingress.data import DataLimits
from relay.ingress.doors import door_of
from relay.ingress.intake import CutThrough, SpooledIntake
from relay.ingress.listener import Admission, Connections, Listener
from relay.ingress.memory import DataMemory
from relay.ingress.oddities import Oddities
from relay.ingress.reception import Reception
from relay.ingress.service import Authenticator, Service
from relay.ingress.steps import DialogueSettings
from relay.ingress.transaction import EnvelopeLimits
from relay.observe import log as events
from relay.observe.metrics import Metrics
from relay.policy.credentials import Credentials
from relay.policy.identity import Decision, Identities
from relay.policy.rates import Quotas
from relay.policy.resolver import PolicyResolver
from relay.spool.opening import open_spool, path_of
from relay.spool.sqlite import SqliteSpool
from relay.upstream.assembly import build_https, build_sessions
from relay.upstream.channel import SmtpChannel
from relay.upstream.reach import DialReach

log = structlog.get_logger()

# The relay before this one may have the spool until it has done what it has in hand; a command has it for a moment.
HANDOVER: Final = 2.0  # seconds beyond drain_timeout
FILES_INTERVAL: Final = 1.0  # seconds between looks at the files that hold API keys and certificates


class UpstreamWatch:
    """Passes on what dials tell: circuits open and close, fallbacks are counted, the port in use is noted."""

    def __init__(self, circuits: Circuits, metrics: Metrics, ports: PortsInUse) -> None:
        self._circuits = circuits
        self._metrics = metrics
        self._ports = ports

    def target_down(self, target: Target, fact: Fact) -> None:
        self._circuits.target_down(target, fact)

    def target_up(self, target: Target, port: int) -> None:
        self._circuits.target_up(target, port)
        self._ports.reached(target, port)

    def fell_back(self, target: Target, port: int) -> None:
        self._metrics.port_fallbacks.inc()


class Relay:
    """One relay: everything it consists of, and its life from `start` to `stop`."""

    def __init__(
        self,
        config: Config,
        references: Mapping[Path, Mapping[str, str]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`references`: how the secrets of the configuration were given; those in files are watched."""
        self._config = config
        self._clock = clock or SystemClock()
        self._credentials = Credentials.from_config(config)
        self._identities = Identities.from_config(config)
        self._resolver = PolicyResolver.from_config(config, self._identities, self._credentials)
        self._key_files = KeyFiles(references or {}, os.environ, self._key_changed, self._key_unreadable)
        self._certificates: list[ServerTls] = []
        self._activation = Activation(os.environ)
        self._connections = Connections()
        self._quotas = Quotas()
        self._failed_logins = FailedLogins(config.limits.auth_failures, config.limits.auth_ban)
        self._oddities = Oddities()
        self.data_memory = DataMemory(config.limits.data_memory)
        self._passwords = PasswordAuthenticator(self._identities)
        self._background: set[asyncio.Task[None]] = set()
        self.metrics = Metrics()
        self.listeners: list[Listener] = []
        self.spool: SqliteSpool | None = None
        self.queue: DeliveryQueue | None = None
        self.admin: AdminServer | None = None
        self._phase = Phase.STARTING
        self._ports_in_use = PortsInUse()
        self._last_resort = LastResort(self._api_url, self._clock.monotonic, self._circuits_changed)
        self.circuits = Circuits(
            self._clock.monotonic, self._circuits_changed, self._last_resort, self._credentials.current
        )
        watch = UpstreamWatch(self.circuits, self.metrics, self._ports_in_use)
        dialler, self._pool = build_sessions(config, watch, self._credentials.current)
        self._https = build_https(config, self._credentials.api_url)
        self._proof = ProofByRoute(self._pool, self._https, self.circuits, self._last_resort)
        self._prober = Prober(self.circuits, DialReach(dialler, self._pool), self._proof, self._clock)
        self.failed = asyncio.Event()

    async def start(self) -> None:
        """Open spool, admin server and listeners.

        Raises SpoolUnusable, SpoolInUse, AdminUnavailable or BindError, and then nothing stays open.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self._config
        if config.spool.url != "none":
            path = socket_path(config, os.environ)
            self.spool = await open_spool(
                path_of(config.spool.url),
                self._clock,
                reserve=config.spool.reserve,
                socket=None if path is None else str(path),
                patience=config.drain_timeout + HANDOVER,
            )
        channel = SmtpChannel(self._pool, config.upstream.recipients_per_transaction)
        route = Route(channel, self._https, self.circuits, self._last_resort, self._clock, self.metrics)
        intake: Intake = CutThrough(route)
        if self.spool is not None:
            self.queue = self._build_queue(self.spool, route)
            intake = SpooledIntake(route, self.queue)
        self._run(self._prober.run())
        self._run(self._watch_files())
        reception = Reception(config.hostname, intake, self._clock, self.metrics, self._quotas)
        await self._start_admin()
        for section in config.listeners:
            await self._open(section, reception)
        for name in self._activation.untaken:
            log.warning(events.LISTENER_UNCLAIMED, name=name, remedy=f"listen on fd:{name}, or stop its socket unit")
        self._phase = Phase.RUNNING

    def _build_queue(self, spool: SqliteSpool, route: Route) -> DeliveryQueue:
        delivery = self._config.delivery
        retry = delivery.retry
        notices = Notices(
            hostname=self._config.hostname,
            sender=delivery.bounces.from_,
            to=delivery.bounces.to,
            terms=self._resolver.terms_of,
            clock=self._clock,
        )
        bookkeeper = Bookkeeper(
            RetryPolicy(retry.first, retry.factor, retry.max, retry.jitter), notices.about, self.metrics
        )
        queue = DeliveryQueue(
            spool,
            route,
            self._resolver,
            bookkeeper,
            self._clock,
            self._config.upstream.connections,
            self._config.limits.data_memory,
        )
        upkeep = Upkeep(
            spool,
            queue,
            self._clock,
            keep_failed=delivery.keep_failed,
            keep_delivered=delivery.keep_delivered,
        )
        self._run(queue.run())
        self._run(upkeep.run())
        return queue

    async def _open(self, section: ListenerConfig, reception: Reception) -> None:
        tls = ServerTls(section.name, section.tls) if section.tls.mode != "none" else None
        if tls is not None:
            self._certificates.append(tls)
        listener = Listener(section.name, door_of(section, self._activation), section.proxy_protocol)
        self.listeners.append(listener)
        limits = self._config.limits
        admission = Admission(section.networks, limits.connections, limits.connections_per_client)
        service = Service(
            listener=section.name,
            settings=DialogueSettings(
                hostname=self._config.hostname,
                auth=section.auth,
                starttls=section.tls.mode == "starttls",
                envelope=EnvelopeLimits(limits.message_size, limits.recipients),
                data=DataLimits(limits.message_size, limits.line_length),
                memory=self.data_memory,
                drafts=self.spool,
                origin=section.origin,
            ),
            tls=tls,
            implicit_tls=section.tls.mode == "implicit",
            identities=self._identities,
            bearer=self._bearer,
            authenticator=self._authenticator(section.auth),
            reception=reception,
            clock=self._clock,
            metrics=self.metrics,
            quotas=self._quotas,
            failed_logins=self._failed_logins,
            oddities=self._oddities,
            command_timeout=limits.command_timeout,
            plain_auth_off_host=section.tls.allow_plain_auth,
            admit=lambda session: self._connections.admit(session, admission),
            forget=self._connections.forget,
            spawn=self._connections.spawn,
        )
        await listener.open(service, self._connections)

    def _authenticator(self, auth: str) -> Authenticator | None:
        if auth == "none":
            return None
        return PassthroughAuthenticator(self._credentials, self._proof) if auth == "passthrough" else self._passwords

    def _api_url(self, login: Login) -> str | None:
        return self._credentials.api_url(login) if self._config.upstream.http.enabled else None

    def _bearer(self, decision: Decision, passthrough: Login | None) -> Bearer:
        """The login is looked up at each message, so that what changes behind a name takes effect at once."""
        assignment = decision.assignment
        login = passthrough or self._credentials.login_for(assignment)
        return Bearer(assignment, login, self._resolver.terms_of(assignment.identity))

    # -- the admin server ---------------------------------------------------------------------------------------------

    async def _start_admin(self) -> None:
        spool, hostname = self.spool, self._config.hostname
        desk = None
        if spool is not None and self.queue is not None:
            desk = Desk(spool, self._resolver, self.queue.wake)
        logins = self._credentials.bare_logins
        upstream = self._config.upstream
        targets = dict.fromkeys(login.target for login in logins.values())
        if not logins or any(listener.auth == "passthrough" for listener in self._config.listeners):
            targets[Target(upstream.host, upstream.ports)] = None
        overview = Overview(
            phase=lambda: self._phase,
            listeners=self._listening,
            spool_problem=None if spool is None else lambda: spool.problem,
            ways=self.circuits,
            targets=tuple(targets),
            logins=lambda: self._credentials.bare_logins,
            sessions=lambda: self._pool.sessions + self._https.sessions,
            port_in_use=self._ports_in_use,
            last_resort=self._last_resort,
            mail_of=self._mail_of,
        )
        pages = Pages(overview, self.metrics, desk, hostname, self._clock)
        self.admin = AdminServer(self._config, os.environ, pages, Messages(desk))
        await self.admin.start()

    def _mail_of(self, target: Target) -> list[Login]:
        """The bare logins whose mail goes to a target. Applications' keys are not known: any would do for them."""
        own = [login for login in self._credentials.bare_logins.values() if login.target == target]
        username = self._config.upstream.username
        return own or [Login(target, username, Secret(PASSTHROUGH), PASSTHROUGH)]

    def _listening(self) -> list[Listening]:
        return [Listening(one.name, one.places, one.listening) for one in self.listeners]

    # -- what changes while it runs -----------------------------------------------------------------------------------

    def _circuits_changed(self) -> None:
        self._prober.wake()
        if self.queue is not None:
            self.queue.wake()

    async def _watch_files(self) -> None:
        while True:
            await self._clock.sleep(FILES_INTERVAL)
            self._key_files.look()
            for certificate in self._certificates:
                certificate.look()

    def _key_changed(self, credential: str, key: Secret) -> None:
        if self._credentials.change_key(credential, key):
            log.warning(events.CREDENTIAL_ROTATED, credential=credential)
            self.circuits.forget(self._credentials.current)
            self._pool.retire()
            self._circuits_changed()

    def _key_unreadable(self, credential: str, problem: str) -> None:
        log.error(events.CREDENTIAL_ROTATED, credential=credential, problem=f"the key stays as it was: {problem}")

    # -- its end ------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that runs for as long as the relay does. If it breaks, the relay must not go on without it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(events.INTERNAL_ERROR, exc_info=error)
            self.failed.set()

    async def stop(self) -> None:
        """No new mail; what is in hand is answered or put back, within `drain_timeout`."""
        self._phase = Phase.DRAINING
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.drain_timeout
        for listener in self.listeners:
            listener.close()
        if self.queue is not None:
            self.queue.stop_claiming()
        await self._connections.drain(self._config.drain_timeout)
        if self.queue is not None:
            await self.queue.drain(max(0.0, deadline - loop.time()))
        for task in list(self._background):
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        self._passwords.close()
        await self._pool.close()
        await self._https.close()
        if self.admin is not None:
            await self.admin.stop()
        if self.spool is not None:
            await self.spool.close()
