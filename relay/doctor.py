"""`sparkpost-relay doctor`: the whole way to SparkPost, tried step by step, without sending mail.

It walks the same dial and handshake as the relay: names, every port by every address family, greeting, STARTTLS,
certificate, and AUTH for each credential. One line a finding; each fault with its remedy. Addresses that fail are only
a warning while others work: the relay goes round them by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relay.app import build_handshake
from relay.config import Config
from relay.core.login import Assignment, Login, Target
from relay.core.outcome import Answer, Cause, Fact, Failure, FailureKind, Phase, classify
from relay.policy.credentials import Credentials
from relay.upstream.addresses import Candidate, candidates
from relay.upstream.failure import UpstreamFailure
from relay.upstream.smtp import Handshake

PATIENCE: Final = 10.0  # seconds


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` for everything that is not ok."""

    verdict: Verdict
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<8} {self.subject:<12} {self.text}"
        return f"{line}\n{'':<22}-> {self.remedy}" if self.remedy else line


_PORT_BLOCKED: Final = "a firewall or the hosting provider blocks this port: open it, or rely on the other port"
_REMEDIES: Final[Mapping[FailureKind, str]] = {
    FailureKind.REFUSED: f"nobody answers there, or {_PORT_BLOCKED}",
    FailureKind.TIMEOUT: _PORT_BLOCKED,
    FailureKind.LOST: f"something between here and SparkPost cuts the connection: {_PORT_BLOCKED}",
    FailureKind.NOT_OFFERED: "a mail proxy or an antivirus between here and SparkPost takes it away: exempt this host",
    FailureKind.UNVERIFIED: "this is not SparkPost, or its CA is private: see upstream.host, upstream.tls.ca_file",
    FailureKind.HANDSHAKE: "what answers speaks no TLS that the relay accepts: a proxy? compare upstream.tls.minimum",
    FailureKind.PROTOCOL: "what answers is no SMTP server: check upstream.host and upstream.ports",
    FailureKind.UNRESOLVED: "check upstream.host, and the name servers of this host (/etc/resolv.conf)",
}


async def examine(config: Config) -> int:
    """Print the findings; 0 if mail would flow with every credential, 1 if not."""
    handshake = build_handshake(_impatient(config))
    credentials = Credentials.from_config(config)
    logins = [credentials.login_for(Assignment("doctor", name, None)) for name in config.credentials]
    targets = dict.fromkeys([login.target for login in logins] or [Target(config.upstream.host, config.upstream.ports)])
    healthy = True
    for target in targets:
        async for finding in _examine_target(handshake, target, [login for login in logins if login.target == target]):
            print(finding, flush=True)  # at once: the next may take as long as a silent port is waited for
            healthy = healthy and finding.verdict is not Verdict.FAULT
    if not logins:
        print(
            Finding(Verdict.OK, "AUTH", "no credential of the relay's own: applications present theirs (passthrough)")
        )
    print("\nmail would flow" if healthy else "\nmail would not flow: see the faults above")
    return 0 if healthy else 1


def _impatient(config: Config) -> Config:
    """An operator is watching, and what takes longer than this is worth a finding: no phase may take more."""
    limits = config.upstream.timeouts
    capped = {name: min(getattr(limits, name), PATIENCE) for name in ("connect", "banner", "command")}
    upstream = config.upstream.model_copy(update={"timeouts": limits.model_copy(update=capped)})
    return config.model_copy(update={"upstream": upstream})


async def _examine_target(handshake: Handshake, target: Target, logins: Sequence[Login]) -> AsyncIterator[Finding]:
    started = asyncio.get_running_loop().time()
    try:
        found = await candidates(target.host, list(target.ports))
    except UpstreamFailure as failure:
        yield Finding(Verdict.FAULT, "DNS", str(failure), _remedy(failure.fact))
        return
    addresses = dict.fromkeys(candidate.endpoint.address for candidate in found)
    took = _milliseconds(asyncio.get_running_loop().time() - started)
    yield Finding(Verdict.OK, "DNS", f"{target.host} is {', '.join(addresses)} ({took})")
    probes = await asyncio.gather(*(_probe(handshake, candidate) for candidate in found))
    working = [candidate for candidate, result in zip(found, probes, strict=True) if not isinstance(result, Fact)]
    for candidate, result in zip(found, probes, strict=True):
        yield _port_finding(candidate, result, any_works=bool(working))
    for login in logins:
        yield await _auth_finding(handshake, working[0], login) if working else _untried(login)


@dataclass(frozen=True, slots=True)
class _Secured:
    seconds: float
    tls: str
    expires: str


async def _probe(handshake: Handshake, candidate: Candidate) -> _Secured | Fact:
    """Up to verified TLS, and goodbye."""
    started = asyncio.get_running_loop().time()
    try:
        secured = await handshake.secure(candidate)
    except UpstreamFailure as failure:
        return failure.fact
    seconds = asyncio.get_running_loop().time() - started
    try:
        return _Secured(seconds, secured.tls_version, secured.certificate_expires)
    finally:
        await secured.quit()


def _port_finding(candidate: Candidate, result: _Secured | Fact, *, any_works: bool) -> Finding:
    subject = f"port {candidate.endpoint.port}"
    if isinstance(result, _Secured):
        text = f"{candidate.endpoint.address}: {result.tls}, certificate verified until {result.expires}"
        return Finding(Verdict.OK, subject, f"{text} ({_milliseconds(result.seconds)})")
    verdict = Verdict.WARNING if any_works else Verdict.FAULT
    return Finding(verdict, subject, f"{candidate.endpoint.address}: {result}", _remedy(result))


async def _auth_finding(handshake: Handshake, candidate: Candidate, login: Login) -> Finding:
    subject = f"AUTH {login.credential}"
    started = asyncio.get_running_loop().time()
    try:
        session = await handshake.log_in(await handshake.secure(candidate), login)
    except UpstreamFailure as failure:
        return Finding(Verdict.FAULT, subject, str(failure), _remedy(failure.fact))
    seconds = asyncio.get_running_loop().time() - started
    await session.quit()
    text = f"accepted as {login.username} on port {candidate.endpoint.port} ({_milliseconds(seconds)})"
    return Finding(Verdict.OK, subject, text)


def _untried(login: Login) -> Finding:
    return Finding(
        Verdict.FAULT,
        f"AUTH {login.credential}",
        "not tried: no port of SparkPost's can be used",
        "see the ports above",
    )


def _remedy(fact: Fact) -> str:
    if classify(fact).cause is Cause.LOGIN_REFUSED:
        return (
            "the key is wrong, belongs to another region (US keys are not valid on the EU host), lacks the permission "
            '"Send via SMTP", or is bound to other IP addresses: compare it in SparkPost, under API keys'
        )
    match fact:
        case Failure(kind=kind) if kind in _REMEDIES:
            return _REMEDIES[kind]
        case Answer(phase=Phase.AUTH):
            return "SparkPost cannot check the key at the moment: try again"
        case Answer(reply=reply) if reply.transient:
            return "SparkPost asks to be left alone for now: try again later"
        case _:
            return f"what answers does not want this host: {_PORT_BLOCKED}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
