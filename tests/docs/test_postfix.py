"""docs/postfix.md names what there is, on both sides: settings, defaults, commands, events, fields, metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from prometheus_client.metrics import MetricWrapperBase

from relay.cli import cli
from relay.config import keys
from relay.observe.log import EVENTS
from relay.observe.metrics import Metrics
from relay.sendmail.origin import DOMAIN_VARIABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "postfix.md").read_text()
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", PAGE))
KEYS = {key.path: key for key in keys()}
A_KEY = re.compile(r"`((?:[a-z_]+(?:\[\])?|NAME)(?:\.(?:[a-z_]+|NAME))+|hostname)`")


def rows(section: str) -> list[tuple[str, str]]:
    return re.findall(r"^\| (`.*?) \| (.*) \|$", SECTIONS[section], re.MULTILINE)


@pytest.mark.skipif(shutil.which("postconf") is None, reason="Postfix is not installed (Debian package postfix)")
def test_its_settings_are_postfixs():
    """Each is known to postconf, which complains of others."""
    names = [name for postfix, _ in rows("Settings") for name in re.findall(r"`(\w+)`", postfix)]
    asked = subprocess.run(["postconf", "-d", *names], capture_output=True, text=True, timeout=50, check=True)

    assert len(names) > 50
    assert [line for line in asked.stderr.splitlines() if "unknown parameter" in line] == []


def test_our_settings_are_there():
    """Each key of the second column can be set, and what stands in brackets behind it is its default."""
    here = " ".join(ours for _, ours in rows("Settings"))
    named = set(A_KEY.findall(here)) - {"queue.md"}

    assert len(named) > 30
    assert named - KEYS.keys() == set()
    defaults = re.findall(rf"{A_KEY.pattern} \(`([^`]+)`\)", here)
    assert len(defaults) > 8
    assert {name: KEYS[name].default for name, _ in defaults} == dict(defaults)


def test_our_commands_are_there():
    """With every option."""
    known = typer.main.get_command(cli)
    commands = dict(known.commands) | {f"queue {name}": one for name, one in known.commands["queue"].commands.items()}
    said = re.findall(
        r"`((?:queue )?[a-z][a-z-]*)((?: --[a-z]+| ID)*)`", " ".join(ours for _, ours in rows("Commands"))
    )
    ours = [(name, rest) for name, rest in said if name not in {"mailq", "stop"}]

    assert len(ours) > 15
    for name, rest in ours:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z]+", rest)) <= options, name


def test_our_log_is_so():
    """Events are in the vocabulary, fields in the manual's table, metrics in the registry."""
    words = {word for _, ours in rows("The log") for word in re.findall(r"`([^`]+)`", ours)}
    fields = set(re.findall(r"`(\w+)`", MONITORING.split("### `attempt.done`\n")[1].split("\n#")[0]))
    metrics = {one._name for one in vars(Metrics()).values() if isinstance(one, MetricWrapperBase)}

    assert words <= set(EVENTS) | fields
    for name in re.findall(r"`(queue_\w+)`", SECTIONS["Monitoring"]):
        assert f"sparkpost_relay_{name}" in metrics or name in metrics


def test_where_the_domain_of_sendmail_comes_from():
    """The variable has this name."""
    assert f"`${DOMAIN_VARIABLE}`" in PAGE
