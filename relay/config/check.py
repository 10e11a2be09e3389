"""The rules across keys: names that must exist and be unique, addresses that clash, who may relay, who can log in.

Each rule is a function from the configuration to findings; `RULES` lists them with the sections they read, so that a
rule is not asked about what is already known to be broken.
"""

import datetime
import grp
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import argon2

from relay.config.addresses import IPNetwork
from relay.config.certificates import Flaw, examine_authorities, examine_pair
from relay.config.listening import ListenerAddress, SystemdAddress, TcpAddress, UnixAddress, clash
from relay.config.model import Config, Identity, Listener, Match
from relay.config.problems import Path
from relay.config.validation import NO_API_KEY

WIDEST: Final = {4: 8, 6: 32}  # shortest prefix that is still taken for "our own network" where no AUTH is asked for
ARGON2: Final = "$argon2"

SPARKPOST_CONNECTIONS: Final = 10  # fact sheet 1.3
SPARKPOST_MESSAGES: Final = 100  # per connection, fact sheet 1.3
SPARKPOST_IDLE: Final = 60.0  # seconds, fact sheet 1.3
SPARKPOST_SIZE: Final = 20_000_000  # octets, fact sheet 1.3
IMPLICIT_TLS_PORT: Final = 465


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found at a key; one that is not fatal is a warning."""

    path: Path
    text: str
    fatal: bool = True


def warning(path: Path, text: str) -> Finding:
    return Finding(path, text, fatal=False)


Rule = Callable[[Config], Iterator[Finding]]


def check(config: Config, broken: Iterable[Path]) -> Iterator[Finding]:
    """Every finding of every rule that can be asked, given the paths that did not make sense."""
    broken = frozenset(broken)
    sections = {path[0] for path in broken if path}
    elements = {path[:2] for path in broken}
    for rule, reads in RULES:
        if not sections & reads:
            yield from (finding for finding in rule(config) if finding.path[:2] not in elements)


# --- listeners


def listener_names(config: Config) -> Iterator[Finding]:
    """Two listeners of one name could not be told apart."""
    yield from _unique("listeners", [listener.name for listener in config.listeners])


def listener_addresses(config: Config) -> Iterator[Finding]:
    """Two sockets on one address: the second could not be opened."""
    taken: list[tuple[str, ListenerAddress]] = []
    if config.admin.address is not None:
        taken.append(("admin.address", config.admin.address))
    for index, listener in enumerate(config.listeners):
        for owner, address in taken:
            if clash(listener.address, address):
                another = "port" if isinstance(address, TcpAddress) else "address"
                text = f"{listener.address} is taken by {owner} on {address}: choose another {another}"
                yield Finding(("listeners", index, "address"), text)
                break
        taken.append((f"listener {listener.name}", listener.address))


def local_sockets(config: Config) -> Iterator[Finding]:
    """Who may connect to a Unix socket is a matter of its mode, and to a TCP socket, of the networks."""
    usual = Listener()
    for index, listener in enumerate(config.listeners):
        here, address = ("listeners", index), listener.address
        if isinstance(address, UnixAddress):
            if listener.networks != usual.networks:
                text = "not used: on a Unix socket there are none, and its mode and group say who may connect"
                yield warning((*here, "networks"), text)
            if listener.proxy_protocol:
                text = "not used: on a Unix socket the client is whoever the host says, and no header is expected"
                yield warning((*here, "proxy_protocol"), text)
            if listener.group is not None and not _group_exists(listener.group):
                text = f"there is no group {listener.group} on this host: `getent group` lists those there are"
                yield Finding((*here, "group"), text)
            continue
        remedy = "remove it"
        if isinstance(address, SystemdAddress):
            remedy = "systemd makes this one, with SocketMode= and SocketGroup= of the socket unit"
        for name in ("mode", "group"):
            if getattr(listener, name) != getattr(usual, name):
                yield Finding((*here, name), f"only for a Unix socket that the relay makes (unix:/path): {remedy}")


def listener_tls(config: Config) -> Iterator[Finding]:
    """A certificate with its key where TLS is spoken, and none where it is not."""
    for index, listener in enumerate(config.listeners):
        here, tls = ("listeners", index, "tls"), listener.tls
        given = {"certificate": tls.certificate, "key": tls.key}
        if tls.mode == "none":
            for name, value in given.items():
                if value is not None:
                    yield Finding((*here, name), "given, but tls.mode is none: set it to starttls or implicit")
            if tls.legacy:
                yield Finding((*here, "legacy"), "given, but tls.mode is none: set it to starttls or implicit")
        elif tls.certificate is None or tls.key is None:
            for name, value in given.items():
                if value is None:
                    yield Finding((*here, name), f"tls.mode {tls.mode} needs it: name the PEM file with the {name}")
        else:
            flaw = examine_pair(tls.certificate, tls.key, datetime.datetime.now(datetime.UTC))
            if flaw is not None:
                yield _from_flaw(here, flaw)


def open_relay(config: Config) -> Iterator[Finding]:
    """Strangers must not send mail in the operator's name."""
    for index, listener in enumerate(config.listeners):
        if listener.auth in ("none", "optional"):
            for position, network in enumerate(listener.proxy_protocol):
                if _is_wide(network):
                    text = f"{network} would make an open relay, as all of it may claim any address: name your proxies"
                    yield Finding(("listeners", index, "proxy_protocol", position), text)
        if not _exposed(listener):
            continue
        here = ("listeners", index, "networks")
        if "networks" not in listener.model_fields_set:
            how = "through proxies" if listener.proxy_protocol else "from other hosts"
            otherwise = "" if listener.proxy_protocol else ", or listen on localhost"
            yield Finding(
                here,
                f"listener {listener.name} can be reached {how}, but the default networks let none of those clients "
                f"in: give those of your applications, such as [10.0.0.0/8] (RELAY_NETWORKS){otherwise}",
            )
        elif listener.auth in ("none", "optional"):
            for position, network in enumerate(listener.networks):
                if _is_wide(network):
                    yield Finding(
                        (*here, position),
                        f"{network} would make an open relay: no login is asked for (auth: {listener.auth}). Name "
                        f"networks of /{WIDEST[network.version]} or longer, or set auth: required",
                    )


def plain_auth(config: Config) -> Iterator[Finding]:
    """Passwords do not cross a network in clear unless the operator says that they may."""
    for index, listener in enumerate(config.listeners):
        asks = listener.auth in ("required", "passthrough") or bool(_logins(config, listener))
        exposed = _exposed(listener) and listener.tls.mode == "none" and not listener.tls.allow_plain_auth
        if listener.auth != "none" and asks and exposed:
            yield Finding(
                ("listeners", index, "tls", "mode"),
                f"passwords would cross the network in clear (auth: {listener.auth}): set starttls or implicit with a "
                "certificate, or tls.allow_plain_auth: true if the network is trusted, or auth: none",
            )


def login_possible(config: Config) -> Iterator[Finding]:
    """A listener that demands a login needs an identity that can log in there."""
    for index, listener in enumerate(config.listeners):
        if listener.auth == "required" and not _logins(config, listener):
            yield Finding(
                ("listeners", index, "auth"),
                "nobody can log in here, as no identity has match.login and password for this listener: add one, or "
                "set auth: none",
            )


# --- identities


def identity_names(config: Config) -> Iterator[Finding]:
    """Logs, metrics and `explain` name identities."""
    yield from _unique("identities", [identity.name for identity in config.identities])


def identity_subaccount(config: Config) -> Iterator[Finding]:
    """One message has one subaccount: captured from the login, or fixed."""
    for index, identity in enumerate(config.identities):
        if not _captures(identity):
            continue
        if identity.subaccount is not None:
            text = "match.login captures {subaccount}, so a fixed one cannot be given: remove one of the two"
            yield Finding(("identities", index, "subaccount"), text)
        if identity.password is not None:
            yield warning(
                ("identities", index, "password"),
                "one password for every {subaccount} is one trust domain: whoever knows it can send as any of them",
            )


def identity_password(config: Config) -> Iterator[Finding]:
    """A login needs a password and a password its login; where applications present API keys, none is asked for."""
    for index, identity in enumerate(config.identities):
        here = ("identities", index)
        if _passthrough_only(config, identity):
            if identity.password is not None:
                text = "never asked for, as the password on a passthrough listener is an API key: remove it"
                yield Finding((*here, "password"), text)
        elif identity.match.login is None and identity.password is not None:
            yield Finding(
                (*here, "password"), "there is no match.login that it belongs to: add one, or remove the password"
            )
        elif identity.match.login is not None and identity.password is None:
            yield Finding((*here, "match", "login"), "a login needs a password: add password to this identity")
        if identity.password is not None and identity.password.reveal().startswith(ARGON2):
            try:
                argon2.extract_parameters(identity.password.reveal())
            except argon2.exceptions.InvalidHashError:
                text = "it begins like an argon2 hash and is none: make one with sparkpost-relay hash-password"
                yield Finding((*here, "password"), text)


def passthrough_identity(config: Config) -> Iterator[Finding]:
    """Where applications present API keys, a rule decides about senders and limits only."""
    for index, identity in enumerate(config.identities):
        if _passthrough_only(config, identity):
            for name in ("credential", "subaccount"):
                if name in identity.model_fields_set:
                    text = "not used: on a passthrough listener the application's own API key and user name decide"
                    yield warning(("identities", index, name), text)


def shared_logins(config: Config) -> Iterator[Finding]:
    """One login, one password: else it would depend on the message who the client is."""
    first: dict[str, Identity] = {}
    for index, identity in enumerate(config.identities):
        login = identity.match.login
        if login is None or identity.password is None:
            continue
        other = first.setdefault(login, identity)
        if other.password != identity.password:
            yield Finding(
                ("identities", index, "password"),
                f"identity {other.name} has the same login with another password: give both the same, letter by letter",
            )


def identity_listener(config: Config) -> Iterator[Finding]:
    """A rule for a listener that does not exist, or that never asks for the login, matches nothing."""
    listeners = {listener.name: listener for listener in config.listeners}
    for index, identity in enumerate(config.identities):
        here, name = ("identities", index, "match", "listener"), identity.match.listener
        if name is None:
            continue
        if name not in listeners:
            yield Finding(here, f"there is no listener {name}: there {_are(listeners)}")
        elif listeners[name].auth == "none" and identity.match.login is not None:
            yield warning(here, f"never matches: listener {name} offers no login (auth: none), and this rule needs one")


def identity_uid(config: Config) -> Iterator[Finding]:
    """The kernel tells who is at the other end of a Unix socket, and of no other."""
    for index, identity in enumerate(config.identities):
        match, here = identity.match, ("identities", index, "match", "uid")
        doors = [one.address for one in config.listeners if match.listener in (None, one.name)]
        if match.uid is None:
            continue
        if match.network is not None:
            yield warning(here, "never matches: who has a user id comes by a Unix socket, and from no network")
        elif doors and all(isinstance(address, TcpAddress) for address in doors):
            yield warning(here, "never matches: it needs a listener on a Unix socket (unix:/path, or fd:NAME)")


def reachable_rules(config: Config) -> Iterator[Finding]:
    """The first match wins, so nothing without a login comes past a rule that matches everything."""
    catch_all: Identity | None = None
    for index, identity in enumerate(config.identities):
        if catch_all is not None and identity.match.login is None:
            text = f"never matches: identity {catch_all.name} above it takes everything without a login; put it last"
            yield warning(("identities", index, "match"), text)
        elif identity.match == Match():
            catch_all = identity


def queue_needs(config: Config) -> Iterator[Finding]:
    """What is answered before it is delivered must be stored, and a key that applications present is stored nowhere."""
    for index, identity in enumerate(config.identities):
        here = ("identities", index, "delivery")
        if identity.delivery != "queue":
            continue
        if config.spool.url == "none":
            yield Finding(here, "queue needs a spool, and spool.url is none: set spool.url, or write cut-through")
        if _passthrough_only(config, identity):
            text = "not possible where applications present API keys, as these are never stored: write cut-through"
            yield Finding(here, text)


def bounces(config: Config) -> Iterator[Finding]:
    """Who is to be told of failures is told only if there is an address to tell it from."""
    settings = config.delivery.bounces
    if settings.from_ is None and "to" in settings.model_fields_set:
        text = "nobody is told, as delivery.bounces.from is not set: give it an address on a verified sending domain"
        yield warning(("delivery", "bounces", "to"), text)


# --- credentials and upstream


def credentials(config: Config) -> Iterator[Finding]:
    """Every credential that can be asked for exists."""
    passthrough_only = all(listener.auth == "passthrough" for listener in config.listeners)
    for index, identity in enumerate(config.identities):
        name = identity.credential
        if name not in config.credentials and name != "default":
            text = f"there is no credential {name}: there {_are(config.credentials)}"
            yield Finding(("identities", index, "credential"), text)
    wanted = {identity.credential for identity in config.identities} or {"default"}
    if "default" in wanted and "default" not in config.credentials and not passthrough_only:
        yield Finding(("credentials", "default", "api_key"), NO_API_KEY)


def upstream(config: Config) -> Iterator[Finding]:
    """What SparkPost documents, and the authorities to verify it by."""
    settings = config.upstream
    if settings.tls.ca_file is not None:
        flaw = examine_authorities(settings.tls.ca_file)
        if flaw is not None:
            yield _from_flaw(("upstream", "tls"), flaw)
    if settings.connections > SPARKPOST_CONNECTIONS:
        text = f"SparkPost documents {SPARKPOST_CONNECTIONS} connections at once; more needs their consent"
        yield warning(("upstream", "connections"), text)
    if settings.messages_per_connection > SPARKPOST_MESSAGES:
        text = f"SparkPost asks for a new connection after {SPARKPOST_MESSAGES} messages"
        yield warning(("upstream", "messages_per_connection"), text)
    if settings.idle_timeout >= SPARKPOST_IDLE:
        text = f"SparkPost closes a connection after {SPARKPOST_IDLE:.0f}s without a command: stay below, as 50s does"
        yield warning(("upstream", "idle_timeout"), text)
    targets: list[tuple[Path, tuple[int, ...]]] = [(("upstream", "ports"), settings.ports)]
    targets += [
        (("credentials", name, "upstream", "ports"), credential.upstream.ports or ())
        for name, credential in config.credentials.items()
    ]
    for path, ports in targets:
        if len(set(ports)) < len(ports):
            yield Finding(path, "a port is given twice: each is tried once")
        if IMPLICIT_TLS_PORT in ports:
            yield warning(
                path, "SparkPost has no implicit TLS on 465, and the relay speaks STARTTLS: 587 and 2525 are its ports"
            )


def https(config: Config) -> Iterator[Finding]:
    """Mail goes by HTTPS to the account that it would go to by SMTP."""
    general = config.upstream
    if not general.http.enabled:
        return
    if "host" in general.model_fields_set and "url" not in general.http.model_fields_set:
        default = type(general).model_fields["host"].default
        if general.host != default:
            text = (
                f"upstream.host is {general.host}, and this is the API of {default}: name the one of the same account"
            )
            yield warning(("upstream", "http", "url"), text)
    for name, credential in config.credentials.items():
        if credential.upstream.host not in (None, general.host) and credential.upstream.http.url is None:
            text = "this credential has a host of its own: without the API of its account, its mail never goes by HTTPS"
            yield warning(("credentials", name, "upstream", "http", "url"), text)


def limits(config: Config) -> Iterator[Finding]:
    """What SparkPost would refuse anyway."""
    if config.limits.message_size > SPARKPOST_SIZE:
        yield warning(("limits", "message_size"), "SparkPost takes 20MB at most; what is larger will be refused there")


# --- admin


def admin_token(config: Config) -> Iterator[Finding]:
    """The admin server speaks no TLS."""
    admin = config.admin
    if admin.token is not None and admin.address is not None and not admin.address.loopback:
        text = f"it crosses the network in clear, as other hosts can reach {admin.address}: only where that is trusted"
        yield warning(("admin", "token"), text)


RULES: Final[tuple[tuple[Rule, frozenset[str]], ...]] = (
    (listener_names, frozenset()),
    (listener_addresses, frozenset({"listeners", "admin"})),
    (local_sockets, frozenset()),
    (listener_tls, frozenset()),
    (open_relay, frozenset()),
    (plain_auth, frozenset({"identities"})),
    (login_possible, frozenset({"identities"})),
    (identity_names, frozenset()),
    (identity_subaccount, frozenset()),
    (identity_password, frozenset({"listeners"})),
    (passthrough_identity, frozenset({"listeners"})),
    (shared_logins, frozenset({"identities"})),
    (identity_listener, frozenset({"listeners"})),
    (identity_uid, frozenset({"listeners"})),
    (reachable_rules, frozenset({"identities"})),
    (bounces, frozenset({"delivery"})),
    (queue_needs, frozenset({"listeners", "spool"})),
    (credentials, frozenset({"credentials", "listeners", "identities"})),
    (upstream, frozenset({"upstream"})),
    (https, frozenset({"upstream", "credentials"})),
    (limits, frozenset({"limits"})),
    (admin_token, frozenset({"admin"})),
)


# --- what the rules share


def _unique(section: str, names: list[str]) -> Iterator[Finding]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            yield Finding((section, index, "name"), f"{section}[{first}] is called {name} too: give each its own name")


def _exposed(listener: Listener) -> bool:
    """Can other hosts reach it, perhaps by a proxy? What systemd has opened is not known here; who is let in is."""
    match listener.address:
        case UnixAddress():
            return False
        case _ if listener.proxy_protocol:
            return True
        case TcpAddress():
            return not listener.address.loopback
        case SystemdAddress():
            return not all(network.is_loopback for network in listener.networks)


def _group_exists(group: str) -> bool:
    try:
        return group.isdigit() or bool(grp.getgrnam(group))
    except KeyError:
        return False


def _logins(config: Config, listener: Listener) -> list[Identity]:
    """The identities that can be logged in to on a listener."""
    return [
        identity
        for identity in config.identities
        if identity.match.login is not None and identity.match.listener in (None, listener.name)
    ]


def _passthrough_only(config: Config, identity: Identity) -> bool:
    """True if every listener the identity can be used on takes the application's own API key."""
    name = identity.match.listener
    return all(listener.auth == "passthrough" for listener in config.listeners if name in (None, listener.name))


def _captures(identity: Identity) -> bool:
    return identity.match.login is not None and "{subaccount}" in identity.match.login


def _is_wide(network: IPNetwork) -> bool:
    return network.prefixlen < WIDEST[network.version]


def _are(names: Iterable[str]) -> str:
    """`is only local`, `are local, web`, `are none`: completes "there …"."""
    known = sorted(names)
    return f"is only {known[0]}" if len(known) == 1 else f"are {', '.join(known) or 'none'}"


def _from_flaw(section: Path, flaw: Flaw) -> Finding:
    return Finding((*section, flaw.key), flaw.text, flaw.fatal)
