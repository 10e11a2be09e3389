"""A document becomes a `Config`: the models do the work, this module finds the words.

What is broken is reported, taken out and validated again, so that the rules across keys still see the rest and all
problems come together.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relay.config.document import Document
from relay.config.environment import API_KEY, API_KEY_FILE
from relay.config.keys import is_section, not_yet, suggestion
from relay.config.model import Config
from relay.config.problems import Path, Problem
from relay.config.style import inline

NO_API_KEY: Final = (
    f"there is no API key: set {API_KEY}, or {API_KEY_FILE} to a file that holds it, "
    "or credentials.default.api_key in the configuration file"
)
_A_KEY: Final = "give it as text in quotes, {env: NAME}, {file: PATH} or {credential: NAME}"

_WORDS: Final[Mapping[str, str]] = {
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "bool_type": "true or false is expected",
    "string_type": "text is expected: put it in quotes",
    "string_too_short": "it is empty: leave the key out for its default",
    "greater_than_equal": "at least {ge} is expected",
    "less_than_equal": "at most {le} is expected",
    "less_than": "less than {lt} is expected",
    "literal_error": "one of {expected} is expected",
    **dict.fromkeys(
        ("model_type", "mapping_type", "dict_type"), "a mapping is expected: `key: value` lines, indented below it"
    ),
    "tuple_type": "a list is expected: [a, b], or one `- ` line for each",
}
_CONTAINERS: Final = frozenset({"model_type", "mapping_type", "dict_type", "tuple_type"})


def drop_empty(document: Document) -> None:
    """A section with nothing in it (all its lines are comments) is one that is not there."""
    for path, value in document.walk():
        if value is None and isinstance(path[-1], str) and is_section(path):
            document.prune(path)


def refuse_not_yet(document: Document) -> list[Problem]:
    """Take out what is not available yet, and say so."""
    problems = []
    for path, value in document.walk():
        row = not_yet(path, value)
        if row is not None:
            text = f"not available yet in this version: {row.instead}"
            problems.append(Problem(document.origin(path), path, text))
    for problem in problems:
        document.prune(problem.path)
    return problems


def validate(document: Document) -> tuple[Config, list[Problem]]:
    """The configuration as far as it makes sense, and what is wrong with the rest, which is taken out."""
    problems: list[Problem] = []
    while True:
        try:
            return Config.model_validate(document.values), problems
        except ValidationError as error:
            taken = False
            for details in error.errors(include_url=False):
                path = tuple(step for step in details["loc"] if step != "[key]")
                problems.append(Problem(document.origin(path), path, _describe(path, details)))
                taken |= document.prune(path[:-1] if details["type"] == "missing" else path)
            assert taken, "a default is invalid"


def _describe(path: Path, details: ErrorDetails) -> str:
    """One error in the operator's words. Nothing below `credentials` is repeated: it may be a misplaced key."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    shown = "this" if path[0] == "credentials" else _shown(value)
    if kind == "extra_forbidden":
        return f"there is no such key: {suggestion(path)}"
    if kind == "missing":
        return NO_API_KEY if path == ("credentials", "default", "api_key") else f"there is no API key: {_A_KEY}"
    if value is None:
        return "nothing is given: leave the key out for its default"
    if kind == "value_error":
        return str(context["error"]).replace(repr(value), shown)
    text = _WORDS.get(kind, details["msg"])
    for name, item in context.items():
        text = text.replace(f"{{{name}}}", str(item).replace("'", ""))
    return text if kind in _CONTAINERS else f"{shown} is given: {text}"


def _shown(value: object) -> str:
    """A scalar as the file has it, text in quotes. What a list or mapping holds is not shown."""
    match value:
        case str():
            return repr(value)
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return inline(value)
