"""What the documentation promises exists, and what exists is documented: commands, metrics, log events, tolerances."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from prometheus_client.metrics import MetricWrapperBase

from relay.admin import dashboard
from relay.admin.access import PUBLIC
from relay.admin.messages import Messages
from relay.admin.pages import Pages
from relay.cli import cli
from relay.core import reply
from relay.core.limit import Limit
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.observe.log import EVENTS
from relay.observe.metrics import PREFIX, Metrics
from relay.queue_cli import queue
from relay.sandbox import HTTP_MODES, MAGIC, MODES, api
from tests.support.environment import clean

ROOT = Path(__file__).parents[2]
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
README = (ROOT / "README.md").read_text()
SANDBOX = (ROOT / "docs" / "sandbox.md").read_text()

LIMITING = [
    *[answer for answer in vars(reply).values() if isinstance(answer, Reply) and answer.limit is not None],
    reply.not_in_networks("192.0.2.1"),
    reply.too_many_connections(1),
    reply.too_many_connections_from("192.0.2.1", 1),
    reply.auth_banned(1),
    reply.too_many_recipients(1),
    reply.too_many_messages("app", 1, "day", 1),
    reply.line_too_long(1),
    reply.message_too_large(1),
]


def first_column(heading: str) -> set[str]:
    """The code words in the first column of the table under a heading."""
    section = MONITORING.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def test_every_log_event_is_documented():
    """The vocabulary and the table agree."""
    assert first_column("## Log events") == set(EVENTS)


def test_every_metric_is_documented():
    """The registry and the table agree, labels included."""
    described = {
        metric._name.removeprefix(f"{PREFIX}_") + ("_total" if metric._type == "counter" else ""): metric._labelnames
        for metric in vars(Metrics()).values()
        if isinstance(metric, MetricWrapperBase)
    }
    section = MONITORING.split("## Metrics\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.MULTILINE)

    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == described


def test_every_http_path_is_documented():
    """The routes of the admin server and the table agree, methods and what is public included."""
    pages = Pages.__new__(Pages)
    documented = re.findall(r"^\| `(GET|POST) (/[^`]*)` \| (yes)? *\|", MONITORING, re.MULTILINE)
    served = set()
    for route in [*dashboard.routes(), *Pages.routes(pages), *Messages(None).routes()]:
        path, _, choice = route.path.replace("{id}", "ID").partition("{command:")
        served |= {(route.method, path + command) for command in choice.rstrip("}").split("|")}

    assert {(method, path) for method, path, _ in documented} == served
    assert {path for _, path, public in documented if public} == PUBLIC


def test_every_tolerance_is_documented():
    """Each kind that the code can count stands in the table."""
    assert first_column("### Kinds of tolerance") == set(Tolerance)


def test_every_limit_is_documented_with_its_reply():
    """Each kind that the code can count stands in the table, with the code and the status of its reply."""
    section = MONITORING.split("### Kinds of limit\n", 1)[1]
    documented = dict(re.findall(r"^\| `([^`]+)` \|[^|]*\| (\d{3} [\d.]+) \|$", section, re.MULTILINE))

    assert documented == {answer.limit.value: f"{answer.code} {answer.enhanced}" for answer in LIMITING}
    assert set(documented) == set(Limit)


QUEUE = typer.main.get_command(queue)
COMMANDS = {command.name or command.callback.__name__: command for command in cli.registered_commands}


def test_the_commands_are_those_of_the_contract():
    """Nothing is missing and nothing has been renamed."""
    assert set(COMMANDS) >= {
        "serve",
        "demo",
        "sandbox",
        "check-config",
        "explain",
        "doctor",
        "send",
        "sendmail",
        "hash-password",
        "health",
    }
    assert set(QUEUE.commands) == {"list", "show", "retry", "hold", "release", "delete", "stats"}


def test_every_queue_command_is_in_the_manual():
    """And the manual names none that is not there."""
    named = set(re.findall(r"(?:\$ sparkpost-relay |\| `|`)queue (\w+)", OPERATIONS))

    assert named == set(QUEUE.commands)


@pytest.mark.parametrize("name", list(QUEUE.commands))
def test_every_queue_command_has_help(name):
    """As for the others; and each prints JSON for programs."""
    command = QUEUE.commands[name]

    assert command.help
    assert all(getattr(parameter, "help", None) for parameter in command.params)
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name):
    """An operator can act on the help of each command, and each option says what it is."""
    group = typer.main.get_command(cli)
    command = group.commands[name]

    assert command.help
    for option in command.params:
        assert getattr(option, "help", None), f"{name} {option.name}"


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked by, as GitHub makes it of them."""
    prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.+)$", prose)}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_lead_somewhere(page):
    """Every relative link of the documentation names a file that is there, and a heading of it."""
    for target, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if "://" not in target:
            aim = page.parent / target if target else page
            assert aim.exists(), target
            assert not heading or heading in anchors(aim), f"{target}#{heading}"


def test_every_fault_of_the_sandbox_is_documented():
    """The three tables and those of the program agree, word for word."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", SANDBOX, re.MULTILINE)

    expected = [(name, fault.meaning) for table in (MAGIC, MODES, HTTP_MODES) for name, fault in table.items()]
    assert sorted(rows) == sorted(expected)


def test_every_fault_over_https_is_documented():
    """It is a list of names, and those that the program has."""
    paragraph = SANDBOX.split("Over HTTPS: ", 1)[1].split("\n\n", 1)[0]
    known = {"http-NNN", "http-NNN-CODE", "permfail", "slow-dot", *api._INSTEAD, *api._AFTERWARDS}

    assert set(re.findall(r"`([^`]+)@`", paragraph)) == known


def test_the_fixture_of_the_sandbox_page(tmp_path):
    """It is what it says: two tests that pass."""
    code = SANDBOX.split("```python\n", 1)[1].split("```", 1)[0]
    (tmp_path / "test_app.py").write_text(code)
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            os.devnull,
            "--rootdir",
            tmp_path,
            "-p",
            "no:cacheprovider",
            tmp_path,
        ],
        env=clean(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout


def test_commands_in_the_readme_exist():
    """The README names no command that is not there."""
    named = set(re.findall(r"\$ sparkpost-relay ([a-z-]+)", README))

    assert named
    assert named <= set(typer.main.get_command(cli).commands)


def alike(line: str) -> str:
    """A line without what differs from run to run: numbers, ids, dates."""
    line = re.sub(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), .*", "DATE", line)
    line = re.sub(r"OK [0-9A-F/-]+", "OK TOKEN", line)
    line = re.sub(r"\b[0-9A-Z]{14}\b", "ID", line)
    line = re.sub(r"250[ -]", "250 ", line)  # EHLO lines come in any order
    return re.sub(r"\d+", "N", line).rstrip()


def test_the_readme_shows_what_the_demo_prints():
    """Line by line, but for numbers, ids and dates."""
    shown = README.split("$ make demo\n", 1)[1].split("```", 1)[0]
    printed = subprocess.run(
        [sys.executable, "-m", "relay", "demo"], capture_output=True, text=True, timeout=60, check=True
    )

    assert {alike(line) for line in shown.splitlines()} == {alike(line) for line in printed.stdout.splitlines()}
