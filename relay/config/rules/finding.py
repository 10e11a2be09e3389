"""What a rule finds, and what the rules share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from relay.config.certificates import Flaw
from relay.config.model import Config
from relay.config.problems import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found at a key; one that is not fatal is a warning."""

    path: Path
    text: str
    fatal: bool = True


def warning(path: Path, text: str) -> Finding:
    return Finding(path, text, fatal=False)


Rule = Callable[[Config], Iterator[Finding]]
Rules = tuple[tuple[Rule, frozenset[str]], ...]
"""Rules with the sections they read."""


def unique(section: str, names: list[str]) -> Iterator[Finding]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            yield Finding((section, index, "name"), f"{section}[{first}] is called {name} too: give each its own name")


def are(names: Iterable[str]) -> str:
    """`is only local`, `are local, web`, `are none`: completes "there …"."""
    known = sorted(names)
    return f"is only {known[0]}" if len(known) == 1 else f"are {', '.join(known) or 'none'}"


def from_flaw(section: Path, flaw: Flaw) -> Finding:
    return Finding((*section, flaw.key), flaw.text, flaw.fatal)
