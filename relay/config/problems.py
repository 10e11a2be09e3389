"""What is wrong with a configuration: where it was written, which key it is, what is wrong and what would be right."""

from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file and a line, or (without a line) a source that has none."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"

    @classmethod
    def variable(cls, name: str) -> "Origin":
        """A variable of the environment."""
        return cls(f"environment: {name}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend, or to know. `path` is empty where no key is concerned, as in a file that cannot be read."""

    origin: Origin
    path: Path
    text: str

    def __str__(self) -> str:
        where = f"{self.origin}: {path_text(self.path)}" if self.path else str(self.origin)
        return f"{where}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used. `str()` gives one problem a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        # In the order of the file; what has no line comes last.
        self.problems = tuple(sorted(problems, key=lambda problem: problem.origin.line or 10**9))
        super().__init__("\n".join(map(str, self.problems)))


def path_text(path: Path) -> str:
    """`("listeners", 0, "address")` → `listeners[0].address`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
