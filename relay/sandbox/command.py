"""`sparkpost-relay sandbox`: the stand-in alone, until it is told to stop."""

import asyncio
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from relay.sandbox.api import PREFIX
from relay.sandbox.certificates import CertificateError
from relay.sandbox.ports import HttpPort, Port
from relay.sandbox.server import Sandbox

_DOMAIN = re.compile(r"[^\s@,<>*.]+(?:\.[^\s@,<>*.]+)*")


async def run_sandbox(
    smtp: Sequence[str],
    http: str | None,
    *,
    api_keys: Sequence[str],
    sending_domains: Sequence[str] | None,
    tls_dir: Path | None,
    store: Path | None,
) -> int:
    """Serve on the given `HOST:PORT[=MODE]`s until SIGTERM or SIGINT; 0, or 64 and 69 for ports that cannot be."""
    try:
        ports = [Port.parse(text) for text in smtp]
        http_port = HttpPort.parse(http) if http is not None else None
    except ValueError as error:
        print(error)
        return 64
    if "" in api_keys:
        print("--api-key: an empty key is none; without the option one is made up")
        return 64
    if wrong := [domain for domain in sending_domains or () if _DOMAIN.fullmatch(domain) is None]:
        print(f"--sending-domain {wrong[0]!r}: one domain is expected, for example shop.example.com; may repeat")
        return 64
    with tempfile.TemporaryDirectory(prefix="sparkpost-sandbox-") as folder:
        sandbox = Sandbox(
            ports=ports,
            http=http_port,
            api_keys=dict.fromkeys(api_keys),
            sending_domains=sending_domains,
            tls_dir=tls_dir or Path(folder),
            store=store,
            transcripts=False,
            keep=0,
        )
        try:
            await sandbox.start()
        except CertificateError as error:
            print(error)
            return 69
        except OSError as error:
            print(f"cannot start: {error}. Is another sandbox running, the port below 1024, or a folder not writable?")
            return 69
        try:
            _introduce(sandbox, made_up=not api_keys)
            await _told_to_stop()
        finally:
            await sandbox.stop()
    print(f"{sandbox.accepted_total} messages accepted")
    return 0


def _introduce(sandbox: Sandbox, *, made_up: bool) -> None:
    for (host, port), spec in zip(sandbox.addresses, sandbox.ports, strict=True):
        print(f"listening   {_shown(host, port)}" + (f" ({spec.mode})" if spec.mode != "normal" else ""))
    if sandbox.http is not None and sandbox.http_address is not None:
        host, port = sandbox.http_address
        mode = f" ({sandbox.http.mode})" if sandbox.http.mode != "normal" else ""
        print(f"HTTPS       https://{_shown(host, port)}{PREFIX}{mode}")
    print(f"CA          {sandbox.ca_file}")
    if made_up:
        print(f"API key     {next(iter(sandbox.api_keys))}   (made up for this run; name one with --api-key)")
    if sandbox.sending_domains is not None:
        print(f"domains     {', '.join(sandbox.sending_domains)}")
    if sandbox.store is not None:
        print(f"store       {sandbox.store}")
    print("stop with Ctrl-C", flush=True)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
