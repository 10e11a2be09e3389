"""The documentation and the example files say what the models say."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from relay.config import KeyInfo, keys, load
from relay.config.keys import pattern
from relay.config.style import inline

ROOT = Path(__file__).parent.parent.parent
KEYS = {key.path: key for key in keys()}
ENVIRON = {"SPARKPOST_API_KEY": "a-key"}
MANUAL = (ROOT / "docs/configuration.md").read_text()
REFERENCE = (ROOT / "config/relay.yaml").read_text()


def examples_without_a_file() -> list[dict[str, str]]:
    """The environments in which the README and the manual start a relay with no file at all."""
    pages = (ROOT / "README.md").read_text() + MANUAL
    commands = re.findall(r"^(?:\$ )?(SPARKPOST_API_KEY=\S+ [^`]*?) sparkpost-relay serve$", pages, re.MULTILINE)
    return [dict(word.split("=", 1) for word in shlex.split(command.replace("\\\n", " "))) for command in commands]


@pytest.mark.parametrize("environ", examples_without_a_file(), ids=lambda environ: "-".join(environ))
def test_an_example_without_a_file_needs_nothing_installed(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual place of the spool is made when the relay is installed, and not for a trial."""
    monkeypatch.chdir(tmp_path)
    for name in environ:
        if name.endswith("CA_FILE"):  # the stand-in makes it
            Path(environ[name]).parent.mkdir()
            trustme.CA().cert_pem.write_to_path(environ[name])

    assert load(None, environ).config.spool.url in ("none", "sqlite:spool.db")


def test_both_examples_without_a_file_are_found() -> None:
    """A change of their form must not hide them from the test above."""
    assert len(examples_without_a_file()) == 2


def documented_keys() -> dict[str, list[str]]:
    """Every row of a table of keys: the key, then the other cells."""
    rows = re.findall(r"^\| `([a-z][\w.\[\]]*|credentials\.NAME[\w.]*)` \| (.*) \|$", MANUAL, re.MULTILINE)
    return {path: cells.split(" | ") for path, cells in rows if not path.isupper()}


def uncommented_reference() -> dict[str, Any]:
    """relay.yaml with every `#key:` made real; `# text` stays a comment."""
    real = re.sub(r"^( *)#(?=\S)(?!$)", r"\1", REFERENCE, flags=re.MULTILINE)
    tree = yaml.safe_load(real)
    assert isinstance(tree, dict)
    return tree


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> dict[str, Any]:
    """Every key that holds a value, by its pattern."""
    if pattern(path) in KEYS:
        return {pattern(path): value}
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    return {key: leaf for step, inner in steps for key, leaf in leaves(inner, (*path, step)).items()}


def test_the_manual_has_every_key_and_no_other() -> None:
    """A key without documentation, or documentation without a key, is a defect."""
    assert set(documented_keys()) == set(KEYS)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_manual_has_the_true_default(key: KeyInfo) -> None:
    """The default in the manual is the one in the models."""
    default = documented_keys()[key.path][0]

    assert default.strip("`") == key.default


def test_the_reference_file_has_every_key_and_no_other() -> None:
    """relay.yaml is complete."""
    assert set(leaves(uncommented_reference())) == set(KEYS)


def test_the_reference_file_has_the_true_defaults() -> None:
    """What relay.yaml shows is what happens without it; the host's name and the key are examples."""
    shown = {path: inline(value) for path, value in leaves(uncommented_reference()).items()}
    true = {path: key.default for path, key in KEYS.items()}
    examples = {"hostname": "relay.example.com", "credentials.NAME.api_key": "{env: SPARKPOST_API_KEY}"}

    assert shown == true | examples


def test_the_reference_file_changes_nothing_as_it_is() -> None:
    """All of it is comment."""
    assert load(str(ROOT / "config/relay.yaml"), ENVIRON).config == load(None, ENVIRON).config


def test_the_minimal_file_works(tmp_path: Path) -> None:
    """Five lines are a whole configuration, once the key is there."""
    text = (ROOT / "config/relay.minimal.yaml").read_text()
    (tmp_path / "api-key").write_text("a-key\n")
    (tmp_path / "api-key").chmod(0o600)
    (tmp_path / "relay.yaml").write_text(text.replace("/etc/sparkpost-relay/api-key", str(tmp_path / "api-key")))

    loaded = load(str(tmp_path / "relay.yaml"), {})

    assert sum(not line.startswith("#") for line in text.splitlines()) == 5
    assert loaded.warnings == []
    assert loaded.config.credentials["default"].api_key.reveal() == "a-key"


def test_the_manual_shows_configurations_that_work(tmp_path: Path) -> None:
    """Each YAML block of the manual loads, with its secrets put in place."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", MANUAL, re.MULTILINE | re.DOTALL)
    (tmp_path / "secret").write_text("a-secret")
    (tmp_path / "secret").chmod(0o600)
    for block in blocks:
        text = re.sub(r"\{file: [^}]*\}", f"{{file: {tmp_path / 'secret'}}}", block)
        (tmp_path / "relay.yaml").write_text(text)

        load(str(tmp_path / "relay.yaml"), ENVIRON | {"RELAY__CREDENTIALS__BILLING__API_KEY": "k"})

    assert len(blocks) == 4
