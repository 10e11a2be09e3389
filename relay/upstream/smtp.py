"""From a socket address to an authenticated session: the only place that knows aiosmtplib.

aiosmtplib reads the greeting, says EHLO, begins TLS and logs in; then the transport is handed to our own `Session`. The
steps are two functions on purpose: `secure` gives a `Secured`, which only a verified handshake can make, and `log_in`
takes nothing else. So no key can leave without verified TLS.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import aiosmtplib
from aiosmtplib import SMTP

from relay.core.login import Endpoint, Login
from relay.core.outcome import Answer, Failure, FailureKind, Phase
from relay.core.reply import Reply
from relay.upstream.addresses import Candidate
from relay.upstream.failure import UpstreamFailure
from relay.upstream.pipelining import Level, Pipelining
from relay.upstream.session import Session
from relay.upstream.timeouts import HandshakeTimeouts, SessionTimeouts
from relay.upstream.transaction import Features

QUIT_SECONDS: Final = 2.0
_NO_REPLY: Final = -1  # aiosmtplib's code for octets that are no reply


@dataclass(frozen=True, slots=True)
class Secured:
    """A connection under verified TLS, nobody logged in. Made by `Handshake.secure` and by nobody else."""

    client: SMTP
    endpoint: Endpoint

    @property
    def tls_version(self) -> str:
        return str(self.client.get_transport_info("ssl_object").version())

    @property
    def certificate_expires(self) -> str:
        """The last day of the server's certificate, as the certificate writes it."""
        return str(self.client.get_transport_info("peercert")["notAfter"])

    async def quit(self) -> None:
        """Leave politely, and at once: nobody has logged in."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await self.client.quit(timeout=QUIT_SECONDS)
        self.abort()

    def abort(self) -> None:
        _abort(self.client)


def verifying_context(ca_file: str | None, minimum: str) -> ssl.SSLContext:
    """TLS that verifies chain and name, by the authorities of `ca_file` or the system; `minimum` is "1.2" or "1.3"."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    return context


class Handshake:
    """How connections to SparkPost begin; one for all of them."""

    def __init__(
        self,
        *,
        hostname: str,
        tls: ssl.SSLContext,
        server_name: str | None,
        timeouts: HandshakeTimeouts,
        session_timeouts: SessionTimeouts,
        messages: int,
        pipelining: Pipelining,
    ) -> None:
        """`hostname` is what we call ourselves; `server_name` what the certificate must say, if not the host; a
        connection carries so many `messages`.
        """
        self._hostname = hostname
        self._tls = tls
        self._server_name = server_name
        self._timeouts = timeouts
        self._session_timeouts = session_timeouts
        self._messages = messages
        self._pipelining = pipelining

    async def secure(self, candidate: Candidate, on_connected: Callable[[], None] = lambda: None) -> Secured:
        """Connect, wait for the greeting, begin TLS and verify it; raises UpstreamFailure, and leaves nothing open."""
        sock = await self._connect(candidate)
        on_connected()
        client = SMTP(
            hostname=self._server_name or candidate.endpoint.host,
            sock=sock,
            local_hostname=self._hostname,
            start_tls=False,
            use_tls=False,
        )
        try:
            await self._greet(client)
            await self._begin_tls(client, self._server_name or candidate.endpoint.host)
        except BaseException:
            _abort(client)
            sock.close()
            raise
        return Secured(client, candidate.endpoint)

    async def _connect(self, candidate: Candidate) -> socket.socket:
        try:
            sock = socket.socket(candidate.family, socket.SOCK_STREAM)
        except OSError as error:  # a host without IPv6, or no file descriptor left
            raise _failure(Phase.CONNECT, FailureKind.REFUSED, _problem(error)) from error
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._timeouts.connect):
                await asyncio.get_running_loop().sock_connect(sock, candidate.address)
        except TimeoutError as error:
            sock.close()
            text = f"no connection within {self._timeouts.connect:g} s"
            raise _failure(Phase.CONNECT, FailureKind.TIMEOUT, text) from error
        except OSError as error:
            sock.close()
            raise _failure(Phase.CONNECT, FailureKind.REFUSED, _problem(error)) from error
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def _greet(self, client: SMTP) -> None:
        limit = self._timeouts.banner
        try:
            await client.connect(timeout=limit)
        except aiosmtplib.SMTPTimeoutError as error:
            raise _failure(Phase.BANNER, FailureKind.TIMEOUT, f"no greeting within {limit:g} s") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refused(Phase.BANNER, error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _failure(Phase.BANNER, FailureKind.LOST, "closed before the greeting") from error

    async def _begin_tls(self, client: SMTP, name: str) -> None:
        await self._ehlo(client)
        if not client.supports_extension("starttls"):
            raise _failure(Phase.STARTTLS, FailureKind.NOT_OFFERED, "STARTTLS is not offered")
        try:
            await client.starttls(server_hostname=name, tls_context=self._tls, timeout=self._timeouts.command)
        except aiosmtplib.SMTPResponseException as error:
            raise _refused(Phase.STARTTLS, error) from error
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate does not verify for {name}: {error.verify_message.rstrip('.')}"
            raise _failure(Phase.TLS, FailureKind.UNVERIFIED, text) from error
        except aiosmtplib.SMTPTimeoutError as error:
            text = f"no TLS handshake within {self._timeouts.command:g} s"
            raise _failure(Phase.TLS, FailureKind.TIMEOUT, text) from error
        except ssl.SSLError as error:
            text = f"TLS handshake failed: {(error.reason or 'unknown reason').lower().replace('_', ' ')}"
            raise _failure(Phase.TLS, FailureKind.HANDSHAKE, text) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _failure(Phase.TLS, FailureKind.HANDSHAKE, "closed during the TLS handshake") from error

    async def log_in(self, secured: Secured, login: Login) -> Session:
        """EHLO again, AUTH LOGIN and nothing else; raises UpstreamFailure, and then the connection is gone."""
        client = secured.client
        try:
            await self._ehlo(client)
            if "login" not in client.server_auth_methods:
                raise _failure(Phase.AUTH, FailureKind.NOT_OFFERED, "AUTH LOGIN is not offered under TLS")
            try:
                await client.auth_login(login.username, login.key.reveal(), timeout=self._timeouts.command)
            except aiosmtplib.SMTPAuthenticationError as error:
                raise _refused(Phase.AUTH, error) from error
            except aiosmtplib.SMTPResponseException as error:
                raise _refused(Phase.AUTH, error) from error
            except aiosmtplib.SMTPTimeoutError as error:
                text = f"no answer to AUTH within {self._timeouts.command:g} s"
                raise _failure(Phase.AUTH, FailureKind.TIMEOUT, text) from error
            except (aiosmtplib.SMTPException, OSError) as error:
                raise _failure(Phase.AUTH, FailureKind.LOST, "closed at AUTH") from error
            transport = _transport(client)
            if transport is None or transport.is_closing():
                raise _failure(Phase.AUTH, FailureKind.LOST, "closed after AUTH")
        except BaseException:
            secured.abort()
            raise
        level = self._pipelining.level(secured.endpoint)
        features = Features(
            pipelining=client.supports_extension("pipelining") and level is not Level.OFF,
            eight_bit=client.supports_extension("8bitmime"),
            size=client.supports_extension("size"),
        )
        session = Session(
            transport,
            login,
            secured.endpoint,
            features,
            self._session_timeouts,
            messages=self._messages,
            chained=level is Level.FULL,
            on_misbehaviour=lambda: self._pipelining.step_down(secured.endpoint, level),
        )
        transport.set_protocol(session)
        # The client has done its part. It and its connection hold each other: left so, each connection would keep a
        # quarter of a megabyte from its end until the garbage collector comes round.
        client.protocol = client.transport = None
        return session

    async def _ehlo(self, client: SMTP) -> None:
        try:
            await client.ehlo(timeout=self._timeouts.command)
        except aiosmtplib.SMTPTimeoutError as error:
            text = f"no answer to EHLO within {self._timeouts.command:g} s"
            raise _failure(Phase.EHLO, FailureKind.TIMEOUT, text) from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refused(Phase.EHLO, error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _failure(Phase.EHLO, FailureKind.LOST, "closed at EHLO") from error


def _abort(client: SMTP) -> None:
    """Close without waiting for the peer's part of the TLS shutdown (up to 30 s in asyncio)."""
    transport = _transport(client)
    if transport is not None:
        transport.abort()


def _transport(client: SMTP) -> asyncio.Transport | None:
    return cast("asyncio.Transport | None", client.transport)  # aiosmtplib declares less than it has


def _problem(error: OSError) -> str:
    """The system's word for it: asyncio puts a sentence of its own, the same for every cause, in its place."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _failure(phase: Phase, kind: FailureKind, detail: str) -> UpstreamFailure:
    return UpstreamFailure(Failure(phase, kind, detail))


def _refused(phase: Phase, error: aiosmtplib.SMTPResponseException) -> UpstreamFailure:
    """A reply that says no, or octets that are no reply at all."""
    if error.code == _NO_REPLY or not 200 <= error.code <= 599:
        return _failure(phase, FailureKind.PROTOCOL, f"no SMTP reply at {phase.value.upper()}")
    # aiosmtplib keeps octets that are no UTF-8 as lone surrogates, which no file and no database takes.
    message = error.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return UpstreamFailure(Answer(phase, Reply.parse(error.code, message.split("\n"))))
