"""The ways to SparkPost, built as `upstream` of the configuration says: for the relay, and for who tries them."""

from collections.abc import Callable

from relay.config import Config
from relay.core.login import Login
from relay.upstream.dial import Dialler, Watcher
from relay.upstream.http_api import HttpChannel
from relay.upstream.pipelining import Level, Pipelining
from relay.upstream.pool import Pool, PoolLimits
from relay.upstream.race import Slots
from relay.upstream.session import Session
from relay.upstream.smtp import Handshake, Secured, verifying_context
from relay.upstream.timeouts import HandshakeTimeouts, SessionTimeouts


def build_handshake(config: Config) -> Handshake:
    """How connections to SparkPost begin."""
    upstream = config.upstream
    return Handshake(
        hostname=config.hostname,
        tls=verifying_context(upstream.tls.ca_file, upstream.tls.minimum),
        server_name=upstream.tls.server_name,
        timeouts=HandshakeTimeouts(upstream.timeouts.connect, upstream.timeouts.banner, upstream.timeouts.command),
        session_timeouts=SessionTimeouts(
            upstream.timeouts.command, upstream.timeouts.data_progress, upstream.timeouts.final_dot
        ),
        messages=upstream.messages_per_connection,
        pipelining=Pipelining(Level[upstream.pipelining.upper()]),
    )


def build_sessions(config: Config, watcher: Watcher, current: Callable[[Login], bool]) -> tuple[Dialler[Secured], Pool]:
    """The dialler and the sessions with SparkPost; a login that is not `current` any more gets none."""
    upstream = config.upstream
    handshake = build_handshake(config)
    dialler = Dialler(handshake.secure, fallback_after=upstream.fallback_after, watcher=watcher, discard=Secured.quit)

    async def open_session(login: Login, deadline: float, slots: Slots) -> Session:
        return await handshake.log_in(await dialler.dial(login.target, deadline, slots), login)

    limits = PoolLimits(upstream.connections, upstream.messages_per_connection, upstream.idle_timeout)
    return dialler, Pool(open_session, limits, current)


def build_https(config: Config, api_url: Callable[[Login], str | None]) -> HttpChannel:
    """The way over HTTPS. It connects when it is used."""
    upstream = config.upstream
    return HttpChannel(
        api_url,
        verifying_context(upstream.tls.ca_file, upstream.tls.minimum),
        connections=upstream.connections,
        connect_seconds=upstream.timeouts.connect,
    )
