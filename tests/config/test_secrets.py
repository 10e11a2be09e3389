"""Secrets: where they may come from, and that they come out nowhere."""

import base64
import codecs
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from relay.config import ConfigError, Loaded, dump, load

Load = Callable[..., Loaded]
VALUE = "Xq7-unlikely-secret-19c2"


def api_key(loaded: Loaded) -> str:
    return loaded.config.credentials["default"].api_key.reveal()


def test_a_secret_is_text_or_a_variable(load_text: Load) -> None:
    """`"text"` and `{env: NAME}` both work."""
    assert api_key(load_text(f"credentials: {{default: {{api_key: {VALUE}}}}}\n", {})) == VALUE
    assert api_key(load_text("credentials: {default: {api_key: {env: K}}}\n", {"K": VALUE})) == VALUE


@pytest.mark.parametrize(("ending", "kept"), [("", ""), ("\n", ""), ("\r\n", ""), (" ", " ")])
def test_one_line_end_of_a_file_is_not_part_of_the_secret(tmp_path: Path, ending: str, kept: str) -> None:
    """Editors end a file with a line end; whatever else is there belongs to the secret."""
    (tmp_path / "key").write_bytes(VALUE.encode() + ending.encode())

    assert api_key(load(None, {"SPARKPOST_API_KEY_FILE": str(tmp_path / "key")})) == VALUE + kept


def test_a_byte_order_mark_is_not_part_of_the_secret(tmp_path: Path) -> None:
    """Nobody sees it, and no key begins with one."""
    (tmp_path / "key").write_bytes(codecs.BOM_UTF8 + VALUE.encode() + b"\r\n")

    assert api_key(load(None, {"SPARKPOST_API_KEY_FILE": str(tmp_path / "key")})) == VALUE


def test_a_systemd_credential_is_found_in_its_directory(load_text: Load, tmp_path: Path) -> None:
    """`{credential: NAME}` is `$CREDENTIALS_DIRECTORY/NAME`."""
    (tmp_path / "sparkpost-key").write_text(f"{VALUE}\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert api_key(load_text("credentials: {default: {api_key: {credential: sparkpost-key}}}\n", environ)) == VALUE


def test_a_systemd_credential_does_not_lead_out_of_its_directory(load_text: Load, tmp_path: Path) -> None:
    """A name with slashes is no name."""
    with pytest.raises(ConfigError, match="one word without slashes"):
        load_text(
            "credentials: {default: {api_key: {credential: ../x}}}\n", {"CREDENTIALS_DIRECTORY": str(tmp_path / "d")}
        )


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not text in UTF-8"), (b"x" * 70_000, "longer than any")],
)
def test_a_file_without_a_usable_secret_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    """Starting with a secret that cannot work would only fail later."""
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(ConfigError, match=text):
        load(None, {"SPARKPOST_API_KEY_FILE": str(tmp_path / "key")})


@pytest.mark.parametrize("name", [VALUE, "no-such-directory/key"])
def test_a_secret_in_the_place_of_its_files_name_is_not_shown(name: str) -> None:
    """A path is; a word without a slash may be the secret."""
    with pytest.raises(ConfigError, match="cannot be read: No such file") as refused:
        load(None, {"SPARKPOST_API_KEY_FILE": name})

    assert (name in str(refused.value)) == ("/" in name)
    assert "SPARKPOST_API_KEY_FILE" in str(refused.value)


@pytest.mark.parametrize("kind", ["file", "credential"])
def test_a_name_that_no_file_can_have_is_an_error(load_text: Load, kind: str) -> None:
    """It is not looked for, and no traceback."""
    with pytest.raises(ConfigError, match=rf"api_key\.{kind}: a NUL or half a character stands in it"):
        load_text(f'credentials: {{default: {{api_key: {{{kind}: "a\\0b"}}}}}}\n', {"CREDENTIALS_DIRECTORY": "/"})


def test_a_secret_file_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    """The warning names the key and the remedy, and goes away with it."""
    path = tmp_path / "key"
    path.write_text(VALUE)
    environ = {"SPARKPOST_API_KEY_FILE": str(path)}
    path.chmod(0o644)
    (warning,) = load(None, environ).warnings
    path.chmod(0o640)

    assert warning == (
        f"environment: SPARKPOST_API_KEY_FILE: credentials.default.api_key: {path} can be read by every user of this "
        f"host: chmod o= {path}"
    )
    assert load(None, environ).warnings == []


def test_a_configuration_with_secrets_in_clear_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    """The file is as secret as what it holds."""
    path = tmp_path / "relay.yaml"
    path.write_text(f"credentials:\n  default: {{api_key: {VALUE}}}\n")
    path.chmod(0o644)

    (warning,) = load(str(path), {}).warnings

    assert warning.startswith(f"{path}:2: credentials.default.api_key: a secret in clear")


PLACES = [
    "credentials: {default: {api_key: SECRET}}",
    "credentials: {default: SECRET}",
    "credentials: SECRET",
    "credentials: [SECRET]",
    "credentials: {default: {api_key: [SECRET]}}",
    "credentials: {default: {api_key: {SECRET: x}}}",
    "credentials: {default: {api_key: {env: x, value: SECRET}}}",
    "credentials: {default: {api_key: {password: SECRET}}}",
    "credentials: {default: {api_key: 'SECRET\\n\\x01'}}",
    'credentials: {default: {api_key: "SECRET\\n"}}',
    "credentials: {default: {api_key: x, key: SECRET}}",
    "credentials: {default: {api_key: x, upstream: {host: SECRET_, ports: SECRET, username: [SECRET]}}}",
    "credentials: {default: {api_key: *SECRET}}",
    "credentials: {default: {api_key: &SECRET x, api_key: &SECRET y}}",
    "credentials: {default: {api_key: !SECRET x}}",
    "credentials: {default: {api_key: %SECRET}}",
    "credentials: {default: {api_key: 'SECRET}}",
    "credentials: {default: {api_key: @SECRET}}",
    "credentials: {default: {api_key: SECRET: x}}",
    "credentials:\n\tdefault: {api_key: SECRET}",
    "api_key: SECRET",
    "hostname: {api_key: SECRET}",
    "admin: {token: SECRET, address: {token: SECRET}}",
    "admin: {token: [SECRET]}",
    "admin: SECRET",
    "identities: [{match: {login: a}, password: SECRET}]",
    "identities: [{password: SECRET}]",
    "identities: [{match: {login: a}, password: SECRET}, {match: {login: a}, password: SECRET2, name: b}]",
    "identities: [{match: {login: a}, password: $argon2id$SECRET}]",
    "identities: [{password: {file: /nowhere, SECRET: x}}]",
    "identities: [{passwort: SECRET}]",
    "identities: [SECRET]",
    "identities: SECRET",
    "spool: {url: 'postgresql://relay:SECRET@db/relay'}",
    "SECRET",
]


@pytest.mark.parametrize("text", PLACES)
def test_a_secret_comes_out_nowhere(load_text: Load, text: str) -> None:
    """Whatever is wrong around it, no error, traceback, warning, repr or print of a configuration repeats a secret."""
    try:
        loaded = load_text(text.replace("SECRET", VALUE), {"UNUSED": "x"})
        said = [repr(loaded), str(loaded.config), dump(loaded), *loaded.warnings]
        said += [loaded.config.model_dump_json(), str(loaded.config.model_dump())]
    except ConfigError as error:
        said = [str(error), repr(error), *map(repr, error.problems), "".join(traceback.format_exception(error))]

    for form in (VALUE, base64.b64encode(VALUE.encode()).decode(), VALUE[:8]):
        assert form not in "\n".join(said)


def test_the_mask_that_is_printed_is_not_taken_for_a_secret(load_text: Load) -> None:
    """What `check-config` prints for a secret in clear does not work as a configuration, and says so."""
    printed = yaml.safe_load(dump(load_text(f"credentials: {{default: {{api_key: {VALUE}}}}}", {})))

    with pytest.raises(ConfigError, match="this is the mask"):
        load_text(yaml.safe_dump(printed), {})


def test_a_command_that_needs_no_secret_is_not_stopped_by_one(tmp_path: Path) -> None:
    """Where systemd shows the secrets to the service alone, an operator's command still learns where the spool is."""
    path = tmp_path / "relay.yaml"
    path.write_text(
        "credentials: {default: {api_key: {credential: api-key}}, other: {api_key: {env: NOWHERE}}}\n"
        "identities: [{name: app, match: {login: app}, password: {file: /nowhere/password}, credential: other}]\n"
        "admin: {token: {credential: token}}\n"
        "spool: {url: 'sqlite:/somewhere/spool.db'}\n"
    )
    config = load(str(path), {}, secrets_needed=False).config

    assert config.spool.url == "sqlite:/somewhere/spool.db"
    assert set(config.credentials) == {"default", "other"}
    assert not config.admin.token
    with pytest.raises(ConfigError):
        load(str(path), {})


def test_a_command_that_needs_no_secret_leaves_a_pipe_alone(tmp_path: Path) -> None:
    """It would wait for a writer, or take from the relay what is written only once."""
    os.mkfifo(tmp_path / "key")

    loaded = load(None, {"SPARKPOST_API_KEY_FILE": str(tmp_path / "key")}, secrets_needed=False)

    assert api_key(loaded) == ""


def test_a_pipe_into_which_nobody_writes_gives_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever needs it is told so soon, and where it is named."""
    monkeypatch.setattr("relay.config.pipes.PATIENCE", 0.01)
    os.mkfifo(tmp_path / "key")

    with pytest.raises(
        ConfigError, match=r"SPARKPOST_API_KEY_FILE: .*/key cannot be read: nobody writes into this pipe"
    ):
        load(None, {"SPARKPOST_API_KEY_FILE": str(tmp_path / "key")})


def test_a_secret_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As a shell's `<(pass show sparkpost)` has it."""
    reader, writer = os.pipe()
    os.write(writer, VALUE.encode())
    os.close(writer)
    try:
        loaded = load(None, {"SPARKPOST_API_KEY_FILE": f"/dev/fd/{reader}"})
    finally:
        os.close(reader)

    assert api_key(loaded) == VALUE


def test_without_secrets_other_mistakes_are_still_told(tmp_path: Path) -> None:
    """Only what concerns the secrets themselves is let pass; a key that would come by the environment is not missed."""
    path = tmp_path / "relay.yaml"
    path.write_text("spool: {uri: none}\n")
    with pytest.raises(ConfigError, match=r"spool\.uri") as raised:
        load(str(path), {}, secrets_needed=False)

    assert len(raised.value.problems) == 1
