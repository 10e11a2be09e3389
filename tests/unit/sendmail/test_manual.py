"""docs/sendmail.md and the program say the same: options, statuses, variables, places."""

import os
import re
from pathlib import Path

import pytest

from relay.sendmail import aliases, command, options, origin, place
from relay.sendmail.failure import Failure

ROOT = Path(__file__).parents[3]
MANUAL = (ROOT / "docs" / "sendmail.md").read_text()
SOURCE = "".join(path.read_text() for path in (ROOT / "relay" / "sendmail").glob("*.py"))


def section(heading: str) -> str:
    return MANUAL.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def first_column(heading: str) -> list[str]:
    return re.findall(r"^\| (`.*?) \|", section(heading), re.MULTILINE)


def test_every_option_is_in_the_table():
    """What is heeded has a row, what is ignored is named below it, and no other."""
    rows = " ".join(first_column("Options"))
    ignored = re.search(r"without any effect: (.*?)\.", section("Options"), re.DOTALL)
    assert ignored is not None

    assert set(re.findall(r"`-(\w)", rows)) == set(options.HEEDED)
    assert set(re.findall(r"`-(\w)`", ignored[1])) == set(options.IGNORED)


def test_every_mode_is_in_the_table():
    """And those that are refused are said to be."""
    rows = " ".join(first_column("Options"))

    assert set(re.findall(r"`-b(\w)`", rows)) == set(options._MODES)
    assert set(re.findall(r"`-b(\w)`", section("Options"))) == set(options._MODES) | set(options._REMEDIES)


def test_every_status_is_in_the_table():
    """Those that the program can end with, by number and name."""
    rows = re.findall(r"^\| (\d+) \| `(EX_\w+)` \|", section("Exit statuses"), re.MULTILINE)

    assert {name for _, name in rows} == set(re.findall(r"os\.(EX_\w+)", SOURCE))
    assert all(getattr(os, name) == int(number) for number, name in rows)


def test_every_variable_and_place_is_named():
    """Nothing decides that nobody can read about."""
    for name in (place.PLACE_VARIABLE, place.CONFIG_VARIABLE, origin.DOMAIN_VARIABLE, command.ALIASES_VARIABLE):
        assert f"`${name}`" in MANUAL
    for path in (place.USUAL_CONFIG, place.USUAL_ADDRESS, origin.MAILNAME, aliases.USUAL_PLACE):
        assert f"`{path}`" in MANUAL


def test_a_recipient_that_no_mail_can_reach_is_told_what_would_help():
    """cron's root, on a host without aliases and without a domain."""
    with pytest.raises(Failure) as caught:
        command._recipients(["root"], origin.Domain("web1", real=False), {"RELAY_SENDMAIL_ALIASES": os.devnull})

    assert caught.value.status == os.EX_NOUSER
    for remedy in ("MAILTO", "alias", "/etc/mailname", "$RELAY_SENDMAIL_DOMAIN", "'web1' is only a host's name"):
        assert remedy in str(caught.value)


def test_an_alias_that_swallows_mail_leaves_nobody(tmp_path):
    """And an alias that names somebody twice names them once."""
    path = tmp_path / "aliases"
    path.write_text("root: /dev/null\nops: a@b.c, a@B.C, bob\n")
    environ = {"RELAY_SENDMAIL_ALIASES": str(path)}
    domain = origin.Domain("example.com", real=True)

    assert command._recipients(["root"], domain, environ) == []
    assert command._recipients(["ops", "a@b.c"], domain, environ) == ["a@b.c", "bob@example.com"]
