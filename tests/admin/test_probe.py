"""Whom `health` asks, where it may not look everywhere."""

import asyncio
from pathlib import Path

import pytest

from relay.admin import probe
from tests.support.admin import keeping, tcp_of
from tests.support.running import configuration, relay_to, sandbox_with


def _forbidden(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


async def test_who_may_not_look_at_the_spool_asks_over_tcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user of the host gets an answer: readiness is public."""
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(tmp_path)) as relay:
        # A name too long for any file: to look at it fails, for root too, as a closed directory does for others.
        config = configuration(sandbox, **keeping(tmp_path, address=tcp_of(relay), socket=f"/{'x' * 300}"))
        monkeypatch.setattr(probe, "holder", _forbidden)
        answer = await asyncio.to_thread(probe.ask, config, {})

    assert answer == (True, "ready")


async def test_with_nowhere_to_ask_it_says_so(tmp_path: Path) -> None:
    """No address, no socket, no spool: the keys that would help are named."""
    async with sandbox_with(tmp_path / "tls") as sandbox:
        config = configuration(sandbox)
    ready, text = probe.ask(config, {})

    assert not ready
    assert "set admin.address, or admin.socket" in text
