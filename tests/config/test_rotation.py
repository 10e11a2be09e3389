"""Keys in files that change while the relay runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import Loaded
from relay.config.rotation import KeyFiles
from relay.config.secrets import CREDENTIALS_DIRECTORY
from relay.core.secret import Secret

Load = Callable[..., Loaded]


class Watched:
    """Two credentials with their keys in files, one in the environment, and what is told of them."""

    def __init__(self, load_text: Load, directory: Path) -> None:
        self.billing = directory / "billing"
        self.shop = directory / "shop"
        write(self.billing, "billing-1\n")
        write(self.shop, "shop-1\n")
        environ = {"KEY": "from-the-environment", CREDENTIALS_DIRECTORY: str(directory)}
        loaded = load_text(
            "credentials:\n"
            f"  billing: {{api_key: {{file: {self.billing}}}}}\n"
            "  shop: {api_key: {credential: shop}}\n"
            "  default: {api_key: {env: KEY}}\n"
            "identities:\n"
            f"  - {{match: {{login: x}}, password: {{file: {self.billing}}}}}\n",
            environ,
        )
        self.told: list[tuple[str, str]] = []
        self.problems: list[tuple[str, str]] = []
        self.files = KeyFiles(loaded.references, environ, self._changed, self._unreadable)

    def _changed(self, credential: str, key: Secret) -> None:
        self.told.append((credential, key.reveal()))

    def _unreadable(self, credential: str, problem: str) -> None:
        self.problems.append((credential, problem))

    def look(self) -> list[tuple[str, str]]:
        """What a look finds."""
        self.told.clear()
        self.files.look()
        return list(self.told)


def write(path: Path, text: str) -> None:
    """In place, as editors and `echo >` do."""
    path.write_text(text)
    path.chmod(0o600)


def replace(path: Path, text: str) -> None:
    """By a rename, as careful tools do."""
    write(path.with_suffix(".new"), text)
    path.with_suffix(".new").rename(path)


@pytest.fixture
def watched(load_text: Load, tmp_path: Path) -> Watched:
    directory = tmp_path / "keys"
    directory.mkdir()
    watched = Watched(load_text, directory)
    watched.look()
    return watched


def test_the_first_look_reads_every_file(load_text: Load, tmp_path: Path) -> None:
    """A key that was changed between the start and the first look is not missed; passwords are none of these."""
    watched = Watched(load_text, tmp_path)
    write(watched.billing, "billing-2\n")

    assert watched.look() == [("billing", "billing-2"), ("shop", "shop-1")]


def test_nothing_is_read_while_nothing_changes(watched: Watched) -> None:
    """A look costs one stat for each file."""
    assert watched.look() == []
    watched.billing.chmod(0)
    watched.billing.chmod(0o600)
    watched.look()
    assert watched.look() == []


@pytest.mark.parametrize("change", [write, replace])
def test_only_the_credential_whose_file_has_changed_is_told(
    watched: Watched, change: Callable[[Path, str], None]
) -> None:
    """Once, and whichever way it was written."""
    change(watched.billing, "billing-2\n")

    assert watched.look() == [("billing", "billing-2")]
    assert watched.look() == []
    assert watched.problems == []


def test_a_systemd_credential_is_watched_too(watched: Watched) -> None:
    """systemd replaces it when the unit is reloaded."""
    replace(watched.shop, "shop-2")

    assert watched.look() == [("shop", "shop-2")]


def test_a_key_of_the_same_length_within_the_same_moment_is_noticed(watched: Watched) -> None:
    """A tool that copies the old file's times does not hide the change."""
    times = watched.billing.stat()
    replace(watched.billing, "billing-2\n")
    os.utime(watched.billing, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert watched.look() == [("billing", "billing-2")]


def test_a_link_that_leads_elsewhere_is_a_change(watched: Watched) -> None:
    """Kubernetes swaps a link to the directory of a secret's files."""
    old, new = watched.billing.with_name("old"), watched.billing.with_name("new")
    for place, key in ((old, "billing-1"), (new, "billing-2")):
        place.mkdir()
        write(place / "billing", key)
    data = watched.billing.with_name("data")
    data.symlink_to(old)
    watched.billing.unlink()
    watched.billing.symlink_to(data / "billing")
    watched.look()

    data.with_name("data.new").symlink_to(new)
    data.with_name("data.new").rename(data)

    assert watched.look() == [("billing", "billing-2")]


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "bell\a"], ids=["empty", "blank", "two lines", "control"])
def test_a_file_without_a_key_leaves_the_key_as_it_was(watched: Watched, text: str) -> None:
    """It may be halfway through being written: told once, and read again when it changes."""
    write(watched.billing, text)

    assert watched.look() == []
    assert watched.look() == []
    assert [credential for credential, _ in watched.problems] == ["billing"]

    write(watched.billing, "billing-2")
    assert watched.look() == [("billing", "billing-2")]


def test_a_pipe_is_not_read_again(watched: Watched) -> None:
    """Nobody writes to it a second time: to open it would stop the relay."""
    watched.billing.unlink()
    os.mkfifo(watched.billing)

    assert watched.look() == []
    assert watched.problems == []


def test_a_file_that_is_gone_leaves_the_key_as_it_was_until_it_is_back(watched: Watched) -> None:
    """Told once."""
    watched.billing.unlink()
    assert watched.look() == []
    assert watched.look() == []
    assert watched.problems == [("billing", f"{watched.billing} cannot be read: No such file or directory")]

    write(watched.billing, "billing-1\n")
    assert watched.look() == [("billing", "billing-1")]


def test_no_key_is_told_of_in_a_problem(watched: Watched) -> None:
    """Neither the old one nor what stands in the file now."""
    write(watched.billing, "billing-2\nbilling-3\n")
    watched.look()

    assert watched.problems
    assert "billing-" not in repr(watched.problems)
