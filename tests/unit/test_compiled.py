"""What is compiled: the modules that pyproject.toml names, and what may be among them."""

import ast
import os
import tomllib
from pathlib import Path

import pytest

from relay import is_compiled

ROOT = Path(__file__).parents[2]


def modules() -> list[Path]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
    return [ROOT / package.replace(".", "/") / f"{name}.py" for package, names in named.items() for name in names]


@pytest.mark.parametrize("module", modules(), ids=lambda module: f"{module.parent.name}.{module.stem}")
def test_no_coroutine_is_compiled(module):
    """Of one that is cancelled, mypyc takes the exception for one that is still being handled, and keeps it."""
    program = ast.parse(module.read_text())

    assert not [node for node in ast.walk(program) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_these_tests_run_what_they_are_meant_to():
    """`make test-compiled` has them run what is compiled; everything else, the sources."""
    assert is_compiled() is ("build/compiled" in os.environ.get("PYTHONPATH", ""))
