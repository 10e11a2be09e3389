"""docs/clients.md shows what the matrix of clients does: the same clients, the same settings, the same findings."""

import re
from pathlib import Path

import pytest
import yaml

from relay.config import Config
from tests.e2e.clients.catalogue import CLIENTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
DRIVERS = ROOT / "tests" / "e2e" / "clients"
SECTIONS = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", PAGE))
SOURCES = {
    "Python: smtplib": ["smtplib_client.py", "composing.py"],
    "Python: aiosmtplib": ["aiosmtplib_client.py", "composing.py"],
    "curl": ["programs.py"],
    "swaks": ["programs.py"],
    "msmtp": ["programs.py"],
    "PHP: mail()": ["catalogue.py"],
    "PHP: PHPMailer": ["phpmailer.php"],
    "Nodemailer": ["nodemailer.js"],
    "Perl: Net::SMTP": ["net_smtp.pl"],
    "Ruby: net-smtp": ["net_smtp.rb"],
    "Java mail": ["JavaMail.java"],
    "Go: net/smtp": ["net_smtp.go"],
    "mutt": ["programs.py"],
    "git send-email": ["programs.py"],
    "Postfix": ["postfix.py"],
}
# Comments, names of hosts, people and files, and values that differ from one installation to the next.
EXAMPLES = re.compile(
    r"""\#.*|//.*|"[^"]*"|'[^']*'|\S*(?:example|localhost|/etc/|correct-horse|billing|@message|/opt/)\S*"""
    r"|\b(?:set|[Tt]rue|[Ff]alse|default|password)\b"
)


def test_every_section_is_about_something_that_is_tried():
    """Each has the driver of the matrix that uses its settings; what has none is said not to be tried."""
    assert set(SECTIONS) - {"What they do", "Not tried"} == set(SOURCES)


def test_the_table_says_who_announces_8_bit_content():
    """Each client of the matrix has its line, and what it says is what the matrix expects, and finds."""
    said = dict(re.findall(r"(?m)^\| ([a-z-]+) \| ([a-z ]+) \|", SECTIONS["What they do"]))
    expected = {}
    for client in CLIENTS:
        silent, loud = "8bit-announced" in client.refuses, "8bit-unannounced" in client.refuses
        expected[client.name] = "never" if silent else "by itself" if loud else "when told"

    assert {name: word for name, word in said.items() if name != "client"} == expected


@pytest.mark.parametrize("section", SOURCES)
def test_the_settings_are_those_of_the_matrix(section):
    """Each word of a section's settings, but for names and paths, is a word of the driver that the matrix runs."""
    block = re.search(r"(?ms)^```\w*\n(.*?)^```", SECTIONS[section])
    assert block
    source = "".join((DRIVERS / name).read_text() for name in SOURCES[section])
    words = set(re.findall(r"[A-Za-z_][\w-]*", EXAMPLES.sub(" ", block[1])))
    known = set(re.findall(r"[A-Za-z_][\w-]*", source))

    assert words
    assert {word for word in words if word not in known and f"--{word}" not in source} == set()


def test_the_listeners_of_the_examples_are_a_configuration():
    """What the page begins with can be put into relay.yaml."""
    block = re.search(r"(?ms)^```yaml\n(.*?)^```", PAGE)
    assert block
    values = yaml.safe_load(block[1])
    values["identities"][0]["password"] = "read from the file"

    config = Config.model_validate({**values, "credentials": {"default": {"api_key": "key"}}})

    assert [listener.name for listener in config.listeners] == ["local", "office", "old"]
