"""Certificates and authorities on disk: do they load, do they fit, are they still valid."""

import datetime
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The last is what OpenSSL says of a key of another type than the certificate's.
_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")

LEGACY_CIPHERS: Final = "DEFAULT:@SECLEVEL=0"


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a file.

    `key` is which of the two files it is, `fatal` whether it stops the relay, `unread` whether it could not be read at
    all: that may pass though nothing changes in the file.
    """

    text: str
    key: str = "certificate"
    fatal: bool = True
    unread: bool = False


class _EncryptedKey(Exception):
    """The private key wants a passphrase."""


def examine_pair(certificate: str, key: str, now: datetime.datetime, *, legacy: bool = False) -> Flaw | None:
    """The first flaw of a certificate with its private key, or None; `legacy` lets keys be as short as old ones are."""
    from cryptography import x509  # 8 MB, which a relay without certificates need not have

    unreadable = _unreadable(certificate, "certificate") or _unreadable(key, "key")
    if unreadable is not None:
        return unreadable
    try:
        chain = x509.load_pem_x509_certificates(Path(certificate).read_bytes())
    except OSError as error:
        return _unread(certificate, error, "certificate")
    except (ValueError, x509.InvalidVersion):
        return Flaw(f"{certificate} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if legacy:
            context.set_ciphers(LEGACY_CIPHERS)
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _EncryptedKey:
        return Flaw(f"{key} is encrypted: the relay cannot ask for a passphrase; openssl pkey removes it", "key")
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            return Flaw(f"{key} is not the private key of {certificate}: name the pair that belongs together", "key")
        if error.reason:
            return Flaw(f"{certificate} cannot be used for TLS: {error.reason.replace('_', ' ').lower()}")
        return Flaw(f"{key} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)", "key")
    except OSError as error:  # the certificate has been read just now
        return _unread(key, error, "key")
    if now > chain[0].not_valid_after_utc:
        return Flaw(f"{certificate} expired on {chain[0].not_valid_after_utc:%Y-%m-%d}: renew it", fatal=False)
    if now < chain[0].not_valid_before_utc:
        return Flaw(f"{certificate} is not valid before {chain[0].not_valid_before_utc:%Y-%m-%d}", fatal=False)
    return None


def examine_authorities(path: str) -> Flaw | None:
    """The flaw of a file of certificate authorities, or None."""
    unreadable = _unreadable(path, "ca_file")
    if unreadable is not None:
        return unreadable
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return Flaw(f"{path} holds no certificates in PEM form (-----BEGIN CERTIFICATE-----)", "ca_file")
    except OSError as error:
        return _unread(path, error, "ca_file")
    return None


def _unreadable(path: str, key: str) -> Flaw | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # it is read more than once, and a pipe would be waited for
            return Flaw(f"{path} is not a file: name the PEM file itself", key)
        with open(path, "rb"):
            return None
    except OSError as error:
        return _unread(path, error, key)


def _unread(path: str, error: OSError, key: str) -> Flaw:
    return Flaw(f"{path} cannot be read: {error.strerror}", key, unread=True)


def _no_passphrase() -> str:
    raise _EncryptedKey
