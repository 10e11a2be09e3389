"""The wheel: what every message goes through is compiled, where that is asked for and there is a C compiler.

    HATCH_BUILD_HOOKS_ENABLE=1 pip install .

mypyc makes C of the modules that pyproject.toml names, by the annotations that mypy checks, and the C compiler makes
extension modules of it, which lie beside their sources and are imported in their place. The program does the same for
less CPU time. An editable install runs its sources.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REMEDY: Final = (
    "It needs a C compiler and the headers of Python (Debian: gcc libc6-dev python3-dev); without"
    " HATCH_BUILD_HOOKS_ENABLE it is installed as it is, and does the same"
)


class CompileHook(BuildHookInterface[Any]):
    """`modules` in its table of pyproject.toml: for each package the names of what is compiled."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the results packed; the wheel is for this Python and machine alone then."""
        if version == "editable":
            return
        sources = [
            f"{package.replace('.', '/')}/{name}.py"
            for package, names in self.config["modules"].items()
            for name in names
        ]
        self._scratch = tempfile.TemporaryDirectory()
        place = Path(self._scratch.name)
        for library in _compile(Path(self.root), sources, place):
            build_data["force_include"][str(library)] = str(library.relative_to(place))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """What was compiled is in the wheel now."""
        if version != "editable":
            self._scratch.cleanup()


def _compile(root: Path, sources: list[str], place: Path) -> list[Path]:
    """The extension modules of `sources`, in `place` as below `root`. Where a compiler fails, so does the build."""
    # They are there only when the hook is wanted.
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.errors import CompileError

    before = Path.cwd()
    os.chdir(root)  # a module has the name of its path from here
    try:
        with tempfile.TemporaryDirectory() as scratch:
            extensions = mypycify(
                # `make types` checks; here types are only used, whatever libraries are about.
                ["--config-file=", f"--cache-dir={scratch}/cache", "--ignore-missing-imports", *sources],
                target_dir=f"{scratch}/c",
                group_name="sparkpost_relay",
                debug_level="0",
            )
            command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(place), f"{scratch}/objects"
            command.ensure_finalized()
            command.run()
    except CompileError as error:
        raise RuntimeError(f"the relay cannot be compiled here: {error}. {REMEDY}") from error
    finally:
        os.chdir(before)
    return sorted(place.rglob("*.so"))
