"""Loading a configuration from a text, on a host where none is installed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from relay.config import Loaded, load


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual place of the file is one that is empty, whatever this host has in /etc."""
    place = tmp_path / "etc" / "relay.yaml"
    monkeypatch.setattr("relay.config.loader.USUAL_PLACE", str(place))
    return place


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[..., Loaded]:
    """Writes a file that only its owner can read, and loads it."""

    def write_and_load(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
        path = tmp_path / "relay.yaml"
        path.write_text(text)
        path.chmod(0o600)
        return load(str(path), {"SPARKPOST_API_KEY": "a-key"} if environ is None else environ)

    return write_and_load
