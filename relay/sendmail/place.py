"""Where the relay is: $RELAY_SENDMAIL, else a listener of its configuration, else localhost:2525.

The configuration is read with indulgence: it is the relay's to check, this program only looks for an address in it.
Callers are seldom allowed to read the usual file, because keys may stand in it; then the usual address has to do.
"""

import os
import re
from collections.abc import Mapping

from relay.sendmail.failure import Failure

PLACE_VARIABLE = "RELAY_SENDMAIL"
CONFIG_VARIABLE = "RELAY_CONFIG"
USUAL_CONFIG = "/etc/sparkpost-relay/relay.yaml"
USUAL_ADDRESS = "localhost:2525"
USUAL_SOCKET = "/run/sparkpost-relay.sock"  # what the socket unit that comes with the relay has systemd make
# The names under which the environment has the address of the first listener; the first one wins.
_LISTEN_VARIABLES = ("RELAY__LISTENERS__0__ADDRESS", "RELAY_LISTEN")

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>[0-9]{1,5})")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "localhost"}  # noqa: S104  who listens everywhere can be reached here


class Place:
    """An address to connect to: `host` and `port`, or the `path` of a Unix socket. `found` says where it comes from."""

    def __init__(self, host: str, port: int, path: str, found: str) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.found = found

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find(config: str | None, environ: Mapping[str, str], usual_config: str = USUAL_CONFIG) -> Place:
    """The relay's place; raises Failure with EX_CONFIG for one that is given and cannot be used."""
    if given := environ.get(PLACE_VARIABLE):
        place = _parse(given, f"${PLACE_VARIABLE}")
        if place is None:
            text = f"${PLACE_VARIABLE} is {given!r}: HOST:PORT or unix:/path is expected, such as {USUAL_ADDRESS}"
            raise Failure(os.EX_CONFIG, text)
        return place
    source, octets = _configuration(config, environ, usual_config)
    listeners = _listeners(source, octets)
    address = next((environ[name] for name in _LISTEN_VARIABLES if environ.get(name)), None)
    if address is not None:
        listeners[:1] = [{**(listeners[0] if listeners else {}), "address": address.strip()}]
    places = [place for listener in listeners if (place := _usable(listener, source)) is not None]
    # Where systemd has its socket is known by habit only: another listener goes first.
    places.sort(key=lambda place: place.path == USUAL_SOCKET)
    if places:
        return places[0]
    if listeners:
        text = (
            f"{source}: no listener takes mail without a login or TLS from the start; add one with "
            f"`auth: none` on localhost, or name another relay in ${PLACE_VARIABLE}"
        )
        raise Failure(os.EX_CONFIG, text)
    found = f"the usual address, as ${PLACE_VARIABLE} is not set and {source} names no listener"
    return Place(*_split(USUAL_ADDRESS), "", found)


def _configuration(config: str | None, environ: Mapping[str, str], usual: str) -> tuple[str, bytes]:
    """The configuration file and what is in it, nothing if nobody named it and it cannot be read."""
    named = config or environ.get(CONFIG_VARIABLE)
    path = named or usual
    try:
        with open(path, "rb") as file:
            return path, file.read()
    except OSError as error:
        if named:
            option = "-C" if config else f"${CONFIG_VARIABLE}"
            raise Failure(os.EX_CONFIG, f"{path}, named by {option}, cannot be read: {error.strerror}") from None
        return f"{path} ({error.strerror})", b""


def _listeners(source: str, octets: bytes) -> list[Mapping[object, object]]:
    """The listeners as written. PyYAML takes as long to import as all the rest: not without need."""
    if b"listeners" not in octets:
        return []
    import yaml

    try:
        document = yaml.load(octets, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506  text only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise Failure(
            os.EX_CONFIG, f"{source}{line}: not valid YAML; `sparkpost-relay check-config` says more"
        ) from None
    listeners = document.get("listeners") if isinstance(document, dict) else None
    return [one if isinstance(one, dict) else {} for one in listeners] if isinstance(listeners, list) else []


def _usable(listener: Mapping[object, object], source: str) -> Place | None:
    """Where a listener takes mail in plain text and without a login, if it does."""
    tls = listener.get("tls")
    if listener.get("auth") in ("required", "passthrough") or (isinstance(tls, dict) and tls.get("mode") == "implicit"):
        return None
    name = f"the listener {listener.get('name', 'local')!r} of {source}"
    address = str(listener.get("address", USUAL_ADDRESS))
    return Place("", 0, USUAL_SOCKET, f"the usual socket of {name}") if address[:3] == "fd:" else _parse(address, name)


def _parse(text: str, found: str) -> Place | None:
    if text.startswith("unix:/"):
        return Place("", 0, text.removeprefix("unix:"), found)
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        return None
    host = match["v6"] or match["host"]
    return Place(_ANY.get(host, host), int(match["port"]), "", found)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
