"""The environment as a source: `RELAY__UPSTREAM__HOST` and its like, and the four short names of a container.

Variables without value count as not set: that is what compose files make of a variable nobody has set. Names that begin
with `RELAY_` and a single underscore are none of ours unless listed: Kubernetes makes such names for a service "relay".
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from relay.config.document import Document, parse, walk
from relay.config.keys import is_list, is_secret
from relay.config.problems import ConfigError, Origin, Path, Problem

PREFIX: Final = "RELAY__"
API_KEY: Final = "SPARKPOST_API_KEY"
API_KEY_FILE: Final = "SPARKPOST_API_KEY_FILE"
LISTEN: Final = "RELAY_LISTEN"
NETWORKS: Final = "RELAY_NETWORKS"

_DEFAULT_KEY: Final[Path] = ("credentials", "default", "api_key")


def overlay(document: Document, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Lay what the environment says over the document; what cannot be laid is a problem. Long names win over short."""
    yield from _short_names(document, environ)
    for name in sorted(environ, key=_rank):
        if name.startswith(PREFIX) and environ[name]:
            yield from _long_name(document, name, environ[name])


def _short_names(document: Document, environ: Mapping[str, str]) -> Iterator[Problem]:
    if environ.get(API_KEY) and environ.get(API_KEY_FILE):
        text = f"{API_KEY_FILE} is set too: set one of the two"
        yield Problem(Origin.variable(API_KEY), _DEFAULT_KEY, text)
    if environ.get(API_KEY):
        yield from _assign(document, _DEFAULT_KEY, {"env": API_KEY}, API_KEY)
    elif path := environ.get(API_KEY_FILE):
        yield from _assign(document, _DEFAULT_KEY, {"file": path}, API_KEY_FILE)
    if address := environ.get(LISTEN):
        yield from _assign(document, ("listeners", 0, "address"), address.strip(), LISTEN)
    if networks := environ.get(NETWORKS):
        yield from _assign(
            document, ("listeners", 0, "networks"), [item.strip() for item in networks.split(",")], NETWORKS
        )


def _long_name(document: Document, name: str, text: str) -> Iterator[Problem]:
    steps = name.removeprefix(PREFIX).split("__")
    origin = Origin.variable(name)
    if not all(steps):
        yield Problem(origin, (), "names no key: write RELAY__UPSTREAM__HOST for upstream.host")
        return
    path = _path(document.values, steps)
    try:
        parsed = parse(text, lambda line: origin)
        value, problems = parsed.values, parsed.problems
    except ConfigError as error:
        value, problems = None, list(error.problems)
    if is_secret(path) and not isinstance(value, dict):
        # A key made of digits is text all the same, and so is one that is no YAML.
        yield from _assign(document, path, {"env": name}, name)
    elif problems:
        yield from (Problem(origin, path + problem.path, problem.text) for problem in problems)
    else:
        yield from _merge(document, path, value, name)


def _merge(document: Document, path: Path, value: Any, variable: str) -> Iterator[Problem]:
    """Lay a mapping over what is there, key by key; anything else takes the place of what is there."""
    if isinstance(value, dict) and value and not is_secret(path):
        for name, inner in value.items():
            yield from _merge(document, (*path, name), inner, variable)
    else:
        yield from _assign(document, path, value, variable)


def _path(values: Any, steps: list[str]) -> Path:
    """The key that a variable's name means: in lower case, unless the file has a name that differs in case alone."""
    path: Path = ()
    for step in steps:
        if step.isdecimal() and (isinstance(values, list) or is_list(path)):
            index = int(step)
            path = (*path, index)
            values = values[index] if isinstance(values, list) and index < len(values) else None
        else:
            known = values if isinstance(values, dict) else {}
            name = next((name for name in known if _folded(name) == _folded(step)), step.lower())
            path = (*path, name)
            values = known.get(name)
    return path


def _rank(name: str) -> list[str]:
    """Outer keys come before inner ones (RELAY__UPSTREAM, RELAY__UPSTREAM__HOST), element 2 before element 10."""
    return [step.zfill(9) if step.isdecimal() else step for step in name.split("__")]


def _folded(name: str) -> str:
    """A variable's name can show neither capitals nor hyphens."""
    return name.lower().replace("-", "_")


def _assign(document: Document, path: Path, value: Any, variable: str) -> Iterator[Problem]:
    """Put a value at a path, with the mappings and lists that lead to it; a list grows by one element at a time."""
    origin = Origin.variable(variable)
    holder = document.values
    for depth, step in enumerate(path):
        place = path[: depth + 1]
        problem = _no_way(holder, step)
        if problem:
            yield Problem(origin, place, problem)
            return
        if isinstance(step, int) and step == len(holder):
            holder.append(None)
        leads_on = holder[step] if isinstance(step, int) else holder.get(step)
        if place == path:
            holder[step] = value
        elif leads_on is None:
            holder[step] = [] if isinstance(path[depth + 1], int) else {}
        else:
            holder = leads_on
            continue
        document.origins[place] = origin
        holder = holder[step]
    for stale in [known for known in document.origins if len(known) > len(path) and known[: len(path)] == path]:
        del document.origins[stale]
    document.origins |= dict.fromkeys((inner for inner, _ in walk(path, value)), origin)


def _no_way(holder: Any, step: str | int) -> str | None:
    """Why a step cannot be taken from here, if it cannot."""
    if isinstance(step, str):
        return None if isinstance(holder, dict) else "no key is expected here: what the file has here is not a mapping"
    if not isinstance(holder, list):
        return "no number is expected here: what the file has here is not a list"
    return None if step <= len(holder) else f"there is no element {step}: the next one is {len(holder)}"
