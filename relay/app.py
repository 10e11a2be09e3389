"""The composition root: the one place that knows every class, builds them from the configuration, starts and stops all.

Start: upstream, then listeners. Stop is the reverse: no new mail, messages in hand are answered within `drain_timeout`,
then the upstream sessions say QUIT.
"""

import asyncio
import signal
import time

import structlog

from relay import __version__
from relay.config import Config
from relay.config import Listener as ListenerConfig
from relay.core.login import Login
from relay.core.ports import Bearer
from relay.delivery.route import Route
from relay.ingress.auth import PassthroughAuthenticator, PasswordAuthenticator
from relay.ingress.data import DataLimits
from relay.ingress.dialogue import DialogueSettings
from relay.ingress.intake import CutThrough
from relay.ingress.listener import Admission, Connections, Listener, tls_context
from relay.ingress.reception import Reception
from relay.ingress.session import Authenticator, Service
from relay.ingress.transaction import EnvelopeLimits
from relay.observe import log as events
from relay.observe.metrics import Metrics
from relay.observe.notify import Notifier
from relay.policy.identity import Credentials, Decision, Identities
from relay.upstream.channel import SmtpChannel
from relay.upstream.dial import Dialler, Slots
from relay.upstream.pool import Pool, PoolLimits
from relay.upstream.session import Session, SessionTimeouts
from relay.upstream.smtp import Handshake, HandshakeTimeouts, Secured, verifying_context

log = structlog.get_logger()


class SystemClock:
    """The Clock of a real relay."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Relay:
    """One relay: everything it consists of, and its life from `start` to `stop`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = SystemClock()
        self._credentials = Credentials.from_config(config)
        self._identities = Identities.from_config(config)
        self._connections = Connections()
        self._passwords = PasswordAuthenticator(self._identities)
        self.metrics = Metrics()
        self.listeners: list[Listener] = []

    async def start(self) -> None:
        """Open every listener; raises BindError, and then nothing stays open."""
        self._pool = build_pool(self._config, self.metrics)
        route = Route(SmtpChannel(self._pool), self._clock, self.metrics)
        intake = CutThrough(route, self._config.delivery.cut_through_deadline)
        reception = Reception(self._config.hostname, intake, self._clock, self.metrics)
        try:
            for section in self._config.listeners:
                await self._open(section, reception)
        except BaseException:
            await self.stop()
            raise

    async def _open(self, section: ListenerConfig, reception: Reception) -> None:
        tls = tls_context(section.tls) if section.tls.mode != "none" else None
        listener = Listener(section.name, section.address.host, section.address.port)
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
            ),
            tls=tls,
            implicit_tls=section.tls.mode == "implicit",
            identities=self._identities,
            bearer=self._bearer,
            authenticator=self._authenticator(section.auth),
            reception=reception,
            clock=self._clock,
            metrics=self.metrics,
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
        return PassthroughAuthenticator(self._credentials, self._pool) if auth == "passthrough" else self._passwords

    def _bearer(self, decision: Decision, passthrough: Login | None) -> Bearer:
        """The login is looked up at each message, so that what changes behind a name takes effect at once."""
        return Bearer(decision.assignment, passthrough or self._credentials.login_for(decision.assignment))

    async def stop(self) -> None:
        """No new mail; what is in hand is answered, or given up when the time to drain is over."""
        for listener in self.listeners:
            listener.close()
        await self._connections.drain(self._config.drain_timeout)
        self._passwords.close()
        await self._pool.close()


def build_handshake(config: Config) -> Handshake:
    """How connections to SparkPost begin, as `upstream` says."""
    upstream = config.upstream
    return Handshake(
        hostname=config.hostname,
        tls=verifying_context(upstream.tls.ca_file, upstream.tls.minimum),
        server_name=upstream.tls.server_name,
        timeouts=HandshakeTimeouts(upstream.timeouts.connect, upstream.timeouts.banner, upstream.timeouts.command),
        session_timeouts=SessionTimeouts(
            upstream.timeouts.command, upstream.timeouts.data_progress, upstream.timeouts.final_dot
        ),
    )


def build_pool(config: Config, metrics: Metrics) -> Pool:
    """The sessions with SparkPost, as `upstream` says."""
    upstream = config.upstream
    handshake = build_handshake(config)
    dialler = Dialler(
        handshake.secure,
        fallback_after=upstream.fallback_after,
        on_fallback=metrics.port_fallbacks.inc,
        discard=Secured.quit,
    )

    async def open_session(login: Login, deadline: float, slots: Slots) -> Session:
        return await handshake.log_in(await dialler.dial(login.target, deadline, slots), login)

    limits = PoolLimits(upstream.connections, upstream.messages_per_connection, upstream.idle_timeout)
    return Pool(open_session, limits)


async def run(config: Config) -> None:
    """Run a relay until SIGTERM or SIGINT; raises BindError if a listener cannot be opened."""
    events.configure(form=config.log.format, level=config.log.level, addresses=config.log.addresses)
    notifier = Notifier()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    relay = Relay(config)
    await relay.start()
    listening = {one.name: [f"{host}:{port}" for host, port in one.addresses] for one in relay.listeners}
    log.info(events.RELAY_STARTED, version=__version__, listeners=listening, upstream=config.upstream.host)
    notifier.ready(f"listening on {', '.join(address for some in listening.values() for address in some)}")
    await stop.wait()
    log.info(events.RELAY_STOPPING, drain_timeout=config.drain_timeout)
    notifier.stopping()
    await relay.stop()
    log.info(events.RELAY_STOPPED)
