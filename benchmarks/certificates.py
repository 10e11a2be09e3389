"""A certificate authority for one run, and the sink's certificate from it: the relays verify both name and chain."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the three PEM files are."""

    ca: Path
    certificate: Path
    key: Path


def issue(directory: Path, address: str = "127.0.0.1") -> Certificates:
    """Writes a new CA and a certificate for `localhost` (ECDSA P-256, as a smarthost of today would have).

    It is good for the sink's address too: not every client can be told which name to expect.
    """
    files = Certificates(directory / "ca.pem", directory / "sink.pem", directory / "sink-key.pem")
    authority = trustme.CA(organization_name="sparkpost-relay benchmark")
    issued = authority.issue_cert("localhost", address, key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(files.ca)
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    files.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(files.key)
    return files
