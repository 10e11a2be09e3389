"""Rules about listeners: addresses that clash, certificates, who may relay, who can log in."""

import datetime
import grp
from collections.abc import Iterator, Sequence
from typing import Final

from relay.config.addresses import IPNetwork
from relay.config.certificates import examine_pair
from relay.config.listening import ListenerAddress, SystemdAddress, TcpAddress, UnixAddress, clash
from relay.config.model import Config, Identity, Listener
from relay.config.rules.finding import Finding, Rules, from_flaw, unique, warning

WIDEST: Final = {4: 8, 6: 32}  # shortest prefix that is still taken for "our own network" where no AUTH is asked for


def listener_names(config: Config) -> Iterator[Finding]:
    """Two listeners of one name could not be told apart."""
    yield from unique("listeners", [listener.name for listener in config.listeners])


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
            flaw = examine_pair(tls.certificate, tls.key, datetime.datetime.now(datetime.UTC), legacy=tls.legacy)
            if flaw is not None:
                yield from_flaw(here, flaw)


def networks_given(config: Config) -> Iterator[Finding]:
    """Who listens to other hosts says which of them are let in: the default is this host alone."""
    for index, listener in enumerate(config.listeners):
        if _exposed(listener) and "networks" not in listener.model_fields_set:
            how = "through proxies" if listener.proxy_protocol else "from other hosts"
            otherwise = "" if listener.proxy_protocol else ", or listen on localhost"
            yield Finding(
                ("listeners", index, "networks"),
                f"listener {listener.name} can be reached {how}, but the default networks let none of those clients "
                f"in: give those of your applications, such as [10.0.0.0/8] (RELAY_NETWORKS){otherwise}",
            )


def open_relay(config: Config) -> Iterator[Finding]:
    """Strangers must not send mail in the operator's name."""
    for index, listener in enumerate(config.listeners):
        if listener.auth not in ("none", "optional"):
            continue
        for position in _wide(listener.proxy_protocol):
            network = listener.proxy_protocol[position]
            text = f"{network} would make an open relay, as all of it may claim any address: name your proxies"
            yield Finding(("listeners", index, "proxy_protocol", position), text)
        for position in _wide(listener.networks) if _exposed(listener) else ():
            network = listener.networks[position]
            yield Finding(
                ("listeners", index, "networks", position),
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


RULES: Final[Rules] = (
    (listener_names, frozenset()),
    (listener_addresses, frozenset({"listeners", "admin"})),
    (local_sockets, frozenset()),
    (listener_tls, frozenset()),
    (networks_given, frozenset()),
    (open_relay, frozenset()),
    (plain_auth, frozenset({"identities"})),
    (login_possible, frozenset({"identities"})),
)


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


def _wide(networks: Sequence[IPNetwork]) -> list[int]:
    """Where in the list one stands that is wider than anybody's own."""
    return [position for position, network in enumerate(networks) if network.prefixlen < WIDEST[network.version]]
