"""The effective configuration as YAML, secrets redacted, each value that is no default with the place it comes from.

What is printed is a configuration that means the same, as far as no secret was written in clear: a secret that was
given by reference is printed as that reference.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from relay.config.loader import Loaded
from relay.config.problems import Path
from relay.config.style import inline


def dump(loaded: Loaded) -> str:
    """The configuration as it is in effect."""
    head = f"# The configuration in effect, from {loaded.source}. A value without a remark is the default.\n"
    tree = loaded.config.model_dump(by_alias=True)
    return head + "".join(f"{line}\n" for line in _Printer(loaded).mapping(tree, ()))


class _Printer:
    """Writes block style down to the leaves, which are in flow style."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def mapping(self, values: Mapping[str, Any], path: Path) -> Iterator[str]:
        for name, value in values.items():
            yield from self.entry(name, value, (*path, name))

    def entry(self, name: str, value: Any, path: Path) -> Iterator[str]:
        if path in self._loaded.references:
            yield self.leaf(name, self._loaded.references[path], path)
        elif isinstance(value, Mapping) and value:
            yield f"{inline(name)}:"
            yield from (f"  {line}" for line in self.mapping(value, path))
        elif isinstance(value, tuple) and any(isinstance(item, Mapping) for item in value):
            yield f"{inline(name)}:"
            for index, item in enumerate(value):
                for number, line in enumerate(self.mapping(item, (*path, index))):
                    yield f"  {'  ' if number else '- '}{line}"
        else:
            yield self.leaf(name, value, path)

    def leaf(self, name: str, value: Any, path: Path) -> str:
        origin = self._loaded.origins.get(path)
        return f"{inline(name)}: {inline(value)}" + (f"  # {origin}" if origin else "")
