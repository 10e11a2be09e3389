"""A certificate authority of the sandbox's own, and the certificates its ports show: good ones, and three bad ones.

`ca.pem` is what a client must trust. It and the good certificate are kept in the folder and used again while they are
valid, so that a client configured once stays configured; the bad ones are made when a port asks for them.
"""

import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.sandbox.files import FOR_ALL, PRIVATE, write_whole

_CA_LIFE: Final = timedelta(days=3650)
_LEAF_LIFE: Final = timedelta(days=397)
_CLOCK_SKEW: Final = timedelta(days=1)  # a certificate is valid since yesterday, and is not used on its last day
_OWN_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_OTHER_HOST: Final = "smtp.other-name.invalid"
_CA_NAME: Final = "sparkpost-relay sandbox CA"


class CertificateError(Exception):
    """The folder holds something that cannot be used; the message names it and the remedy."""


class Kind(Enum):
    """Which certificate a port shows."""

    GOOD = "server.pem"
    WRONG_NAME = "wrong-name.pem"
    EXPIRED = "expired.pem"
    UNTRUSTED = "untrusted.pem"


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(_CA_NAME)
        begin, end = _validity(_CA_LIFE)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            _builder(name, name, key.public_key(), key.public_key(), begin, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, hosts: Iterable[str], *, expired: bool = False) -> bytes:
        """Private key and certificate for `hosts`, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = tuple(hosts)
        begin, end = _validity(_LEAF_LIFE)
        if expired:
            begin, end = begin - _LEAF_LIFE, begin
        builder = (
            _builder(_name(hosts[0]), self.certificate.subject, key.public_key(), self.key.public_key(), begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        )
        return _key_pem(key) + builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Certificates:
    """The certificates of one folder; `hosts` are names and addresses besides those of this host itself."""

    def __init__(self, folder: Path, hosts: Iterable[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._hosts = (*_OWN_HOSTS, *hosts)
        self.ca_file = folder / "ca.pem"
        self._authority = self._kept_authority() or self._new_authority()

    def context(self, kind: Kind) -> ssl.SSLContext:
        """A server's TLS context that shows the certificate of `kind`, TLS 1.2 or newer."""
        path = self._folder / kind.value
        if not (kind is Kind.GOOD and self._usable(path)):
            if path.exists() and not _may_replace(path):
                raise CertificateError(f"{path} is not the sandbox's own: choose another folder, or remove it")
            write_whole(path, self._pem(kind), mode=PRIVATE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(path)
        return context

    def _pem(self, kind: Kind) -> bytes:
        match kind:
            case Kind.GOOD:
                return self._authority.issue(self._hosts)
            case Kind.WRONG_NAME:
                return self._authority.issue([_OTHER_HOST])
            case Kind.EXPIRED:
                return self._authority.issue(self._hosts, expired=True)
            case Kind.UNTRUSTED:
                return _Authority.new().issue(self._hosts)

    def _kept_authority(self) -> _Authority | None:
        """The folder's own CA if it can still sign. A ca.pem or ca.key that is not ours is never replaced."""
        key_file = self._folder / "ca.key"
        if not self.ca_file.exists():
            if key_file.exists():
                raise CertificateError(
                    f"{self._folder} holds a ca.key without its ca.pem: choose another folder, or remove it"
                )
            return None
        try:
            certificate = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise CertificateError(
                f"{self._folder} holds a ca.pem, but ca.pem and ca.key are no pair the sandbox can use ({error}): "
                "choose another folder, or remove both"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateError(
                f"{key_file} is not the key of {self.ca_file}: choose another folder, or remove both"
            )
        if _is_current(certificate):
            return _Authority(certificate, key)
        if certificate.subject != _name(_CA_NAME):
            raise CertificateError(
                f"{self.ca_file} is out of date, and not the sandbox's own: "
                "choose another folder, or remove it and its ca.key"
            )
        return None

    def _new_authority(self) -> _Authority:
        authority = _Authority.new()
        write_whole(self._folder / "ca.key", _key_pem(authority.key), mode=PRIVATE)
        write_whole(self.ca_file, authority.certificate.public_bytes(serialization.Encoding.PEM), mode=FOR_ALL)
        return authority

    def _usable(self, path: Path) -> bool:
        """Whether the certificate there is of this CA, current, and for all hosts asked for."""
        if not path.exists():
            return False
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            certificate.verify_directly_issued_by(self._authority.certificate)
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                path
            )  # an SSLError, where the key is of another one
            names = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except (ValueError, ssl.SSLError, InvalidSignature, x509.ExtensionNotFound):  # damaged, or of an earlier CA
            return False
        return _is_current(certificate) and names.issuperset(_general_name(host) for host in self._hosts)


def _may_replace(path: Path) -> bool:
    """Whether a sandbox has issued what is there, or it is nonsense; a key may be somebody's only one."""
    octets = path.read_bytes()
    try:
        certificate = x509.load_pem_x509_certificate(octets)
    except ValueError:
        return b"PRIVATE KEY" not in octets
    return certificate.issuer == _name(_CA_NAME)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    """What every certificate has; strict verifiers (Python 3.13 and later) insist on both key identifiers."""
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _validity(life: timedelta) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - _CLOCK_SKEW, now + life


def _is_current(certificate: x509.Certificate) -> bool:
    now = datetime.now(UTC)
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _CLOCK_SKEW


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
