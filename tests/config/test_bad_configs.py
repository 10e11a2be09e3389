"""Configurations that must be refused, one folder each: `relay.yaml` and `environ` go in, `expected.txt` comes out."""

from pathlib import Path

import pytest

from relay.config import ConfigError, load

FOLDERS = sorted((Path(__file__).parent.parent / "bad_configs").iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_problem_is_named_with_its_place_and_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad configuration is refused with exactly the lines that the folder expects."""
    monkeypatch.chdir(folder)
    environ = {"KEY": "a-key-from-the-environment", "EMPTY": ""}
    if Path("environ").exists():
        environ |= dict(line.split("=", 1) for line in Path("environ").read_text().splitlines())

    with pytest.raises(ConfigError) as refusal:
        load("relay.yaml" if Path("relay.yaml").exists() else None, environ)

    assert f"{refusal.value}\n" == Path("expected.txt").read_text()


def test_there_is_something_to_refuse() -> None:
    """The folders are found, and each says what it expects."""

    assert len(FOLDERS) >= 20
    assert all((folder / "expected.txt").read_text().strip() for folder in FOLDERS)
