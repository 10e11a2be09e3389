"""What all tests share: the event loop, which is the one that the relay runs on."""

from collections.abc import Callable, Mapping
from typing import Any

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}
