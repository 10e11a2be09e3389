"""What all tests share: the event loop, which is the one that the relay runs on, and a log that is as it comes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis
import pytest
import structlog
import uvloop

hypothesis.settings.register_profile("no-stopwatch", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("no-stopwatch")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def log_as_it_comes() -> Iterator[None]:
    """How one test sets up the log is nothing to the next."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
