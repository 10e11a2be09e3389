"""The configuration: loaded from defaults, a YAML file and the environment, checked whole, printed without secrets.

`load` is the way in. `model` has every key; `check` has the rules that concern more than one.
"""

from relay.config.addresses import IPAddress, IPNetwork
from relay.config.keys import KeyInfo, keys
from relay.config.listening import ListenerAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.config.loader import Loaded, load
from relay.config.model import (
    Admin,
    Config,
    Credential,
    CredentialUpstream,
    Delivery,
    Identity,
    IdentityLimits,
    Limits,
    Listener,
    ListenerTls,
    Log,
    Match,
    SparkPostOptions,
    Timeouts,
    Upstream,
    UpstreamTls,
)
from relay.config.printing import dump
from relay.config.problems import ConfigError, Origin, Problem

__all__ = [
    "Admin",
    "Config",
    "ConfigError",
    "Credential",
    "CredentialUpstream",
    "Delivery",
    "IPAddress",
    "IPNetwork",
    "Identity",
    "IdentityLimits",
    "KeyInfo",
    "Limits",
    "Listener",
    "ListenerAddress",
    "ListenerTls",
    "Loaded",
    "Log",
    "Match",
    "Origin",
    "Problem",
    "SparkPostOptions",
    "SystemdAddress",
    "TcpAddress",
    "Timeouts",
    "UnixAddress",
    "Upstream",
    "UpstreamTls",
    "dump",
    "keys",
    "load",
]
