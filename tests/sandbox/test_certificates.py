"""The sandbox's own CA and certificates."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from relay.sandbox import certificates
from relay.sandbox.certificates import CertificateError, Certificates, Kind


def leaf(folder, kind: Kind = Kind.GOOD) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / kind.value).read_bytes())


def test_a_folder_is_used_again(tmp_path):
    """The second start shows the same certificate under the same CA."""
    for _ in range(2):
        Certificates(tmp_path).context(Kind.GOOD)
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Certificates(tmp_path).context(Kind.GOOD)

    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"ca.pem", "ca.key", "server.pem"}


def test_private_keys_are_private(tmp_path):
    """What holds a private key is for the owner alone; the CA's certificate is for everybody, and holds no key."""
    made = Certificates(tmp_path)
    for kind in Kind:
        made.context(kind)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.pop("ca.pem") & 0o444
    assert set(modes.values()) == {0o600}
    assert b"PRIVATE" not in made.ca_file.read_bytes()


def test_new_hosts_need_a_new_certificate(tmp_path):
    """More hosts than before: a new certificate under the same CA; fewer: the old one will do."""
    Certificates(tmp_path).context(Kind.GOOD)
    ca, first = (tmp_path / "ca.pem").read_bytes(), leaf(tmp_path)
    Certificates(tmp_path, ["smtp.test", "10.0.0.1"]).context(Kind.GOOD)
    second = leaf(tmp_path)
    Certificates(tmp_path).context(Kind.GOOD)

    assert (tmp_path / "ca.pem").read_bytes() == ca
    assert first != second == leaf(tmp_path)
    names = second.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "smtp.test"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.1"]


@pytest.mark.parametrize("life", ["_CA_LIFE", "_LEAF_LIFE"])
def test_what_runs_out_is_made_anew(tmp_path, monkeypatch, life):
    """A CA or a certificate on its last day is replaced; a new CA takes its certificates with it."""
    with monkeypatch.context() as patch:
        patch.setattr(certificates, life, timedelta(hours=1))
        Certificates(tmp_path).context(Kind.GOOD)
    old_ca, old_leaf = (tmp_path / "ca.pem").read_bytes(), leaf(tmp_path)
    Certificates(tmp_path).context(Kind.GOOD)

    assert leaf(tmp_path) != old_leaf
    assert leaf(tmp_path).not_valid_after_utc > datetime.now(UTC) + timedelta(days=300)
    assert ((tmp_path / "ca.pem").read_bytes() != old_ca) == (life == "_CA_LIFE")


def test_a_damaged_certificate_is_made_anew(tmp_path):
    """Half a certificate helps nobody."""
    Certificates(tmp_path).context(Kind.GOOD)
    (tmp_path / "server.pem").write_text("nonsense")
    Certificates(tmp_path).context(Kind.GOOD)

    assert leaf(tmp_path)


@pytest.mark.parametrize("damage", ["no key", "nonsense", "another key"])
def test_a_ca_that_is_not_ours(tmp_path, damage):
    """A ca.pem without its key is somebody's property: it is not replaced, and the error says what to do."""
    Certificates(tmp_path)
    before = (tmp_path / "ca.pem").read_bytes()
    if damage == "no key":
        (tmp_path / "ca.key").unlink()
    elif damage == "nonsense":
        (tmp_path / "ca.key").write_text("nonsense")
    else:
        Certificates(tmp_path / "other")
        (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())

    with pytest.raises(CertificateError, match="choose another folder, or remove both"):
        Certificates(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_a_key_that_is_not_ours(tmp_path):
    """A ca.key alone may belong to a ca.crt."""
    (tmp_path / "ca.key").write_text("precious")

    with pytest.raises(CertificateError, match="choose another folder, or remove it"):
        Certificates(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"ca.key": "precious"}


def test_a_ca_of_another_that_has_run_out(tmp_path, monkeypatch):
    """It is not replaced either; one that has not run out is used."""
    monkeypatch.setattr(certificates, "_CA_NAME", "Example CA")
    monkeypatch.setattr(certificates, "_CA_LIFE", timedelta(days=30))
    Certificates(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.undo()

    assert Certificates(tmp_path).context(Kind.GOOD)
    monkeypatch.setattr(certificates, "_CLOCK_SKEW", timedelta(days=30))
    with pytest.raises(CertificateError, match="is out of date"):
        Certificates(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("kind", Kind)
def test_a_certificate_that_is_not_ours(tmp_path, monkeypatch, kind):
    """Whoever names a folder with a server.pem of their own keeps it, and its key; so also a key alone."""
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_CA_NAME", "Example CA")
        Certificates(tmp_path / "theirs").context(Kind.GOOD)
    theirs = (tmp_path / "theirs" / "server.pem").read_bytes()
    for octets in (theirs, theirs.partition(b"-----BEGIN CERTIFICATE")[0]):
        (tmp_path / kind.value).write_bytes(octets)

        with pytest.raises(CertificateError, match="is not the sandbox's own"):
            Certificates(tmp_path).context(kind)
        assert (tmp_path / kind.value).read_bytes() == octets


def test_a_certificate_with_another_key_is_made_anew(tmp_path):
    """It is of no use: the port could not be opened."""
    for folder in (tmp_path, tmp_path / "other"):
        Certificates(folder).context(Kind.GOOD)
    key, *_ = (tmp_path / "other" / "server.pem").read_text().partition("-----BEGIN CERTIFICATE")
    _, *certificate = (tmp_path / "server.pem").read_text().partition("-----BEGIN CERTIFICATE")
    (tmp_path / "server.pem").write_text(key + "".join(certificate))

    assert Certificates(tmp_path).context(Kind.GOOD)


async def test_names_are_verified(sandbox, connect, tmp_path):
    """A client that verifies is content with localhost, the addresses, and every name asked for."""
    async with sandbox(tls_dir=tmp_path, hosts=["smtp.test"]) as box:
        for name in ("localhost", "127.0.0.1", "::1", "smtp.test"):
            async with connect(box) as client:
                await client.reply()
                await client.say("EHLO x")
                await client.say("STARTTLS")
                await client.shake_hands(name)

    assert box.handshakes == 4


async def test_a_temporary_folder(sandbox):
    """Without a folder, certificates live as long as the sandbox."""
    async with sandbox(tls_dir=None) as box:
        assert box.ca_file.exists()
    assert not box.ca_file.exists()
