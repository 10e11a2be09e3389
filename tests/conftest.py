"""What all tests share: the event loop, which is the one that the relay runs on, and a log that is as it comes."""

import socket
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


@pytest.fixture(autouse=True, scope="session")
def no_name_server() -> Iterator[None]:
    """smtplib asks for the name of this host, which is a question for name servers where it is not in /etc/hosts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getfqdn", lambda name="": name or "client.test")
        yield


@pytest.fixture(autouse=True)
def log_as_it_comes() -> Iterator[None]:
    """How one test sets up the log is nothing to the next."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
