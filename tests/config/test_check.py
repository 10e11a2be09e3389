"""Rules across keys, where the answer is yes, or only a warning; `bad_configs` has those where it is no."""

import datetime
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.config import ConfigError, Loaded, dump

Load = Callable[..., Loaded]


def listener_with(certificate: Path, key: Path) -> str:
    return f"listeners:\n  - tls: {{mode: starttls, certificate: {certificate}, key: {key}}}\n"


def write_pair(
    folder: Path,
    name: str,
    *,
    not_before: datetime.datetime | None = None,
    not_after: datetime.datetime | None = None,
    key_type: trustme.KeyType = trustme.KeyType.ECDSA,
) -> tuple[Path, Path]:
    """A certificate for localhost and its key, as PEM files."""
    issued = trustme.CA().issue_cert("localhost", not_before=not_before, not_after=not_after, key_type=key_type)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    for pem in issued.cert_chain_pems:
        pem.write_to_path(certificate, append=True)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def test_a_certificate_with_its_key_is_fine(load_text: Load, tmp_path: Path) -> None:
    """A pair that belongs together, and is valid, is neither a problem nor a warning."""
    loaded = load_text(listener_with(*write_pair(tmp_path, "a")))

    assert loaded.warnings == []
    assert loaded.config.listeners[0].tls.mode == "starttls"


def test_a_certificate_with_the_key_of_another_is_refused(load_text: Load, tmp_path: Path) -> None:
    """Otherwise every TLS handshake would fail."""
    certificate, _ = write_pair(tmp_path, "a")
    _, key = write_pair(tmp_path, "b")

    with pytest.raises(ConfigError, match=r"listeners\[0\]\.tls\.key: .*b\.key is not the private key of .*a\.pem"):
        load_text(listener_with(certificate, key))


def test_a_short_key_is_for_listeners_of_old_clients(load_text: Load, tmp_path: Path) -> None:
    """`tls.legacy` lowers what is demanded of keys, and the check knows that."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    section = listener_with(certificate, key)

    with pytest.raises(ConfigError, match=r"a\.pem cannot be used for TLS: ee key too small"):
        load_text(section)
    assert load_text(section.replace("starttls,", "starttls, legacy: true,")).warnings == []


def test_a_key_of_another_kind_than_the_certificate_is_refused(load_text: Load, tmp_path: Path) -> None:
    """An RSA key does not fit an elliptic curve certificate."""
    certificate, _ = write_pair(tmp_path, "a")
    _, key = write_pair(tmp_path, "b", key_type=trustme.KeyType.RSA)

    with pytest.raises(ConfigError, match=r"b\.key is not the private key of .*a\.pem"):
        load_text(listener_with(certificate, key))


def test_a_key_that_is_too_short_for_tls_is_refused(load_text: Load, tmp_path: Path) -> None:
    """The error says what OpenSSL has against it."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=9))
    pem = serialization.Encoding.PEM
    (tmp_path / "weak.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (tmp_path / "weak.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

    with pytest.raises(ConfigError, match=r"weak\.pem cannot be used for TLS: ee key too small"):
        load_text(listener_with(tmp_path / "weak.pem", tmp_path / "weak.key"))


def test_an_encrypted_key_is_refused_without_asking_for_a_passphrase(load_text: Load, tmp_path: Path) -> None:
    """A service has no terminal to ask on."""
    certificate, key = write_pair(tmp_path, "a")
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )

    with pytest.raises(ConfigError, match=r"tls\.key: .*a\.key is encrypted"):
        load_text(listener_with(certificate, key))


def test_a_key_file_without_a_key_is_refused(load_text: Load, tmp_path: Path) -> None:
    """The certificate alone is not a pair."""
    certificate, _ = write_pair(tmp_path, "a")

    with pytest.raises(ConfigError, match=r"tls\.key: .*a\.pem holds no private key"):
        load_text(listener_with(certificate, certificate))


def test_an_expired_certificate_is_a_warning(load_text: Load, tmp_path: Path) -> None:
    """Some clients do not mind, and mail in the clear would be worse than mail under an old certificate."""
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    pair = write_pair(tmp_path, "a", not_before=past, not_after=past + datetime.timedelta(days=90))

    (warning,) = load_text(listener_with(*pair)).warnings

    assert warning.endswith("a.pem expired on 2020-03-31: renew it")


def test_a_certificate_of_the_future_is_a_warning(load_text: Load, tmp_path: Path) -> None:
    """The clock may be wrong, and the operator should know."""
    future = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    pair = write_pair(tmp_path, "a", not_before=future, not_after=future + datetime.timedelta(days=90))

    (warning,) = load_text(listener_with(*pair)).warnings

    assert f"is not valid before {future:%Y-%m-%d}" in warning


def test_a_private_authority_is_taken(load_text: Load, tmp_path: Path) -> None:
    """`upstream.tls.ca_file` is a PEM file of authorities."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")

    assert load_text(f"upstream: {{tls: {{ca_file: {tmp_path / 'ca.pem'}}}}}\n").warnings == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("upstream: {connections: 11}", "upstream.connections: SparkPost documents 10"),
        ("upstream: {messages_per_connection: 101}", "upstream.messages_per_connection: SparkPost asks for a new"),
        ("upstream: {idle_timeout: 60s}", "upstream.idle_timeout: SparkPost closes a connection after 60s"),
        ("upstream: {ports: [465]}", "upstream.ports: SparkPost has no implicit TLS on 465"),
        ("limits: {message_size: 21MB}", "limits.message_size: SparkPost takes 20MB at most"),
        (
            "identities: [{match: {login: 't-{subaccount}'}, password: x}]",
            "identities[0].password: one password for every {subaccount} is one trust domain",
        ),
        (
            "identities: [{name: all}, {name: never, match: {network: 10.0.0.0/8}}]",
            "identities[1].match: never matches: identity all above it takes everything",
        ),
        (
            "listeners: [{auth: none}]\nidentities: [{match: {login: a, listener: local}, password: x}]",
            "identities[0].match.listener: never matches: listener local offers no login",
        ),
        (
            "listeners: [{auth: passthrough}]\nidentities: [{subaccount: 5}]",
            "identities[0].subaccount: not used: on a passthrough listener",
        ),
    ],
)
def test_what_is_allowed_and_unwise_is_a_warning(load_text: Load, text: str, warning: str) -> None:
    """The relay starts, and the operator is told at which key and why."""
    (said,) = load_text(text).warnings

    assert f": {warning}" in said


@pytest.mark.parametrize(
    "text",
    [
        "upstream: {connections: 10, messages_per_connection: 100, idle_timeout: 59s}",
        "limits: {message_size: 20MB}",
        "identities: [{name: a}, {name: b, match: {login: b}, password: x}, {name: c, match: {login: c}, password: y}]",
        "identities: [{name: a, match: {login: u, network: 10.0.0.0/8}, password: x},"
        " {name: b, match: {login: u}, password: x}]",
        "listeners: [{address: '0.0.0.0:25', networks: [10.0.0.0/8, 'fd00::/32'], auth: none}]",
        "listeners: [{address: '0.0.0.0:25', networks: [10.0.0.0/8]}]\nidentities: [{name: only}]",
        "listeners: [{address: '0.0.0.0:25', networks: [0.0.0.0/0], auth: required, tls: {allow_plain_auth: true}}]\n"
        "identities: [{match: {login: a}, password: x}]",
        "listeners: [{auth: required}]\nidentities: [{match: {login: a}, password: x}]",
        "listeners: [{address: '127.0.0.1:25', networks: [0.0.0.0/0], auth: none}]",
        "listeners: [{name: a, address: 'localhost:0'}, {name: b, address: 'localhost:0'}]",
    ],
)
def test_what_is_sound_is_taken_without_a_word(load_text: Load, text: str) -> None:
    """No rule cries wolf."""
    assert load_text(text).warnings == []


def test_a_relay_that_is_passthrough_only_needs_no_key(load_text: Load) -> None:
    """Applications bring their own keys, so there need not be one, and rules for their logins have no password."""
    config = load_text(
        "listeners: [{auth: passthrough}]\nidentities: [{match: {login: 'SMTP_*'}, senders: ['*@a.example']}]", {}
    ).config

    assert config.credentials == {}


def test_one_other_listener_is_enough_to_need_a_key(load_text: Load) -> None:
    """Mail without a key of its own needs the default one."""
    with pytest.raises(ConfigError, match="there is no API key"):
        load_text("listeners: [{name: a, auth: passthrough}, {name: b, address: 'localhost:0'}]", {})


def test_no_default_key_is_needed_where_every_identity_names_another(load_text: Load) -> None:
    """`default` is only a name that is used where no other is given."""
    text = "credentials: {billing: {api_key: x}}\nidentities: [{credential: billing}]"

    assert load_text(text, {}).warnings == []


def test_what_is_broken_is_not_held_against_the_rest(load_text: Load) -> None:
    """A credential that cannot be read is one problem, not also a missing credential of an identity."""
    with pytest.raises(ConfigError) as refusal:
        load_text("credentials: {billing: {api_key: 5}}\nidentities: [{credential: billing}]\nlog: {level: loud}")

    assert [problem.path for problem in refusal.value.problems] == [
        ("credentials", "billing", "api_key"),
        ("log", "level"),
    ]


@pytest.mark.parametrize(
    ("address", "warned"), [("127.0.0.1:9025", False), ("localhost:9025", False), ("0.0.0.0:9025", True)]
)
def test_an_admin_token_for_other_hosts_is_a_warning(load_text: Load, address: str, warned: bool) -> None:
    """The admin server speaks no TLS, and whoever hears the token may read mail and throw it away."""
    loaded = load_text(f'admin: {{address: "{address}", token: sesame}}')

    assert any("admin.token" in warning and "in clear" in warning for warning in loaded.warnings) == warned


def test_bounce_messages_without_a_sender_are_none(load_text: Load) -> None:
    """Naming who gets them is not enough: SparkPost takes mail from verified domains only."""
    loaded = load_text("delivery: {bounces: {to: postmaster@example.com}}\n")

    (warning,) = loaded.warnings
    assert "delivery.bounces.to: nobody is told, as delivery.bounces.from is not set" in warning


def test_bounce_messages_with_a_sender_go_to_the_reverse_path(load_text: Load) -> None:
    """Unless another address is named; neither is worth a warning."""
    usual = load_text("delivery: {bounces: {from: bounces@example.com}}\n")
    fixed = load_text("delivery: {bounces: {from: bounces@example.com, to: postmaster@example.com}}\n")

    assert usual.warnings == fixed.warnings == []
    assert (usual.config.delivery.bounces.from_, usual.config.delivery.bounces.to) == ("bounces@example.com", "sender")
    assert fixed.config.delivery.bounces.to == "postmaster@example.com"


def test_without_a_word_nobody_is_told_and_nothing_is_warned_of(load_text: Load) -> None:
    """Dead letters are kept all the same."""
    loaded = load_text("")

    assert loaded.config.delivery.bounces.from_ is None
    assert loaded.warnings == []


@pytest.mark.parametrize("url", ["none", "sqlite:/srv/mail/spool.db", "sqlite:spool.db", "sqlite:/srv/a b/c.db"])
def test_a_spool_is_a_file_or_none(load_text: Load, url: str) -> None:
    """A relative path starts from the working directory, as all do."""
    assert load_text(f'spool: {{url: "{url}"}}\n').config.spool.url == url


def test_delivery_queue_is_fine_beside_a_passthrough_listener(load_text: Load) -> None:
    """An identity that other listeners use as well stores what comes by those."""
    loaded = load_text(
        "listeners:\n"
        "  - {name: keys, auth: passthrough}\n"
        "  - {name: local, address: 'localhost:2526'}\n"
        "identities: [{name: bulk, delivery: queue}]\n"
    )

    assert loaded.config.identities[0].delivery == "queue"


def test_https_to_another_account_than_smtp_is_warned_of(load_text: Load) -> None:
    """Only where HTTPS is on, and only where no API is named."""
    own = "credentials: {default: {api_key: x, upstream: {host: smtp.eu.sparkpostmail.com}}}"
    on = "upstream: {host: smtp.example.com, http: {enabled: true}}"
    named = "upstream: {host: smtp.example.com, http: {enabled: true, url: 'https://api.example.com/api/v1'}}"

    assert load_text(own.replace("host", "username"), {}).warnings == []
    assert load_text(own, {}).warnings == []
    general, credential = load_text(f"{own}\n{on}", {}).warnings
    assert "this is the API of smtp.sparkpostmail.com" in str(general)
    assert "credentials.default.upstream.http.url" in str(credential)
    assert len(load_text(f"{own}\n{named}", {}).warnings) == 1


@pytest.mark.parametrize("url", ["http://localhost:8080/api/v1", "http://127.0.0.1/api/v1/", "http://[::1]:1/api/v1"])
def test_plain_http_may_lead_to_this_host(load_text: Load, url: str) -> None:
    """For trials with the stand-in or a proxy: nothing crosses a network."""
    assert load_text(f"upstream: {{http: {{url: '{url}'}}}}").config.upstream.http.url == url.rstrip("/")


def test_proxies_of_a_unix_socket_are_warned_of(load_text: Load) -> None:
    """Nobody is asked for a header there."""
    (warning,) = load_text("listeners: [{address: 'unix:/run/smtp.sock', proxy_protocol: [127.0.0.1]}]").warnings

    assert "listeners[0].proxy_protocol: not used: on a Unix socket" in warning


def test_a_proxy_on_this_host_brings_clients_from_others(load_text: Load) -> None:
    """So their networks must be named, and their passwords must not come in clear unless that is said."""
    listener = "address: 'localhost:25', proxy_protocol: [127.0.0.1], networks: [10.0.0.0/8]"

    assert load_text(f"listeners: [{{{listener}, tls: {{allow_plain_auth: true}}}}]").warnings == []


def test_networks_of_a_unix_socket_are_warned_of(load_text: Load) -> None:
    """They would not keep anybody out."""
    (warning,) = load_text("listeners: [{address: 'unix:/run/smtp.sock', networks: [10.0.0.0/8]}]").warnings

    assert "listeners[0].networks: not used: on a Unix socket there are none" in warning


def test_a_unix_socket_asks_for_passwords_without_tls(load_text: Load) -> None:
    """Nothing leaves the host; its group is one of this host's, by name or by number."""
    loaded = load_text(
        "listeners: [{address: 'unix:/run/smtp.sock', auth: required, mode: '0666', group: root},"
        " {name: b, address: 'unix:/run/b.sock', group: '4711'}]\n"
        "identities: [{match: {login: app}, password: secret}]"
    )

    assert loaded.warnings == []
    assert loaded.config.listeners[0].mode == 0o666


@pytest.mark.parametrize(("written", "uids"), [("33", (33,)), ("[33, 1000]", (33, 1000)), ("0", (0,))])
def test_a_rule_may_name_one_user_or_several(load_text: Load, written: str, uids: tuple[int, ...]) -> None:
    """It needs a listener where users are known: a Unix socket, or one of systemd's that may be one."""
    text = "listeners: [{{address: '{}'}}]\nidentities: [{{match: {{uid: {}}}}}]"

    for door in ("unix:/run/smtp.sock", "fd:smtp"):
        loaded = load_text(text.format(door, written))
        assert loaded.warnings == []
        assert loaded.config.identities[0].match.uid == uids
        assert f"uid: {written}" in dump(loaded)


@pytest.mark.parametrize(
    ("match", "said"),
    [("{uid: 33}", "it needs a listener on a Unix socket"), ("{uid: 33, network: 10.0.0.0/8}", "from no network")],
)
def test_a_rule_for_a_user_that_can_never_match_is_warned_of(load_text: Load, match: str, said: str) -> None:
    """Over TCP nobody has a user id."""
    (warning,) = load_text(f"identities: [{{match: {match}}}]").warnings

    assert "identities[0].match.uid: never matches" in warning
    assert said in warning
