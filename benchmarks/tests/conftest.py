"""A built rig and a running sink."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import certificates, rig
from benchmarks.certificates import Certificates
from benchmarks.instruments import Sink


@pytest.fixture(scope="session")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA and a certificate for localhost; the rig is up to date."""
    try:
        rig.build()
    except rig.RigError as error:
        pytest.skip(str(error))
    return certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def sink(issued: Certificates) -> Iterator[Sink]:
    """A sink of this test's own."""
    with Sink(issued) as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that does not exist yet, as `measure` wants it."""
    return tmp_path / "run"
