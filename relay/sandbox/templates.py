"""SparkPost's templates, as far as mail in MIME form meets them: `{{…}}` is evaluated, whoever wrote it.

Over HTTP that happens in the top-level headers, always, and in the body unless `perform_substitutions` is false (fact
sheet 3.2). Known here are substitution data by name and the macros for literal braces; what has no value becomes
nothing, which is what happens to a Subject about `{{handlebars}}`. In a real body only the first part of each text type
is evaluated; here all of it is.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_EXPRESSION = re.compile(r"\{\{\{(.*?)\}\}\}|\{\{(.*?)\}\}", re.DOTALL)
_MACROS: Final[Mapping[str, str]] = {
    "opening_double_curly()": "{{",
    "closing_double_curly()": "}}",
    "opening_triple_curly()": "{{{",
    "closing_triple_curly()": "}}}",
}


class TemplateError(Exception):
    """A template that cannot be read."""


def evaluate(text: str, data: Mapping[str, Any]) -> str:
    """The text with every expression replaced by its value; raises TemplateError."""
    if "{{" in _EXPRESSION.sub("", text):
        raise TemplateError("substitution language syntax error in template content")
    return _EXPRESSION.sub(lambda match: _value((match[1] or match[2] or "").strip(), data), text)


def _value(expression: str, data: Mapping[str, Any]) -> str:
    if expression in _MACROS:
        return _MACROS[expression]
    value = data.get(expression, "")
    return value if isinstance(value, str) else ""
