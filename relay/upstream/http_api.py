"""SparkPost's Transmissions API as a channel, for when no port of SMTP works: the only place that knows aiohttp.

One recipient in each request, because an answer that is yes and no at once cannot be mapped back (fact sheet 3.2). From
the moment the last octets of a request are handed to the transport, having no answer means that nobody knows: a failure
then is of phase RESPONSE, and only then. Connections are used again and shared by all logins: over HTTP each request
brings its own key, and no cookie is kept.
"""

import asyncio
import contextlib
import io
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, Any, Final

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

from relay.core.envelope import Recipient
from relay.core.login import Login, origin, subaccount_of
from relay.core.message import Message
from relay.core.outcome import STOPPING, Fact, Failure, FailureKind, HttpAnswer, Outcome, Phase, Scope, classify, defect
from relay.core.ports import AttemptReport, Effort, Permit
from relay.core.secret import MASK
from relay.observe import log as events
from relay.upstream.addresses import Names
from relay.upstream.api_answers import MAX_ANSWER, read_answer
from relay.upstream.failure import UpstreamFailure
from relay.upstream.transmission import NotOverHttps, head, wishes
from relay.upstream.upload import SMALL, Upload, encode, scratch

log = structlog.get_logger()

CONNECTIONS: Final = 10  # fact sheet 3.2
ANSWER_SECONDS: Final = 300.0  # fact sheet 3.2
_REST_SECONDS: Final = 30.0  # for the rest of an answer that has begun
_IDLE_SECONDS: Final = 15.0
_STAND_IN_SECONDS: Final = 2.0  # for a lookup, where an earlier one has found addresses
_LEAST_PATIENCE: Final = 0.5  # seconds: once there is a connection to be had, it gets a fair chance
_UNDERSTOOD: Final = frozenset({400, 413, 422})  # the key was good for asking
_OURS: Final = frozenset({FailureKind.LEASE, FailureKind.WITHHELD})  # not sent, and the next is not for the same reason
_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_BROKEN: Final = (aiohttp.ClientError, OSError, ValueError)  # TimeoutError is an OSError


class HttpChannel:
    """A Channel over HTTPS, and a LoginProof."""

    def __init__(
        self,
        api_url: Callable[[Login], str | None],
        tls: ssl.SSLContext,
        *,
        connections: int = CONNECTIONS,
        connect_seconds: float,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`api_url` gives the API's URL of the account that a login belongs to; None if there is none for it."""
        self._api_url = api_url
        self._tls = tls
        self._connections = min(connections, CONNECTIONS)
        self._slots = asyncio.Semaphore(self._connections)
        self._busy: Counter[tuple[str, str, str]] = Counter()
        self._connect_seconds = connect_seconds
        self._resolver = _Resolver(Names(_STAND_IN_SECONDS))
        self._answer_seconds = answer_seconds
        self._session: aiohttp.ClientSession | None = None

    @property
    def sessions(self) -> Counter[tuple[str, str, str]]:
        """How many requests there are of each credential, by endpoint, all of them "busy".

        A connection that is idle belongs to no credential, and closes soon.
        """
        return +self._busy

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(
        self, message: Message, recipients: Sequence[Recipient], login: Login, effort: Effort
    ) -> AttemptReport:
        url = self._api_url(login)
        with scratch() as encoded:
            try:
                headers = _headers(login)
                asked = wishes(message.content.header)
                if url is None:
                    raise NotOverHttps(f"no upstream.http.url is known for credential {login.credential}")
                if effort.whole and len(recipients) > 1:
                    raise NotOverHttps("a message for several recipients at once needs a spool for that")
                if message.content.size <= SMALL and not message.content.eight_bit:
                    encode(message.content, encoded)
                else:
                    await asyncio.to_thread(encode, message.content, encoded)
            except NotOverHttps as reason:
                failure = Failure(Phase.REQUEST, FailureKind.SMTP_ONLY, f"not sent over HTTPS: {reason}")
            except OSError as error:
                text = f"the content cannot be read, or not be put together for HTTPS: {error.strerror}"
                failure = Failure(Phase.REQUEST, FailureKind.LOST, text)
            else:
                return await self._send_all(url, headers, encoded, recipients, asked, login, effort)
        outcome = classify(failure)
        return AttemptReport(tuple((recipient, outcome) for recipient in recipients))

    async def _send_all(
        self,
        url: str,
        headers: Mapping[str, str],
        encoded: IO[bytes],
        recipients: Sequence[Recipient],
        asked: Mapping[str, Any],
        login: Login,
        effort: Effort,
    ) -> AttemptReport:
        """A request for each recipient, as long as there is hope for the next."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        connecting = 0.0
        outcomes: list[Outcome] = []
        for recipient in recipients:
            if outcomes and (rest := _hopeless(outcomes)) is not None:
                outcomes.append(rest)
                continue
            if outcomes and effort.permit.ending:
                outcomes.append(classify(STOPPING))
                continue
            upload = Upload(head(recipient, asked), encoded, effort.permit, self._answer_seconds)
            begun = loop.time()
            outcomes.append(classify(await self._post(url, headers, upload, effort.patience, login)))
            connecting += (upload.started or loop.time()) - begun
        reached = any(outcome.fact.phase in (Phase.REQUEST, Phase.RESPONSE) for outcome in outcomes)
        return AttemptReport(
            tuple(zip(recipients, outcomes, strict=True)),
            origin(url) if reached else None,
            connecting,
            loop.time() - started - connecting,
        )

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        """None if SparkPost takes the login's key for sending; else the outcome that says why not.

        A transmission without recipients and content sends nothing and is always refused: with 401 for the key, 403 for
        its permission, and only then for what is missing. That the key may send for this subaccount, or from any
        domain, is not in the answer.
        """
        url = self._api_url(login)
        try:
            if url is None:
                raise NotOverHttps(f"no upstream.http.url is known for credential {login.credential}")
            headers = _headers(login)
        except NotOverHttps as reason:
            return classify(Failure(Phase.REQUEST, FailureKind.SMTP_ONLY, str(reason)))
        with io.BytesIO() as nothing:
            upload = Upload(b"{}", nothing, Permit(), min(patience, self._answer_seconds), tail=b"")
            fact = await self._post(url, headers, upload, patience, login)
        if isinstance(fact, HttpAnswer):
            return None if fact.status in _UNDERSTOOD else classify(fact)
        if isinstance(fact, Failure) and fact.phase is Phase.RESPONSE:
            fact = replace(fact, phase=Phase.REQUEST)  # nothing can have been taken
        return classify(fact)

    async def _post(self, url: str, headers: Mapping[str, str], upload: Upload, patience: float, login: Login) -> Fact:
        """One request, as soon as a connection is free for it: its answer, or how none came."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        try:
            async with asyncio.timeout_at(until):
                await self._slots.acquire()
        except TimeoutError:
            text = f"all connections are busy, and none became free within {patience:.1f} s"
            return Failure(Phase.CONNECT, FailureKind.DEADLINE, text)
        with self._in_slot((login.credential, origin(url), "busy")):
            return await self._exchange(url, headers, upload, max(until - loop.time(), _LEAST_PATIENCE), login)

    @contextlib.contextmanager
    def _in_slot(self, label: tuple[str, str, str]) -> Iterator[None]:
        self._busy[label] += 1
        try:
            yield
        finally:
            self._busy[label] -= 1
            self._slots.release()

    async def _exchange(
        self, url: str, headers: Mapping[str, str], upload: Upload, patience: float, login: Login
    ) -> Fact:
        try:
            async with asyncio.timeout(patience) as limit:
                request = self._client().post(
                    f"{url}/transmissions",
                    data=upload.pieces(limit, patience),
                    headers={**headers, "Content-Length": str(upload.size)},
                    allow_redirects=False,  # the key is for this host
                )
                async with request as response:
                    complete = upload.stop()
                    limit.reschedule(None)
                    answer = read_answer(response.status, await _body(response, login.key.reveal()))
                    if complete:
                        return answer
                    response.close()
                    return answer if response.status >= 400 else _failure(upload, FailureKind.PROTOCOL)
        except aiohttp.ClientConnectorDNSError as error:
            return Failure(Phase.RESOLVE, FailureKind.UNRESOLVED, f"{error.host} has no address")
        except aiohttp.ClientConnectorCertificateError as error:
            return Failure(Phase.TLS, FailureKind.UNVERIFIED, f"the certificate of {error.host} does not verify")
        except aiohttp.ClientSSLError as error:
            return Failure(Phase.TLS, FailureKind.HANDSHAKE, f"TLS with {error.host} did not come about")
        except TimeoutError:
            return _failure(upload, FailureKind.TIMEOUT)
        except aiohttp.ClientConnectorError as error:
            return Failure(Phase.CONNECT, FailureKind.REFUSED, (error.strerror or "no connection").lower())
        except (aiohttp.ClientResponseError, ValueError):
            return _failure(upload, FailureKind.PROTOCOL)
        except (aiohttp.ClientError, OSError):
            return _failure(upload, FailureKind.LOST)
        except Exception:  # the requests before this one have had their answers, and these must not be lost
            log.exception(events.INTERNAL_ERROR)
            return defect(sent=upload.phase is Phase.RESPONSE)
        finally:
            upload.stop()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._tls,
                resolver=self._resolver,
                limit=self._connections,
                keepalive_timeout=_IDLE_SECONDS,
                use_dns_cache=False,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
                auto_decompress=False,
            )
        return self._session


class _Resolver(AbstractResolver):
    """Looks names up as all of the relay does."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        try:
            found = await self._names.addresses(host)
        except UpstreamFailure as failure:
            raise OSError(str(failure)) from failure
        one = partial(ResolveResult, hostname=host, port=port, proto=0, flags=_NUMERIC)
        return [one(host=str(address[0]), family=kind) for kind, address in found if family in (0, kind)]

    async def close(self) -> None:
        """What is under way ends by itself."""


def _headers(login: Login) -> dict[str, str]:
    """What every request of a login says; raises NotOverHttps for a key that no header can carry."""
    key = login.key.reveal()
    if not (key.isascii() and key.isprintable()):
        raise NotOverHttps("the API key has characters that no HTTP header can carry")
    headers = {
        "Authorization": key,  # as it is, without "Bearer" (fact sheet 3.1)
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "sparkpost-relay",
    }
    subaccount = subaccount_of(login.username)
    return headers if subaccount is None else {**headers, "X-MSYS-SUBACCOUNT": str(subaccount)}


async def _body(response: aiohttp.ClientResponse, key: str) -> bytes:
    """What stands in the answer, without the key should it repeat it; nothing if it does not come, or has no end."""
    octets = bytearray()
    with contextlib.suppress(*_BROKEN):
        async with asyncio.timeout(_REST_SECONDS):
            async for chunk in response.content.iter_any():
                octets += chunk
                if len(octets) > MAX_ANSWER:
                    break
            else:
                return bytes(octets).replace(key.encode(), MASK.encode())
    response.close()
    return b""


def _failure(upload: Upload, kind: FailureKind) -> Failure:
    """Where the request was when it broke off."""
    if upload.withheld:
        return Failure(upload.phase, FailureKind.LEASE, "the claim on the message ran out before it was sent")
    words = {
        FailureKind.TIMEOUT: {
            Phase.CONNECT: "no connection",
            Phase.REQUEST: "the request stood still",
            Phase.RESPONSE: "no answer",
        },
        FailureKind.LOST: {
            Phase.CONNECT: "no connection",
            Phase.REQUEST: "connection closed while the request was sent",
            Phase.RESPONSE: "connection closed without an answer",
        },
    }.get(kind, {})
    return Failure(upload.phase, kind, words.get(upload.phase, "octets that are no HTTP answer"))


def _hopeless(outcomes: Sequence[Outcome]) -> Outcome | None:
    """What becomes of the next recipient without being tried: the way, the key or the plan are at fault.

    One answer that blames the API may still be about its recipient, who must not keep the others waiting; two may not.
    """
    last = outcomes[-1]
    match last.fact:
        case HttpAnswer():
            faults = [one.scope for one in outcomes[-2:]]
            hopeless = last.scope in (Scope.LOGIN, Scope.CREDENTIAL) or faults == [Scope.ENDPOINT, Scope.ENDPOINT]
            return last if hopeless else None
        case Failure(phase=Phase.REQUEST | Phase.RESPONSE, kind=kind) if kind not in _OURS:
            text = f"not tried, as another request failed: {last.fact}"
            return classify(Failure(Phase.REQUEST, FailureKind.WITHHELD, text))
        case _:
            return last
