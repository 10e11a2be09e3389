"""How fast health follows: red soon after the first mail that meets a fault, green soon after the fault is mended."""

import asyncio

import pytest

from relay.sandbox import Port
from tests.support.admin import ask, keeping, tcp_of
from tests.support.client import send
from tests.support.running import KEY, port_of, relay_to, sandbox_with

SOON = 5.0  # seconds


async def turns(relay, status: int) -> None:
    """Until /healthz answers with this status; TimeoutError if that is not SOON."""
    async with asyncio.timeout(SOON):
        while (await ask(tcp_of(relay), "/healthz")).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # as a monitor asks: nobody announces it


@pytest.mark.parametrize("mode", ["drop", "silent", "no-starttls"])
async def test_blocked_ports(tmp_path, mode):
    """Ports that drop, or say nothing at all; the spool keeps the relay ready all the while."""
    upstream = {"upstream": {"fallback_after": "2s", "timeouts": {"banner": "6s"}}}
    async with (
        sandbox_with(tmp_path / "tls", ports=[Port(mode=mode), Port(mode=mode)]) as sandbox,
        relay_to(sandbox, **keeping(tmp_path), **upstream) as relay,
    ):
        sending = asyncio.create_task(send(port_of(relay)))
        await turns(relay, 503)
        ready = await ask(tcp_of(relay), "/readyz")
        code, _ = await sending
        for index in range(2):
            sandbox.set_mode("normal", index)
        await turns(relay, 200)
        await sandbox.wait_for(1, timeout=15)

    assert code == 250
    assert ready.status == 200
    assert len(sandbox.accepted) == 1


async def test_a_refused_key_that_is_replaced(tmp_path):
    """Red with the first mail; green as soon as the file has another key, with one refused login in all."""
    key_file = tmp_path / "key"
    key_file.write_text("f" * 40)
    references = {("credentials", "default", "api_key"): {"file": str(key_file)}}
    credentials = {"credentials": {"default": {"api_key": "f" * 40}}}
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, references=references, **keeping(tmp_path), **credentials) as relay,
    ):
        await send(port_of(relay))
        await turns(relay, 503)
        key_file.write_text(KEY)
        await turns(relay, 200)
        await sandbox.wait_for(1)

    assert [one.accepted for one in sandbox.auth_attempts].count(False) == 1
