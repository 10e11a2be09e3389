"""`sparkpost-relay doctor`: the whole way to SparkPost, tried step by step, without sending mail.

It walks the same dial and handshake as the relay: names, every port by every address family, greeting, STARTTLS,
certificate, and AUTH for each login that mail travels under; where HTTPS may be used, that too, for each credential.
One line a finding; each fault with its remedy. Addresses that fail are only a warning while others work, and so are
ports while HTTPS works: the relay goes round them by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relay.admin.tables import printable
from relay.config import Config
from relay.core.login import Login, Target, bare, origin, subaccount_of
from relay.core.outcome import Answer, Cause, Fact, Failure, FailureKind, HttpAnswer, Outcome, Phase, classify
from relay.policy.credentials import Credentials
from relay.upstream.addresses import Candidate, Names
from relay.upstream.assembly import build_handshake, build_https
from relay.upstream.failure import UpstreamFailure, not_now
from relay.upstream.http_api import HttpChannel
from relay.upstream.smtp import Handshake

PATIENCE: Final = 10.0  # seconds
_MOST_LOGINS: Final = 10  # of a credential; an operator reads a line for each


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` for everything that is not ok.

    The text may be somebody's reply, and before TLS that can be anybody's.
    """

    verdict: Verdict
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<8} {self.subject:<12} {printable(self.text)}"
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

_GOING_AWAY: Final = 421
_ABOUT_TIME: Final = ("certificate has expired", "certificate is not yet valid")  # OpenSSL's words


async def examine(config: Config) -> int:
    """Print the findings; 0 if mail would flow with every credential, 1 if not."""
    config = _impatient(config)
    handshake = build_handshake(config)
    credentials = Credentials.from_config(config)
    channel = build_https(config, credentials.api_url)
    https = _Https(channel, credentials) if config.upstream.http.enabled else None
    logins = _logins(config, credentials)
    targets = dict.fromkeys([login.target for login in logins] or [Target(config.upstream.host, config.upstream.ports)])
    healthy = True
    for target in targets:
        its_own = [login for login in logins if login.target == target]
        async for finding in _examine_target(handshake, https, target, its_own):
            print(finding, flush=True)  # at once: the next may take as long as a silent port is waited for
            healthy = healthy and finding.verdict is not Verdict.FAULT
    await channel.close()
    if not logins:
        print(
            Finding(Verdict.OK, "AUTH", "no credential of the relay's own: applications present theirs (passthrough)")
        )
    print("\nmail would flow" if healthy else "\nmail would not flow: see the faults above")
    return 0 if healthy else 1


def _logins(config: Config, credentials: Credentials) -> list[Login]:
    """What mail travels under: of each credential a login for every subaccount that an identity has.

    The bare login is among them where an identity has none, or captures it, and for a credential that none names. A key
    may be good for a subaccount alone: where no mail needs the bare login, its refusal is no fault.
    """
    wanted: dict[str, dict[int | None, None]] = {name: {} for name in config.credentials}
    for identity in config.identities:
        wanted[identity.credential][identity.subaccount] = None
    logins = (credentials.login_of(name, number) for name, numbers in wanted.items() for number in numbers or (None,))
    return [login for login in logins if login is not None]


def _impatient(config: Config) -> Config:
    """An operator is watching, and what takes longer than this is worth a finding: no phase may take more."""
    limits = config.upstream.timeouts
    capped = {name: min(getattr(limits, name), PATIENCE) for name in ("connect", "banner", "command")}
    upstream = config.upstream.model_copy(update={"timeouts": limits.model_copy(update=capped)})
    return config.model_copy(update={"upstream": upstream})


async def _examine_target(
    handshake: Handshake, https: "_Https | None", target: Target, logins: Sequence[Login]
) -> AsyncIterator[Finding]:
    started = asyncio.get_running_loop().time()
    working: list[Candidate] = []
    try:
        found = await Names(PATIENCE).candidates(target.host, target.ports, started + PATIENCE)
    except UpstreamFailure as failure:
        proofs = ways_round = await _prove(https, logins)
        yield Finding(_verdict(passable=_all_good(proofs)), "DNS", str(failure), _remedy(failure.fact))
    else:
        addresses = dict.fromkeys(candidate.endpoint.address for candidate in found)
        took = _milliseconds(asyncio.get_running_loop().time() - started)
        yield Finding(Verdict.OK, "DNS", f"{target.host} is {', '.join(addresses)} ({took})")
        probing = asyncio.gather(*(_probe(handshake, candidate) for candidate in found))
        probes, proofs = await asyncio.gather(probing, _prove(https, logins))
        working = [candidate for candidate, result in zip(found, probes, strict=True) if not isinstance(result, Fact)]
        present = any(isinstance(result, Fact) and not_now(result) for result in probes)
        ways_round = {} if present else proofs  # who is there and says "not now" is not gone round
        for candidate, result in zip(found, probes, strict=True):
            yield _port_finding(candidate, result, passable=bool(working) or _all_good(ways_round))
    for name in dict.fromkeys(login.credential for login in logins):
        its_own = [login for login in logins if login.credential == name]
        if not working:
            yield _untried(name, ways_round.get(name))
            continue
        for login in its_own[:_MOST_LOGINS]:
            yield await _auth_finding(handshake, working[0], login)
        if left := its_own[_MOST_LOGINS:]:
            yield Finding(Verdict.OK, f"AUTH {name}", f"{len(left)} more logins of it are not tried")
    for name, proof in proofs.items():
        yield proof.finding(name, passable=bool(working))


def _verdict(*, passable: bool) -> Verdict:
    """Of what does not work: only a warning if mail gets past it."""
    return Verdict.WARNING if passable else Verdict.FAULT


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


def _port_finding(candidate: Candidate, result: _Secured | Fact, *, passable: bool) -> Finding:
    subject = f"port {candidate.endpoint.port}"
    if isinstance(result, _Secured):
        text = f"{candidate.endpoint.address}: {result.tls}, certificate verified until {result.expires}"
        return Finding(Verdict.OK, subject, f"{text} ({_milliseconds(result.seconds)})")
    text = f"{candidate.endpoint.address}: {result}"
    return Finding(_verdict(passable=passable), subject, text, _remedy(result))


async def _auth_finding(handshake: Handshake, candidate: Candidate, login: Login) -> Finding:
    subject = f"AUTH {login.credential}"
    started = asyncio.get_running_loop().time()
    failure = await _log_in(handshake, candidate, login)
    if failure is None:
        took = _milliseconds(asyncio.get_running_loop().time() - started)
        return Finding(Verdict.OK, subject, f"accepted as {login.username} on port {candidate.endpoint.port} ({took})")
    alone = bare(login)
    if alone == login:
        return Finding(Verdict.FAULT, subject, str(failure), _remedy(failure.fact))
    remedy = _remedy(failure.fact)
    if _refuses_login(failure.fact) and await _log_in(handshake, candidate, alone) is None:
        remedy = (
            f"the key itself is good: is {subaccount_of(login.username)} a subaccount of its account, and active? The"
            " own key of a subaccount goes without identities[].subaccount"
        )
    return Finding(Verdict.FAULT, subject, f"as {login.username}: {failure}", remedy)


async def _log_in(handshake: Handshake, candidate: Candidate, login: Login) -> UpstreamFailure | None:
    """None if SparkPost takes the login, and goodbye."""
    try:
        session = await handshake.log_in(await handshake.secure(candidate), login)
    except UpstreamFailure as failure:
        return failure
    await session.quit()
    return None


def _untried(credential: str, over_https: "_Proof | None") -> Finding:
    """No port works; mail of the credential may go by HTTPS all the same."""
    passable = over_https is not None and over_https.refusal is None
    text = f"not tried: no port of SparkPost's can be used{'; its mail goes by HTTPS' if passable else ''}"
    return Finding(_verdict(passable=passable), f"AUTH {credential}", text, "see the ports above")


def _refuses_login(fact: Fact) -> bool:
    return classify(fact).cause is Cause.LOGIN_REFUSED


def _remedy(fact: Fact) -> str:
    if _refuses_login(fact):
        return (
            "the key is wrong, belongs to another region (US keys are not valid on the EU host), lacks the permission "
            '"Send via SMTP", or is bound to other IP addresses: compare it in SparkPost, under API keys'
        )
    match fact:
        case Failure(kind=FailureKind.UNVERIFIED, detail=text) if text.endswith(_ABOUT_TIME):
            return "if this host's clock is right, this is not SparkPost, or its certificate was not renewed"
        case Failure(kind=kind) if kind in _REMEDIES:
            return _REMEDIES[kind]
        case Answer(phase=Phase.AUTH):
            return "SparkPost cannot check the key at the moment: try again"
        case Answer(phase=Phase.STARTTLS, reply=reply) if reply.code != _GOING_AWAY:
            return (
                "a mail proxy or an antivirus between here and SparkPost may refuse it: exempt this host; or try again"
            )
        case Answer(reply=reply) if reply.transient:
            return "SparkPost asks to be left alone for now: try again later"
        case _:
            return f"what answers does not want this host: {_PORT_BLOCKED}"


_TOO_MANY: Final = 429
_OF_PROXIES: Final = (407, 511)  # which ask for a login of their own; SparkPost says neither


# -- HTTPS ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Https:
    channel: HttpChannel
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class _Proof:
    """What the API says of a key: None, or why it may not send. `where` is None if there is no API for it."""

    where: str | None
    refusal: Outcome | None
    seconds: float

    def finding(self, credential: str, *, passable: bool) -> Finding:
        subject = f"HTTPS {credential}"
        if self.refusal is None:
            text = (
                f"{self.where}: the key may send ({_milliseconds(self.seconds)}); domain and quota show with mail only"
            )
            return Finding(Verdict.OK, subject, text)
        text = str(self.refusal.fact) if self.where is None else f"{self.where}: {self.refusal.fact}"
        return Finding(_verdict(passable=passable), subject, text, _https_remedy(credential, self.refusal))


async def _prove(https: _Https | None, logins: Sequence[Login]) -> Mapping[str, _Proof]:
    """Each credential's key shown to its API with a request that sends nothing; empty where HTTPS is not wanted.

    One login of each will do: the API does not look at the subaccount of such a request.
    """
    if https is None:
        return {}
    keys: dict[str, Login] = {}
    for login in logins:
        keys.setdefault(login.credential, login)
    return dict(zip(keys, await asyncio.gather(*(_prove_one(https, one) for one in keys.values())), strict=True))


async def _prove_one(https: _Https, login: Login) -> _Proof:
    started = asyncio.get_running_loop().time()
    refusal = await https.channel.prove(login, patience=PATIENCE)
    url = https.credentials.api_url(login)
    return _Proof(url and origin(url), refusal, asyncio.get_running_loop().time() - started)


def _all_good(proofs: Mapping[str, _Proof]) -> bool:
    return bool(proofs) and all(proof.refusal is None for proof in proofs.values())


def _https_remedy(credential: str, refusal: Outcome) -> str:
    match refusal:
        case Outcome(fact=HttpAnswer(status=status, code=None, text=text)) if status in _OF_PROXIES or (
            not text and status < 500 and status != _TOO_MANY
        ):
            return (
                "what answers is not SparkPost's API, or not at this path: a proxy, a filter or a login page of this"
                " network in its place? Exempt this host; else check upstream.http.url"
            )
        case Outcome(cause=Cause.LOGIN_REFUSED):
            return (
                "the key is wrong, belongs to another region than upstream.http.url, or is bound to other IP addresses:"
                " compare it in SparkPost, under API keys"
            )
        case Outcome(cause=Cause.NO_HTTP_GRANT):
            return (
                'give the key the permission "Transmissions: Read/Write" in SparkPost, under API keys; without it, its'
                " mail waits for SMTP"
            )
        case Outcome(cause=Cause.SMTP_ONLY):
            return f"name credentials.{credential}.upstream.http.url; without it, its mail waits for SMTP"
        case Outcome(fact=HttpAnswer(elsewhere=True)):
            return "SparkPost's API is not there: check the path of upstream.http.url"
        case Outcome(fact=Answer()):
            return "SparkPost cannot check the key at the moment: try again"
        case _:
            return "check upstream.http.url, and that a firewall or a proxy lets this host reach it"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
