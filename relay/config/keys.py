"""What keys there are: each with its default and meaning, taken from the models, and what none may be set to yet."""

import builtins
import difflib
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from relay.config.model import Config, Section
from relay.config.problems import Path
from relay.config.style import inline
from relay.core.secret import Secret

NAME: Final = "NAME"  # stands for the name of a credential in a key's path


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key for documentation. `path` is like `listeners[].tls.mode` or `credentials.NAME.api_key`."""

    path: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """A key with texts that it may not begin with yet, and what to write instead."""

    path: str
    beginnings: tuple[str, ...]
    instead: str

    def refuses(self, value: object) -> bool:
        return isinstance(value, str) and value.startswith(self.beginnings)


NOT_YET: Final = (NotYet("spool.url", ("postgresql:", "postgres:"), "write sqlite:/path/of/a/file, or none"),)


def keys() -> Iterable[KeyInfo]:
    """Every key that holds a value, in the order of the models."""
    for path, field in _LEAVES.items():
        yield KeyInfo(path, _default(field), field.description or "")


def not_yet(path: Path, value: object) -> NotYet | None:
    """The row that refuses this value of this key, if one does."""
    written = pattern(path)
    return next((row for row in NOT_YET if row.path == written and row.refuses(value)), None)


def is_secret(path: Path) -> bool:
    """True if the key holds a secret."""
    return pattern(path) in _SECRETS


def pattern(path: Path) -> str:
    """The path as `keys()` writes it: any index is `[]`, the name of a credential is NAME."""
    text = ""
    for step in path:
        name = NAME if text == "credentials" else step
        text += "[]" if isinstance(step, int) else f".{name}" if text else str(name)
    return text


def is_section(path: Path) -> bool:
    """True if the path holds other keys, by name or in a list."""
    written = pattern(path)
    return any(key.startswith((f"{written}.", f"{written}[]")) for key in _LEAVES)


def is_list(path: Path) -> bool:
    """True if the path holds a list of sections."""
    return any(key.startswith(f"{pattern(path)}[]") for key in _LEAVES)


def suggestion(path: Path) -> str:
    """What an unknown key may have been meant to be."""
    around, unknown = pattern(path[:-1]), str(path[-1])
    prefix = f"{around}." if around else ""
    siblings = {key.removeprefix(prefix).split(".")[0].split("[")[0] for key in _LEAVES if key.startswith(prefix)}
    close = difflib.get_close_matches(unknown.lower().replace("-", "_"), sorted(siblings), 1)
    if close:
        return f"did you mean {close[0]}?"
    elsewhere = [key for key in _LEAVES if key.rpartition(".")[2] == unknown]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"known here: {', '.join(sorted(siblings))}"


def _leaves(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        path = prefix + (field.alias or name)
        nested = _nested(field.annotation)
        if nested is None:
            yield path, field
        else:
            joint, inner = nested
            yield from _leaves(inner, f"{path}{joint}.")


def _nested(annotation: Any) -> tuple[str, type[Section]] | None:
    """The section a field holds, and how it is reached: the section itself, a list of them, or one for each name."""
    match get_origin(annotation):
        case builtins.tuple:
            joint, inner = "[]", get_args(annotation)[0]
        case abc.Mapping:
            joint, inner = f".{NAME}", get_args(annotation)[1]
        case _:
            joint, inner = "", annotation
    return (joint, inner) if isinstance(inner, type) and issubclass(inner, Section) else None


def _holds_secret(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _holds_secret(get_args(annotation)[0])
    return annotation is Secret or any(map(_holds_secret, get_args(annotation)))


def _default(field: FieldInfo) -> str:
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["shown"])
    return "required" if field.is_required() else inline(field.default)


_LEAVES: Final[Mapping[str, FieldInfo]] = dict(_leaves(Config, ""))
_SECRETS: Final = frozenset(path for path, field in _LEAVES.items() if _holds_secret(field.annotation))
