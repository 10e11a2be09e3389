"""From the socket to the login, against a peer that misbehaves at one step: bounded, in time, and told apart."""

import asyncio
import contextlib
import socket
import ssl

import pytest
import trustme

from relay.core.login import Endpoint, Login, Target
from relay.core.outcome import Answer, Deferred, Failure, FailureKind, Phase, classify
from relay.core.secret import Secret
from relay.upstream.addresses import Candidate
from relay.upstream.failure import UpstreamFailure
from relay.upstream.pipelining import Level, Pipelining
from relay.upstream.smtp import Handshake
from relay.upstream.timeouts import HandshakeTimeouts, SessionTimeouts

LOGIN = Login(Target("localhost", (587,)), "SMTP_Injection", Secret("key"), "default")
# What is said at each step of the dialogue, where all is well.
STEPS = {
    "greeting": b"220 ready\r\n",
    "ehlo": b"250-here\r\n250 STARTTLS\r\n",
    "starttls": b"220 go on\r\n",
    "ehlo under TLS": b"250-here\r\n250 AUTH LOGIN\r\n",
    "auth": b"334 UGFzc3dvcmQ6\r\n",
    "password": b"235 2.7.0 ok\r\n",
}
PHASES = {
    "greeting": Phase.BANNER,
    "ehlo": Phase.EHLO,
    "starttls": Phase.STARTTLS,
    "ehlo under TLS": Phase.EHLO,
    "auth": Phase.AUTH,
    "password": Phase.AUTH,
}
MUCH = 16 << 20  # octets; far more than sockets hold, so a peer that wrote them all was read to the end


class Peer:
    """Says what STEPS has, but `octets` at `step`, over and over if `endless`; counts what it could write of them."""

    def __init__(self, context: ssl.SSLContext, step: str, octets: bytes, *, endless: bool = False) -> None:
        self._context = context
        self._step = step
        self._octets = octets
        self._endless = endless
        self.written = 0
        self.heard = bytearray()
        self.connections: list[int] = []
        self.idle = asyncio.Event()
        self.idle.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.idle.clear()
        plain = writer.transport
        with contextlib.suppress(OSError, ssl.SSLError):
            for step, usual in STEPS.items():
                if step != "greeting":
                    self.heard += await reader.readline()
                if step == self._step:
                    await self._misbehave(writer)
                    await reader.read()
                    break
                writer.write(usual)
                if step == "starttls":
                    await writer.start_tls(self._context)
            else:
                await reader.read()
        writer.transport.abort()
        plain.abort()
        await asyncio.sleep(0)
        self.idle.set()

    async def _misbehave(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._octets)
        while self._endless and self.written < MUCH:
            writer.write(self._octets)
            self.written += len(self._octets)
            await writer.drain()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@contextlib.asynccontextmanager
async def dialled(authority, step: str, octets: bytes, **options):
    """The peer and a function that goes the whole way to a login."""
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_side)
    authority.configure_trust(client_side)
    handshake = Handshake(
        hostname="relay.test",
        tls=client_side,
        server_name=None,
        timeouts=HandshakeTimeouts(connect=5, banner=5, command=5),
        session_timeouts=SessionTimeouts(5, 5, 5),
        messages=100,
        pipelining=Pipelining(Level.FULL),
    )
    peer = Peer(server_side, step, octets, **options)
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    candidate = Candidate(Endpoint("localhost", port, "127.0.0.1"), socket.AF_INET, ("127.0.0.1", port))

    connections = peer.connections

    async def go():
        async with asyncio.timeout(10):
            return await handshake.log_in(await handshake.secure(candidate, lambda: connections.append(1)), LOGIN)

    try:
        yield peer, go
    finally:
        server.close()
        await asyncio.wait_for(peer.idle.wait(), 5)
        await server.wait_closed()


async def test_all_is_well(authority):
    """The script itself leads to a session."""
    async with dialled(authority, "", b"") as (peer, go):
        session = await go()
        session.abort()

    assert peer.heard.count(b"EHLO relay.test\r\n") == 2
    assert len(peer.connections) == 1


async def test_what_is_sent_in_clear_behind_the_220_is_no_reply_under_tls(authority, monkeypatch):
    """Somebody on the way adds replies to the last one in clear (RFC 3207 §6): none of them is heard afterwards."""
    injected = b"250-evil\r\n250 AUTH PLAIN\r\n334 \r\n235 2.7.0 ok\r\n"
    monkeypatch.setitem(STEPS, "starttls", STEPS["starttls"] + injected)
    async with dialled(authority, "", b"") as (peer, go):
        session = await go()
        session.abort()

    assert peer.heard.count(b"EHLO relay.test\r\n") == 2
    assert b"AUTH LOGIN" in peer.heard


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("flood", ["lines", "one line"])
async def test_a_reply_without_end_is_given_up(authority, step, flood):
    """At no step does it cost more memory than a reply may have; it is no answer, so nothing is bounced for it."""
    code = STEPS[step][:3]
    octets = (code + b"-and more\r\n") * 4096 if flood == "lines" else code + b"-" + b"x" * 65536
    async with dialled(authority, step, octets, endless=True) as (peer, go):
        with pytest.raises(UpstreamFailure) as failure:
            await go()

    assert peer.written < MUCH
    assert isinstance(failure.value.fact, Failure)
    assert (failure.value.fact.phase, failure.value.fact.kind) == (PHASES[step], FailureKind.PROTOCOL)
    assert isinstance(classify(failure.value.fact), Deferred)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("octets", [b"\x00\xff\x16\x03\x01 \x80\r\n", b"\r\n", b"150 hm\r\n"])
async def test_octets_that_are_no_reply(authority, step, octets):
    """What speaks there is no SMTP server, or no longer one."""
    async with dialled(authority, step, octets) as (_, go):
        with pytest.raises(UpstreamFailure) as failure:
            await go()

    assert isinstance(failure.value.fact, Failure)
    assert (failure.value.fact.phase, failure.value.fact.kind) == (PHASES[step], FailureKind.PROTOCOL)


@pytest.mark.parametrize("step", STEPS)
async def test_not_now_at_each_step(authority, step):
    """421 is heard as that, with its phase, and is nobody's fault but the moment's."""
    async with dialled(authority, step, b"421 4.3.2 later\r\n") as (_, go):
        with pytest.raises(UpstreamFailure) as failure:
            await go()

    fact = failure.value.fact
    assert isinstance(fact, Answer)
    assert (fact.phase, fact.reply.code) == (PHASES[step], 421)
    assert isinstance(classify(fact), Deferred)
    assert classify(fact).cause is None


@pytest.mark.parametrize("step", STEPS)
async def test_a_refusal_that_is_no_utf_8(authority, step):
    """Its text goes into the log and the ledger, which take nothing that is no text."""
    async with dialled(authority, step, b"454 4.7.0 pas l\xe0, d\xc3\xa9sol\xc3\xa9\r\n") as (_, go):
        with pytest.raises(UpstreamFailure) as failure:
            await go()

    assert str(failure.value.fact) == "454 4.7.0 pas l\ufffd, d\u00e9sol\u00e9"


async def test_an_address_family_that_the_host_has_not(monkeypatch, authority):
    """A kernel without IPv6 refuses the socket: that address has failed, and the next is tried."""

    def refuse(*arguments):
        raise OSError(97, "Address family not supported by protocol")

    async with dialled(authority, "", b"") as (peer, go):
        monkeypatch.setattr("relay.upstream.smtp.socket.socket", refuse)
        with pytest.raises(UpstreamFailure) as failure:
            await go()
        monkeypatch.undo()

    assert (failure.value.fact.phase, failure.value.fact.kind) == (Phase.CONNECT, FailureKind.REFUSED)
    assert peer.connections == []
    assert "address family not supported" in str(failure.value)
