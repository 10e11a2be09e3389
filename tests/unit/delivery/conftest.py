"""What the rooms of delivery log, as events."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    """Every event of the test, in order."""
    with capture_logs() as events:
        yield events
