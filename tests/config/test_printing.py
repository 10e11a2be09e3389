"""The effective configuration as `check-config` prints it."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from relay.config import Loaded, dump, keys, load
from relay.config.document import parse
from relay.config.model import default_hostname
from relay.config.problems import Origin
from relay.config.style import inline

Load = Callable[..., Loaded]

EVERYTHING = """\
hostname: relay.example.com
listeners:
  - {name: web, address: "[::1]:0", networks: ["fd00::/32"], auth: none}
  - {name: other, address: 127.0.0.1:2526}
upstream: {host: "2001:db8::7", ports: [2525], tls: {minimum: 1.3}, idle_timeout: 1500ms, timeouts: {connect: 0.25}}
credentials:
  default: {api_key: {env: KEY}}
  billing: {api_key: {env: KEY}, upstream: {host: smtp.eu.sparkpostmail.com, ports: [587], username: "yes"}}
identities:
  - name: "1e5"
    match: {login: "tenant-{subaccount}", listener: other, network: 10.0.0.0/8, mail_from: "<>"}
    password: {env: KEY}
    senders: ["*@example.com", "#@example.com"]
  - {name: all, credential: billing, subaccount: 2147483647, delivery: queue, cut_through_deadline: 1m, max_age: 4h}
limits: {message_size: 1MiB, line_length: 1001}
delivery:
  retry: {first: 1m, factor: 1.5, max: 4h, jitter: 0}
  bounces: {from: bounces@example.com, to: postmaster@example.com}
spool: {url: "sqlite:/srv/my spool.db", reserve: 1GB}
admin: {address: null, token: {env: KEY}}
log: {format: json}
drain_timeout: 0
"""


def test_what_is_printed_is_a_configuration_that_means_the_same(load_text: Load) -> None:
    """Secrets by reference, units and odd strings survive."""
    first = load_text(EVERYTHING, {"KEY": "a-key"})
    again = load_text(dump(first), {"KEY": "a-key"})

    assert again.config == first.config


def test_texts_in_any_script_survive(load_text: Load) -> None:
    """As values and as keys, control characters among them; what is printed is ASCII for any terminal."""
    text = 'Gr\u00fc\u00dfe \U0001f600 \\ud83d \x7f\x85\u2028\r\n"\t\ufffd'
    sparkpost = {"campaign_id": "\U0001f600", "tags": [text], "metadata": {text: [text, {text: None}]}}
    identities = [{"name": "default", "sparkpost": sparkpost}]
    first = load_text(yaml.safe_dump({"identities": identities}), {"SPARKPOST_API_KEY": "k"})
    printed = dump(first)

    assert printed.isascii()
    assert load_text(printed, {"SPARKPOST_API_KEY": "k"}).config.identities == first.config.identities


def test_what_is_printed_is_yaml_for_other_readers_too(load_text: Load) -> None:
    """A YAML 1.1 reader sees the same values as ours."""
    printed = yaml.safe_load(dump(load_text(EVERYTHING, {"KEY": "a-key"})))

    assert printed["identities"][0]["name"] == "1e5"
    assert printed["credentials"]["billing"]["upstream"]["username"] == "yes"
    assert printed["upstream"]["tls"]["minimum"] == "1.3"
    assert printed["listeners"][0]["networks"] == ["fd00::/32"]
    assert printed["identities"][0]["password"] == {"env": "KEY"}


def test_each_value_that_is_no_default_says_where_it_comes_from(load_text: Load, tmp_path: Path) -> None:
    """A line of the file, a variable, or nothing for a default."""
    lines = dump(
        load_text("\nupstream:\n  connections: 3\n", {"SPARKPOST_API_KEY": "k", "RELAY_LISTEN": "localhost:1"})
    )

    assert f"  connections: 3  # {tmp_path / 'relay.yaml'}:3\n" in lines
    assert "    address: localhost:1  # environment: RELAY_LISTEN\n" in lines
    assert "    api_key: {env: SPARKPOST_API_KEY}  # environment: SPARKPOST_API_KEY\n" in lines
    assert "  host: smtp.sparkpostmail.com\n" in lines


def test_a_value_that_was_replaced_as_a_whole_has_no_remark_of_its_past(load_text: Load) -> None:
    """A list from the environment takes the place of the file's list, with all that was said about it."""
    lines = dump(
        load_text(
            "listeners:\n  - {address: 'localhost:0', auth: none}\n",
            {"SPARKPOST_API_KEY": "k", "RELAY__LISTENERS": "[{name: web}]"},
        )
    )

    assert "  - name: web  # environment: RELAY__LISTENERS\n" in lines
    assert "    auth: optional\n" in lines


@pytest.mark.parametrize("name", ["relay", "my_host.example.com", ""])
def test_a_host_without_a_full_name_greets_with_a_valid_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """EHLO needs a domain even where the host has none."""
    monkeypatch.setattr(socket, "gethostname", lambda: name)

    assert default_hostname() == "localhost.localdomain"


def test_a_full_host_name_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own name is the default."""
    monkeypatch.setattr(socket, "gethostname", lambda: "mx1.example.com")

    assert load(None, {"SPARKPOST_API_KEY": "k"}).config.hostname == "mx1.example.com"


def test_keys_are_listed_with_default_and_meaning() -> None:
    """The list covers every section."""
    known = {key.path: key for key in keys()}

    assert known["upstream.idle_timeout"].default == "50s"
    assert known["listeners[].networks"].default == '[127.0.0.0/8, "::1/128"]'
    assert known["credentials.NAME.api_key"].default == "required"
    assert all(key.meaning for key in known.values())


def test_printing_reads_no_yaml(monkeypatch, tmp_path):
    """A parser for each value would take most of the time that thousands of identities take to check."""
    path = tmp_path / "relay.yaml"
    path.write_text(
        "credentials: {default: {api_key: '12345678'}}\nidentities: [{name: 'yes', senders: ['*@x.example']}]\n"
    )
    loaded = load(str(path), {})
    monkeypatch.setattr(yaml, "compose", None)
    monkeypatch.setattr(yaml, "load", None)

    printed = dump(loaded)
    assert 'name: "yes"' in printed
    assert 'senders: ["*@x.example"]' in printed


@given(
    st.text(alphabet="aAyYnNoOeE019_./:@+-~lsfTtru", max_size=8)
    | st.sampled_from(["1:30", "2001-01-01", "0x1f", "1_0"])
)
def test_what_is_printed_is_read_back(text):
    """Under YAML 1.1 and as the configuration is read."""
    line = f"key: {inline(text)}"

    assert yaml.safe_load(line) == parse(line, lambda _: Origin("test")).values == {"key": text}
