"""How this relay is configured and started."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from benchmarks.place import Place, free_port
from relay import is_compiled


def form() -> str:
    """How this relay runs here: a message costs it less compiled (`make bench` has it compiled where that can be)."""
    return f"The relay runs {'compiled' if is_compiled() else 'from its sources'}."


def command(*, spool: bool = True, delivery: str = "cut-through") -> Callable[[Place], list[str]]:
    """The command of a relay with one open listener on loopback, logging on as in production."""

    def at(place: Place) -> list[str]:
        configuration = configure(place, spool=spool)
        if delivery != "cut-through":
            configuration["identities"] = [{"name": "default", "delivery": delivery}]
        return serve(place, configuration)

    return at


def configure(place: Place, *, spool: bool = True) -> dict[str, Any]:
    """A configuration that sends everything to the place's upstream with the key "secret"."""
    return {
        "hostname": "relay.example",
        "listeners": [listener("bench", place.port)],
        "upstream": {
            "host": place.upstream_host,
            "ports": [place.upstream_port],
            "tls": {"ca_file": str(place.ca_file), "server_name": "localhost"},
        },
        "credentials": {"default": {"api_key": "secret"}},
        "spool": {"url": f"sqlite:{place.directory / 'spool.db'}" if spool else "none"},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "log": {"format": "json", "level": "info"},
    }


def listener(name: str, port: int) -> dict[str, Any]:
    """A listener without AUTH for this host."""
    return {
        "name": name,
        "address": f"127.0.0.1:{port}",
        "tls": {"mode": "none"},
        "auth": "none",
        "networks": ["127.0.0.0/8"],
    }


def serve(place: Place, configuration: Mapping[str, Any]) -> list[str]:
    """Writes the configuration down; the command that runs it."""
    file = place.directory / "relay.yaml"
    file.touch(mode=0o600)  # it holds a key, and the relay warns where others may read one
    file.write_text(yaml.safe_dump(dict(configuration), sort_keys=False))
    return [sys.executable, "-m", "relay", "serve", "--config", str(file)]
