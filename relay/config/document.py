"""YAML with line numbers: a tree of plain values, and for every value the place it was written at.

The tags of scalars are those of YAML 1.2's core schema, so that `no`, `0123`, `10:30` and `2026-01-01` are text and not
a boolean, an octal, a number of base 60 and a date. Duplicate keys are errors. What a syntax error says is our own
wording: PyYAML's may quote a piece of the file, and that piece may be a password.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from relay.config.problems import ConfigError, Origin, Path, Problem

_TAG: Final = "tag:yaml.org,2002:"
_GONE: Final = object()
_LONGEST_NUMBER: Final = 100  # digits
_MOST_VALUES: Final = 1_000_000

_SYNTAX: Final[Mapping[str, str]] = {
    r"'\\t'": "a tab: YAML is indented with spaces only",
    r"undefined alias|while scanning an alias": 'a value that begins with * must be quoted: "*@example.com"',
    r"while scanning an anchor|duplicate anchor": "a value that begins with & must be quoted",
    r"while scanning a tag|tag handle": "a value that begins with ! must be quoted",
    r"while scanning a directive|%": "a value that begins with % must be quoted",
    r"mapping values are not allowed": "a second colon on the line, or wrong indentation: quote values with ': '",
    r"while parsing a block mapping": "not a `key: value` pair: look at this line's indentation, and at the line above",
    r"while parsing a block collection": "this line's indentation does not fit the list it stands in",
    r"while parsing a flow|expected ',' or": 'a bracket that is not closed, or text behind one: quote "[::1]:2525"',
    r"could not find expected ':'": "a `key: value` pair is expected: the colon and a space are missing",
    r"while scanning a (double-)?quoted scalar": "a quotation mark that is not closed, or a stray backslash",
    r"cannot start any token": "a character that cannot begin a value: put the value in quotes",
    r"single document": "a second document begins here: one file is one document, remove the `---`",
}


class _CoreLoader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2's core schema does, without its octal, hexadecimal and infinite numbers."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  PyYAML's own name for it


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?(?<=[0-9.])", list("-+0123456789.")),
):
    _CoreLoader.add_implicit_resolver(_TAG + _tag, re.compile(rf"^(?:{_pattern})$"), _first)

_RESOLVERS: Final = (_CoreLoader(""), yaml.SafeLoader(""))
_SCALARS: Final[Mapping[str, Callable[[str], object]]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    _TAG + "int": int,
    _TAG + "float": float,
    _TAG + "str": str,
}


def resolves_to_text(scalar: str) -> bool:
    """True if an unquoted scalar is read as text, not as a number, a boolean or null: here, and under YAML 1.1."""
    tags = (loader.resolve(yaml.ScalarNode, scalar, (True, False)) for loader in _RESOLVERS)  # type: ignore[no-untyped-call]
    return all(tag == _TAG + "str" for tag in tags)


@dataclass(slots=True)
class Document:
    """A configuration as written, before it is understood. `origins` has the root at `()`."""

    values: Any
    origins: dict[Path, Origin]
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: Path) -> Origin:
        """Where a value was written, or the nearest thing around it that was."""
        while path not in self.origins:
            path = path[:-1]
        return self.origins[path]

    def walk(self) -> Iterator[tuple[Path, Any]]:
        """Every value below the root, outer before inner."""
        yield from walk((), self.values)

    def get(self, path: Path) -> Any:
        """The value at a path that exists."""
        value = self.values
        for step in path:
            value = value[step]
        return value

    def replace(self, path: Path, value: object) -> None:
        """Put another value in the place of one that exists."""
        self.get(path[:-1])[path[-1]] = value

    def prune(self, path: Path) -> bool:
        """Take out a key, or for an element of a list the key of the list; False if it is gone already.

        An element is not taken out by itself, because those behind it would change their places.
        """
        while path and isinstance(path[-1], int):
            path = path[:-1]
        if not path:
            return False
        try:
            parent = self.get(path[:-1])
        except KeyError:
            return False
        return parent.pop(path[-1], _GONE) is not _GONE


def walk(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Every value below one that stands at `path`, outer before inner."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in list(steps):
        yield (*path, step), inner
        yield from walk((*path, step), inner)


def parse(text: str | bytes, origin: Callable[[int], Origin]) -> Document:
    """Read one YAML document; `origin` tells where a line (from 1) of it is.

    Raises ConfigError where it is no YAML at all; what else is wrong is in the result.
    """
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        complaint = f"{error.context} {error.problem}"
        remedy = next((text for pattern, text in _SYNTAX.items() if re.search(pattern, complaint)), "not valid YAML")
        raise _unreadable(origin, line, column, remedy) from None
    except yaml.reader.ReaderError as error:
        line = _line_of(text, error.position)
        raise _unreadable(origin, line, 1, "not text in UTF-8, or characters that no text has") from None
    except RecursionError:
        raise _unreadable(origin, 1, 1, "nested too deeply") from None
    document = Document(None, {(): origin(1)})
    if node is not None:
        document.values = _Builder(document, origin).build(node, (), ())
    return document


def _unreadable(origin: Callable[[int], Origin], line: int, column: int, remedy: str) -> ConfigError:
    place = Origin(f"{origin(line)}:{column}")
    return ConfigError([Problem(place, (), f"cannot be read: {remedy}")])


def _line_of(text: str | bytes, position: int) -> int:
    before = text[:position]
    return (before.count("\n") if isinstance(before, str) else before.count(b"\n")) + 1


def _flaw(node: yaml.ScalarNode) -> str | None:
    """Why a scalar can be no value of a configuration, if so: escapes in double quotes can make what no text has."""
    if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > _LONGEST_NUMBER:
        return "a number of so many digits is more than anything can be"
    if "\0" in node.value or any("\ud800" <= character <= "\udfff" for character in node.value):
        return "a NUL or half a character stands in it, which no text has: look at its escapes (\\0, \\ud800)"
    return None


@dataclass(frozen=True, slots=True)
class _Builder:
    """Turns nodes into values, and notes where each was."""

    document: Document
    origin: Callable[[int], Origin]

    def build(self, node: yaml.Node, path: Path, above: tuple[yaml.Node, ...]) -> Any:
        if (
            len(self.document.origins) > _MOST_VALUES
        ):  # aliases of aliases multiply; a moment's reading makes all there are
            text = "more than a million values: if aliases stand in what other aliases stand for, write them out"
            raise ConfigError([Problem(self.place(node), path, text)])
        if any(node is other for other in above):
            return self.complain(node, path, "an alias that contains itself: write the value out")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path, (*above, node))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.item(item, (*path, index), (*above, node)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and (flaw := _flaw(node)) is not None:
            return self.complain(node, path, flaw)
        try:
            return _SCALARS[node.tag](node.value)
        except (KeyError, TypeError, ValueError):
            return self.complain(node, path, "tags are not used here: remove the word that begins with !, or quote it")

    def item(self, node: yaml.Node, path: Path, above: tuple[yaml.Node, ...]) -> Any:
        self.document.origins[path] = self.place(node)
        return self.build(node, path, above)

    def mapping(self, node: yaml.MappingNode, path: Path, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self.complain(name_node, path, "a key is one word, not a list or a mapping")
                continue
            if (flaw := _flaw(name_node)) is not None:
                self.complain(name_node, path, flaw)
                continue
            name = str(name_node.value)
            inner = (*path, name)
            if name in values:
                first = self.document.origins[inner]
                self.complain(name_node, inner, f"given twice, first at {first}: keep one of the two")
                continue
            self.document.origins[inner] = self.place(name_node)
            values[name] = self.build(value_node, inner, above)
        return values

    def place(self, node: yaml.Node) -> Origin:
        return self.origin(node.start_mark.line + 1)

    def complain(self, node: yaml.Node, path: Path, text: str) -> None:
        self.document.problems.append(Problem(self.place(node), path, text))
