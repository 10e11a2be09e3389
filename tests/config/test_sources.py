"""Where a configuration comes from: defaults, one file, the environment, and which of them wins."""

import ipaddress
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from relay.config import Config, ConfigError, Loaded, TcpAddress, load

Load = Callable[..., Loaded]
KEY = {"SPARKPOST_API_KEY": "a-key"}


def test_the_environment_alone_suffices() -> None:
    """With nothing but an API key the relay listens on localhost for this host, and sends to SparkPost."""
    loaded = load(None, KEY)

    (listener,) = loaded.config.listeners
    assert loaded.source == "environment"
    assert loaded.warnings == []
    assert (listener.name, listener.address, listener.auth) == ("local", TcpAddress("localhost", 2525), "optional")
    assert listener.networks == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert loaded.config.upstream.ports == (587, 2525)
    assert loaded.config.credentials["default"].api_key.reveal() == "a-key"
    assert loaded.config.spool.url == "sqlite:/var/lib/sparkpost-relay/spool.db"


def test_a_sidecar_listens_for_its_neighbours_by_environment_alone() -> None:
    """`RELAY_LISTEN` and `RELAY_NETWORKS` are the first listener's address and networks, and no open relay."""
    loaded = load(None, KEY | {"RELAY_LISTEN": "0.0.0.0:2525", "RELAY_NETWORKS": "10.0.0.0/8, fd00::/32"})

    (listener,) = loaded.config.listeners
    assert loaded.warnings == []
    assert listener.address == TcpAddress("0.0.0.0", 2525)
    assert listener.networks == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/32"))


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(load_text: Load) -> None:
    """Each key comes from the last source that has it."""
    config = load_text(
        "upstream: {host: file.example.com, connections: 3}\n", KEY | {"RELAY__UPSTREAM__HOST": "env.example.com"}
    ).config

    assert config.upstream.host == "env.example.com"
    assert config.upstream.connections == 3
    assert config.upstream.idle_timeout == 50.0


def test_a_long_name_wins_over_a_short_one() -> None:
    """`RELAY__CREDENTIALS__DEFAULT__API_KEY` says more than `SPARKPOST_API_KEY`."""
    config = load(None, KEY | {"RELAY__CREDENTIALS__DEFAULT__API_KEY": "another"}).config

    assert config.credentials["default"].api_key.reveal() == "another"


def test_values_of_variables_are_yaml() -> None:
    """Numbers, lists and mappings can be given, and a mapping leaves the other keys alone."""
    config = load(
        None,
        KEY
        | {
            "RELAY__UPSTREAM__PORTS": "[2525, 587]",
            "RELAY__UPSTREAM__TIMEOUTS": "{connect: 5s, banner: 7}",
            "RELAY__UPSTREAM__TIMEOUTS__BANNER": "9s",
            "RELAY__LIMITS__CONNECTIONS": "7",
            "RELAY__LISTENERS__0__ADDRESS": '"[::1]:2526"',
            "RELAY__LISTENERS__1": "{name: second, address: 'localhost:0'}",
        },
    ).config

    assert config.upstream.ports == (2525, 587)
    assert (config.upstream.timeouts.connect, config.upstream.timeouts.banner) == (5.0, 9.0)
    assert config.upstream.timeouts.final_dot == 600.0
    assert config.limits.connections == 7
    assert [str(listener.address) for listener in config.listeners] == ["[::1]:2526", "localhost:0"]


def test_a_variable_reaches_into_the_lists_and_names_of_the_file(load_text: Load) -> None:
    """An index means the element of the file; a credential's name may have capitals and hyphens."""
    config = load_text(
        "credentials:\n  My-Key: {api_key: x}\nlisteners:\n  - {name: web, address: 'localhost:0'}\n",
        KEY | {"RELAY__LISTENERS__0__AUTH": "none", "RELAY__CREDENTIALS__MY_KEY__API_KEY": "y"},
    ).config

    assert (config.listeners[0].name, config.listeners[0].auth) == ("web", "none")
    assert config.credentials["My-Key"].api_key.reveal() == "y"


@pytest.mark.parametrize("key", ["1234567890", "12e5", "[not yaml", "null", "a:b", "*x", "!x"])
def test_an_api_key_in_the_environment_is_taken_literally(key: str) -> None:
    """A key of digits stays text, and a key that YAML would read otherwise stays as it is."""
    config = load(None, {"RELAY__CREDENTIALS__DEFAULT__API_KEY": key}).config

    assert config.credentials["default"].api_key.reveal() == key


def test_empty_variables_are_not_set() -> None:
    """A compose file makes empty variables of those that nobody has set."""
    environ = dict.fromkeys(["SPARKPOST_API_KEY_FILE", "RELAY_LISTEN", "RELAY_NETWORKS", "RELAY__HOSTNAME"], "")

    assert load(None, KEY | environ).config.listeners == load(None, KEY).config.listeners


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes sets `RELAY_PORT` and the like for a service that is called relay."""
    assert load(None, KEY | {"RELAY_PORT": "tcp://10.0.0.1:2525", "RELAY_SERVICE_HOST": "10.0.0.1"}).warnings == []


def test_sections_whose_lines_are_all_comments_are_empty(load_text: Load) -> None:
    """`upstream:` with nothing below it is as good as no `upstream:`."""
    config = load_text("upstream:\n  # host: x\nlisteners:\ncredentials:\n  default:\n").config

    assert config.upstream == load(None, KEY).config.upstream


def test_yaml_is_read_by_the_rules_of_1_2(load_text: Load) -> None:
    """`no` and `off` are names, not booleans."""
    config = load_text(
        "listeners:\n  - {name: no, address: 'localhost:0'}\n  - {name: off, address: 'localhost:0'}\n"
    ).config

    assert [listener.name for listener in config.listeners] == ["no", "off"]


def test_the_file_is_named_by_argument_else_by_variable(tmp_path: Path) -> None:
    """`--config` wins over `$RELAY_CONFIG`."""
    for name in ("argument", "variable"):
        (tmp_path / name).write_text(f"hostname: {name}.example.com\n")
    environ = KEY | {"RELAY_CONFIG": str(tmp_path / "variable")}

    assert load(str(tmp_path / "argument"), environ).config.hostname == "argument.example.com"
    assert load(None, environ).config.hostname == "variable.example.com"
    assert load(None, environ).source == str(tmp_path / "variable")


def test_an_installed_file_is_used_where_none_is_named(nothing_installed: Path) -> None:
    """Else it is the file in the usual place, if there is one."""
    nothing_installed.parent.mkdir()
    nothing_installed.write_text("hostname: installed.example.com\n")

    assert load(None, KEY).config.hostname == "installed.example.com"
    assert load(None, KEY).source == str(nothing_installed)


def test_an_installed_file_in_a_directory_of_roots_own_is_not_passed_over(nothing_installed: Path) -> None:
    """Made under umask 077 it can be neither read nor seen: not to be taken for a host where nothing is installed."""
    nothing_installed.parent.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError) as refusal:
            load(None, KEY)
    finally:
        os.seteuid(user)
        nothing_installed.parent.chmod(0o700)

    assert f"{nothing_installed}: cannot be read: Permission denied" in str(refusal.value)


@pytest.mark.parametrize("environ", [{}, {"RELAY_CONFIG": "/nowhere/relay.yaml"}])
def test_a_named_file_must_exist(environ: dict[str, str]) -> None:
    """A file that is named and missing is an error, not a reason to go on without."""
    with pytest.raises(ConfigError) as refusal:
        load(None if environ else "/nowhere/relay.yaml", KEY | environ)

    assert str(refusal.value).startswith("/nowhere/relay.yaml: cannot be read: No such file or directory.")


def test_problems_come_in_the_order_of_the_file(load_text: Load) -> None:
    """The operator mends them from top to bottom; what the environment has comes last."""
    with pytest.raises(ConfigError) as refusal:
        load_text("limits: {connections: 0}\nlog: {level: x}\nhostname: _\n", KEY | {"RELAY__UPSTREAM__PORTS": "[]"})

    assert [problem.origin.line for problem in refusal.value.problems] == [1, 2, 3, None]


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: !!int x", "? [1]\n: 2", "a: !x 1", "[" * 3000, 'a: "\\q"', "a: %x"])
def test_any_text_is_read_or_refused(load_text: Load, text: str) -> None:
    """Odd YAML is a problem with a place, never another exception."""
    with pytest.raises(ConfigError, match=r"relay\.yaml:\d+"):
        load_text(text)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_is_all_defaults(load_text: Load, text: str) -> None:
    """A file may say nothing."""
    assert load_text(text).config == load(None, KEY).config


def test_models_can_be_made_in_code() -> None:
    """Keys written as in YAML give the same configuration as a file with them."""
    config = Config.model_validate({"credentials": {"default": {"api_key": "a-key"}}, "hostname": "a.example"})

    assert config == load(None, KEY | {"RELAY__HOSTNAME": "a.example"}).config
    with pytest.raises(ValidationError, match="a secret is text"):
        Config.model_validate({"credentials": {"default": {"api_key": ""}}})
    with pytest.raises(ValidationError, match="frozen"):
        config.hostname = "b.example"


def test_aliases_repeat_a_value(load_text: Load) -> None:
    """What is written once may be used twice."""
    config = load_text(
        "upstream: {ports: &ports [2525]}\ncredentials: {b: {api_key: x, upstream: {ports: *ports}}}\n"
    ).config

    assert config.credentials["b"].upstream.ports == (2525,)


def test_a_configuration_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As a shell's `<(command)` has it, and all of it, however long it is."""
    os.mkfifo(tmp_path / "relay.yaml")
    text = f"hostname: relay.example.com\n{'# filling' * 20_000}\ndrain_timeout: 9s\n"
    with ThreadPoolExecutor() as executor:
        written = executor.submit((tmp_path / "relay.yaml").write_text, text)
        loaded = load(str(tmp_path / "relay.yaml"), KEY)

    assert written.result() == len(text)
    assert loaded.config.hostname == "relay.example.com"
    assert loaded.config.drain_timeout == 9.0


def test_a_pipe_into_which_nobody_writes_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that stands in the place of the file nor one in the place of a certificate."""
    monkeypatch.setattr("relay.config.pipes.PATIENCE", 0.01)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "relay.yaml").write_text(f"upstream: {{tls: {{ca_file: {tmp_path / 'pipe'}}}}}")

    with pytest.raises(ConfigError, match="pipe: cannot be read: nobody writes into this pipe"):
        load(str(tmp_path / "pipe"), KEY)
    with pytest.raises(ConfigError, match=r"ca_file: .*/pipe is not a file: name the PEM file itself"):
        load(str(tmp_path / "relay.yaml"), KEY)


def test_what_has_no_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.config.loader.LARGEST", 2_000_000)
    (tmp_path / "relay.yaml").write_text("#" * 2_000_001)

    for name in ("/dev/zero", str(tmp_path / "relay.yaml")):
        with pytest.raises(ConfigError, match=f"^{name}: cannot be read: it is longer than any configuration"):
            load(name, KEY)


def test_aliases_that_multiply_have_a_place(tmp_path: Path) -> None:
    """Eight lines would be forty million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "relay.yaml").write_text("\n".join(lines))

    with pytest.raises(ConfigError, match=r"relay\.yaml:1: a[5-8](\[\d\])+: more than a million values: if aliases"):
        load(str(tmp_path / "relay.yaml"), KEY)
    with pytest.raises(ConfigError, match=r"environment: RELAY__LIMITS: .*more than a million values: if aliases"):
        load(None, KEY | {"RELAY__LIMITS": "{" + ", ".join(lines) + "}"})


def test_a_spool_without_a_path_is_named_as_it_was_written() -> None:
    """YAML has `sqlite:` as a mapping; the operator has not."""
    with pytest.raises(ConfigError, match=r"spool\.url: 'sqlite:' is not a spool"):
        load(None, KEY | {"RELAY__SPOOL__URL": "sqlite:"})
