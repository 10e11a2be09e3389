"""A certificate that is renewed on the disk: when it is taken, and when the one in use stays."""

import datetime
import os
import resource
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from relay.config import ListenerTls
from relay.config.certificates import examine_pair
from relay.ingress.certificate import ServerTls


class Files:
    """A pair on the disk, as tools that renew leave it: `place` writes one, `serving` says whose is shown."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.authorities: dict[str, trustme.CA] = {}
        self.place("old")
        section = {"mode": "implicit", "certificate": str(self.certificate), "key": str(self.key)}
        self.tls = ServerTls("local", ListenerTls.model_validate(section))

    def place(self, name: str, *, certificate: bool = True, key: bool = True) -> None:
        authority = self.authorities.setdefault(name, trustme.CA())
        issued = authority.issue_cert("localhost")
        for wanted, path, pem in (
            (certificate, self.certificate, issued.cert_chain_pems[0]),
            (key, self.key, issued.private_key_pem),
        ):
            if wanted:
                pem.write_to_path(path.with_suffix(".new"))
                path.with_suffix(".new").rename(path)

    def look(self, times: int = 2) -> list[str | None]:
        """What is told meanwhile: the problem, or None where a certificate was simply taken."""
        with capture_logs() as log:
            for _ in range(times):
                self.tls.look()
        assert {event["event"] for event in log} <= {"config.reloaded"}
        return [event["problem"] for event in log]

    @property
    def serving(self) -> str:
        (name,) = [name for name, authority in self.authorities.items() if shows(self.tls.context, authority)]
        return name


def shows(server_side: ssl.SSLContext, authority: trustme.CA) -> bool:
    """Does a client that trusts this authority alone get through the handshake?"""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname="localhost")
    server = server_side.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLCertVerificationError:
                return False
            except ssl.SSLWantReadError:
                continue
    return client.version() is not None


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_renewed_pair_is_taken_once(files: Files) -> None:
    """By the second look, and the third has nothing to tell."""
    first = files.tls.context
    files.place("new")

    assert (files.look(1), files.serving) == ([], "old")
    assert (files.look(1), files.serving) == ([None], "new")
    assert files.look(3) == []
    assert shows(first, files.authorities["old"])


def test_what_is_still_being_replaced_is_left_alone(files: Files) -> None:
    """The certificate first, the key a moment later: nobody is alarmed."""
    files.place("half", key=False)

    assert files.look(1) == []
    files.place("new")
    assert (files.look(), files.serving) == ([None], "new")


def test_links_that_lead_elsewhere_are_a_renewal(tmp_path: Path, files: Files) -> None:
    """As certbot's do."""
    for path in (files.certificate, files.key):
        archived = path.with_name("archived-" + path.name)
        path.rename(archived)
        path.symlink_to(archived)
    assert files.look() == [None]
    other = tmp_path / "other"
    other.mkdir()
    renewed = Files(other)
    files.authorities["new"] = renewed.authorities["old"]
    for path, target in ((files.certificate, renewed.certificate), (files.key, renewed.key)):
        path.unlink()
        path.symlink_to(target)

    assert (files.look(), files.serving) == ([None], "new")


def gone(files: Files) -> None:
    files.key.unlink()


def mixed(files: Files) -> None:
    files.place("half", key=False)


def empty(files: Files) -> None:
    files.certificate.write_bytes(b"")


def encrypted(files: Files) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    locked = files.key.with_name("locked.pem")
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(files.key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    locked.rename(files.key)


def failing(files: Files) -> None:
    """A disk, or a server of files, that opens it and then reports an error."""
    files.certificate.unlink()
    files.certificate.symlink_to("/proc/self/mem")


def failing_key(files: Files) -> None:
    files.key.unlink()
    files.key.symlink_to("/proc/self/mem")


def of_no_version(files: Files) -> None:
    """What no authority issues, and OpenSSL would take."""
    octets = bytearray(ssl.PEM_cert_to_DER_cert(files.certificate.read_text()))
    octets[octets.index(b"\xa0\x03\x02\x01\x02") + 4] = 7
    files.certificate.write_text(ssl.DER_cert_to_PEM_cert(bytes(octets)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (gone, "key.pem cannot be read: No such file or directory"),
        (mixed, "is not the private key of"),
        (empty, "holds no certificate"),
        (encrypted, "is encrypted: the relay cannot ask for a passphrase"),
        (failing, "cert.pem cannot be read: Input/output error"),
        (failing_key, "key.pem cannot be read: Input/output error"),
        (of_no_version, "holds no certificate"),
    ],
)
def test_a_pair_that_will_not_do_changes_nothing(files: Files, spoil: Callable[[Files], None], words: str) -> None:
    """It is told once, and the next good one is taken."""
    spoil(files)
    (problem,) = files.look(4)

    assert problem is not None
    assert problem.startswith("the certificate stays as it was: ")
    assert words in problem
    assert files.serving == "old"
    files.place("new")
    assert (files.look(), files.serving) == ([None], "new")


def test_what_could_not_be_read_is_tried_again(files: Files) -> None:
    """No descriptor was left when the pair was renewed; no change comes after that one for two months."""
    files.place("new")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        (problem,) = files.look(4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert problem is not None
    assert problem.endswith("cannot be read: Too many open files")
    assert files.serving == "old"
    assert (files.look(2), files.serving) == ([None], "new")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_short_key_is_taken_where_a_listener_is_for_old_clients(files: Files, legacy: bool) -> None:
    """RSA of 1024 bits, which they may not know beyond: the check, the start and a renewal agree on it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    paths = {"certificate": str(files.certificate), "key": str(files.key)}
    subprocess.run([*command, "-keyout", paths["key"], "-out", paths["certificate"]], check=True, capture_output=True)
    flaw = examine_pair(*paths.values(), datetime.datetime.now(datetime.UTC), legacy=legacy)
    section = ListenerTls.model_validate({"mode": "implicit", "legacy": legacy} | paths)

    if legacy:
        assert flaw is None
        files.tls = ServerTls("local", section)
        files.certificate.touch()
        assert files.look() == [None]
    else:
        assert flaw is not None
        assert flaw.text.endswith("cannot be used for TLS: ee key too small")


def test_a_pipe_is_not_read_again(files: Files) -> None:
    """Nobody may be writing to it, and the relay would stand still."""
    files.key.unlink()
    os.mkfifo(files.key)

    assert (files.look(), files.serving) == ([], "old")
