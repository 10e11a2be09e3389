"""A relay and a SparkPost stand-in, running in the test's own loop on ports of the system's choice."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from relay.app import Relay
from relay.config import Config
from relay.core.ports import Clock
from relay.sandbox import Sandbox

KEY = "0123456789abcdef0123456789abcdef01234567"
# What a port of the stand-in may do, so that it counts as blocked and the next is tried.
BLOCKED = [
    "silent",
    "drop",
    "gibberish",
    "permfail-banner",
    "endless-banner",
    "no-starttls",
    "refuse-starttls",
    "handshake-drop",
    "handshake-hang",
    "wrong-name",
    "expired",
    "untrusted",
]


def configuration(sandbox: Sandbox, **sections: Any) -> Config:
    """A configuration that points at the sandbox; sections replace or extend the plain one."""
    values: dict[str, Any] = {
        "hostname": "relay.test",
        "listeners": [{"address": "127.0.0.1:0"}],
        "upstream": {
            "host": "localhost",
            "ports": [port for _, port in sandbox.addresses],
            "fallback_after": "300ms",
            "tls": {"ca_file": str(sandbox.ca_file)},
        },
        "credentials": {"default": {"api_key": KEY}},
        "spool": {"url": "none"},
        "admin": {"address": None},
    }
    for name, section in sections.items():
        merged = values.get(name)
        values[name] = {**merged, **section} if isinstance(merged, dict) and isinstance(section, Mapping) else section
    return Config.model_validate(values)


@contextlib.asynccontextmanager
async def relay_to(
    sandbox: Sandbox, *, clock: Clock | None = None, references: Any = None, **sections: Any
) -> AsyncIterator[Relay]:
    """A relay in front of the sandbox, stopped at the end."""
    relay = Relay(configuration(sandbox, **sections), references, clock)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@contextlib.asynccontextmanager
async def sandbox_with(tls_dir: Path, **options: Any) -> AsyncIterator[Sandbox]:
    """A stand-in that accepts the tests' key."""
    options.setdefault("api_keys", {KEY: None})
    async with Sandbox(tls_dir=tls_dir, **options) as sandbox:
        yield sandbox


def port_of(relay: Relay, listener: str = "local") -> int:
    """The port a listener got."""
    return next(one for one in relay.listeners if one.name == listener).addresses[0][1]
