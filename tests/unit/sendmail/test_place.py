"""Where the relay is looked for, in which order, and what is said where that cannot be known."""

import os
from pathlib import Path

import pytest

from relay.config import load
from relay.sendmail import place
from relay.sendmail.failure import Failure
from relay.sendmail.place import find

EXAMPLE = Path(__file__).parents[3] / "config" / "relay.yaml"


def found(text: str | None, tmp_path: Path, **environ: str) -> str:
    """The place, where the usual configuration file says this."""
    usual = tmp_path / "relay.yaml"
    if text is not None:
        usual.write_text(text)
    return str(find(None, environ, str(usual)))


def refused(config: str | None, environ: dict[str, str], usual: str = "/nonexistent/relay.yaml") -> str:
    with pytest.raises(Failure) as caught:
        find(config, environ, usual)
    assert caught.value.status == os.EX_CONFIG
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("relay.example:2526", "relay.example:2526"),
        ("127.0.0.1:2526", "127.0.0.1:2526"),
        ("[::1]:2526", "[::1]:2526"),
        ("unix:/run/sparkpost-relay/smtp.sock", "unix:/run/sparkpost-relay/smtp.sock"),
    ],
)
def test_the_environment_comes_first(tmp_path, value, expected):
    """No file is looked at."""
    assert found("listeners: [{address: 'localhost:1'}]", tmp_path, RELAY_SENDMAIL=value) == expected


@pytest.mark.parametrize(
    "value", ["localhost", "localhost:", "localhost:0", "localhost:99999", ":25", "unix:x", "a b:25"]
)
def test_an_address_that_is_none_is_named(value):
    """With what is expected."""
    assert "HOST:PORT or unix:/path is expected" in refused(None, {"RELAY_SENDMAIL": value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "localhost:2525"),
        ("", "localhost:2525"),
        ("hostname: x.example\n", "localhost:2525"),
        ("listeners:\n  #- name: local\n", "localhost:2525"),
        ("listeners: [{}]", "localhost:2525"),
        ("listeners: [{address: 'localhost:2526'}]", "localhost:2526"),
        ("listeners: [{address: '0.0.0.0:2526'}]", "127.0.0.1:2526"),
        ("listeners: [{address: '[::]:2526'}]", "[::1]:2526"),
        ("listeners: [{address: 'unix:/run/relay.sock'}]", "unix:/run/relay.sock"),
        ("listeners: [{address: '*:2526'}]", "localhost:2526"),
        ("listeners: [{address: 'fd:smtp'}]", "unix:/run/sparkpost-relay.sock"),
        ("listeners: [{address: 'fd:smtp'}, {address: '[::1]:2526', auth: none}]", "[::1]:2526"),
        ("listeners: [{auth: required}, {auth: passthrough}, {address: 'localhost:3'}]", "localhost:3"),
        ("listeners: [{tls: {mode: implicit}}, {address: 'localhost:3', tls: {mode: starttls}}]", "localhost:3"),
        ("credentials: {default: {api_key: !secret x}}\nlisteners: [{address: 'localhost:3'}]", "localhost:3"),
    ],
)
def test_the_first_listener_that_wants_no_login_and_no_tls(tmp_path, text, expected):
    """As the relay would understand it; without any, where the relay listens by itself."""
    assert found(text, tmp_path) == expected


def test_the_environment_names_the_first_listener(tmp_path):
    """A container has no file."""
    assert found(None, tmp_path, RELAY_LISTEN="0.0.0.0:26") == "127.0.0.1:26"
    text = "listeners: [{address: 'localhost:1', auth: required}, {address: 'localhost:3'}]"
    assert found(text, tmp_path, RELAY_LISTEN="0.0.0.0:26") == "localhost:3"


def test_a_named_file_takes_the_place_of_the_usual_one(tmp_path):
    """-C before $RELAY_CONFIG."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"listeners: [{{address: 'localhost:{ord(name)}'}}]")

    assert found("", tmp_path, RELAY_CONFIG=str(tmp_path / "a")) == "localhost:97"
    assert str(find(str(tmp_path / "b"), {"RELAY_CONFIG": str(tmp_path / "a")})) == "localhost:98"


def test_a_named_file_that_cannot_be_read_is_an_error():
    """Somebody meant it."""
    assert "/nonexistent/x.yaml, named by -C, cannot be read: No such file" in refused("/nonexistent/x.yaml", {})
    assert "named by $RELAY_CONFIG" in refused(None, {"RELAY_CONFIG": "/nonexistent/x.yaml"})


def test_the_usual_file_need_not_be_readable():
    """Keys stand in it. What went wrong is said should the relay not be there."""
    assert "/nonexistent (No such file or directory) names no listener" in find(None, {}, "/nonexistent").found


def test_yaml_that_is_none_is_named_by_its_line_and_not_quoted(tmp_path):
    """A password may stand there."""
    path = tmp_path / "relay.yaml"
    path.write_text("listeners:\n  - {address: x\npassword: hunter2\n")

    said = refused(None, {}, str(path))
    assert f"{path}:3: not valid YAML" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("text", ["listeners", "listeners: x", "listeners: {a: b}", "- listeners"])
def test_what_only_the_relay_can_judge_is_left_to_it(tmp_path, text):
    """A file of another shape names no listener."""
    assert found(text, tmp_path) == "localhost:2525"


def test_listeners_that_all_want_a_login_are_an_error_with_a_remedy(tmp_path):
    """Nothing is tried that would be refused."""
    path = tmp_path / "relay.yaml"
    path.write_text("listeners: [{auth: required}]")

    assert "`auth: none` on localhost" in refused(None, {}, str(path))


def test_the_names_are_those_of_the_configuration(monkeypatch):
    """What is written twice here says the same twice."""
    from relay.config import environment, loader
    from relay.config.model import Listener

    assert (place.CONFIG_VARIABLE, place.USUAL_CONFIG) == (loader.CONFIG_VARIABLE, loader.USUAL_PLACE)
    assert environment.LISTEN in place._LISTEN_VARIABLES
    assert str(Listener().address) == place.USUAL_ADDRESS
    usual = load(str(EXAMPLE), {"SPARKPOST_API_KEY": "x"}).config.listeners[0].address
    assert str(find(str(EXAMPLE), {})) == str(usual)
