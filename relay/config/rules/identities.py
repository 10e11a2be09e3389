"""Rules about identities: names that must exist and be unique, logins and passwords, what can match at all, and what
SparkPost makes of its options.
"""

import json
from collections.abc import Iterator
from typing import Final

import argon2

from relay.config.listening import TcpAddress
from relay.config.model import Config, Identity, Match
from relay.config.rules.finding import Finding, Rules, are, unique, warning
from relay.config.validation import NO_API_KEY

ARGON2: Final = "$argon2"
TAGS: Final = 10  # of one recipient, fact sheet 2.1
EVENT_METADATA: Final = 1000  # bytes that events about openings and links repeat, same place


def identity_names(config: Config) -> Iterator[Finding]:
    """Logs, metrics and `explain` name identities."""
    yield from unique("identities", [identity.name for identity in config.identities])


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
            yield Finding(here, f"there is no listener {name}: there {are(listeners)}")
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


def sparkpost_options(config: Config) -> Iterator[Finding]:
    """What SparkPost takes without a word, and does not use."""
    for index, identity in enumerate(config.identities):
        here, options = ("identities", index, "sparkpost"), identity.sparkpost
        if len(options.tags) > TAGS:
            yield warning((*here, "tags"), f"SparkPost uses {TAGS} tags of a message, and ignores the others")
        if len(json.dumps(options.metadata)) > EVENT_METADATA:
            text = f"over {EVENT_METADATA} bytes as JSON: SparkPost's events about openings and links do not hold them"
            yield warning((*here, "metadata"), text)


def credentials(config: Config) -> Iterator[Finding]:
    """Every credential that can be asked for exists."""
    passthrough_only = all(listener.auth == "passthrough" for listener in config.listeners)
    for index, identity in enumerate(config.identities):
        name = identity.credential
        if name not in config.credentials and name != "default":
            text = f"there is no credential {name}: there {are(config.credentials)}"
            yield Finding(("identities", index, "credential"), text)
    wanted = {identity.credential for identity in config.identities} or {"default"}
    if "default" in wanted and "default" not in config.credentials and not passthrough_only:
        yield Finding(("credentials", "default", "api_key"), NO_API_KEY)


RULES: Final[Rules] = (
    (identity_names, frozenset()),
    (identity_subaccount, frozenset()),
    (identity_password, frozenset({"listeners"})),
    (passthrough_identity, frozenset({"listeners"})),
    (shared_logins, frozenset({"identities"})),
    (identity_listener, frozenset({"listeners"})),
    (identity_uid, frozenset({"listeners"})),
    (reachable_rules, frozenset({"identities"})),
    (queue_needs, frozenset({"listeners", "spool"})),
    (sparkpost_options, frozenset()),
    (credentials, frozenset({"credentials", "listeners", "identities"})),
)


def _passthrough_only(config: Config, identity: Identity) -> bool:
    """True if every listener the identity can be used on takes the application's own API key."""
    name = identity.match.listener
    return all(listener.auth == "passthrough" for listener in config.listeners if name in (None, listener.name))


def _captures(identity: Identity) -> bool:
    return identity.match.login is not None and "{subaccount}" in identity.match.login
