"""The rules across keys: all of them, each asked only where what it reads makes sense by itself."""

from collections.abc import Iterable, Iterator

from relay.config.model import Config
from relay.config.problems import Path
from relay.config.rules import identities, listeners, service, upstream
from relay.config.rules.finding import Finding


def check(config: Config, broken: Iterable[Path]) -> Iterator[Finding]:
    """Every finding of every rule that can be asked, given the paths that did not make sense.

    A rule that reads a section with something broken in it is not asked: it would find what is known already.
    """
    broken = frozenset(broken)
    sections = {path[0] for path in broken if path}
    elements = {path[:2] for path in broken}
    for rule, reads in (*listeners.RULES, *identities.RULES, *upstream.RULES, *service.RULES):
        if not sections & reads:
            yield from (finding for finding in rule(config) if finding.path[:2] not in elements)
