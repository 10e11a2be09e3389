"""One client's whole job: a sandbox, a relay with a listener for each door, the recorder, and the client in between."""

import asyncio
import contextlib
import smtplib
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme

from relay.app import Relay
from relay.sandbox import Accepted, Sandbox
from tests.e2e.clients import job as jobs
from tests.e2e.clients.job import DOORS, REFERENCE, WAYS, Message, Target
from tests.e2e.clients.recorder import Recorded, Recorder
from tests.support.running import port_of, relay_to, sandbox_with

PASSWORD: Final = "correct-horse"
_PATIENCE: Final = 50  # seconds


@dataclass(frozen=True, slots=True)
class Job:
    """What a client is given. `path` is the job as a file, in `folder`; `delivered` waits until all has arrived."""

    folder: Path
    path: Path
    targets: list[Target]
    messages: list[Message]
    delivered: Callable[[], Awaitable[None]]


Run = Callable[[Job], Awaitable[str]]  # sends all of it; what the client printed


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it. `given`: by message, its octets; `output`: what the client printed; `said`: the same by message
    and target; `arrived` and `references`: by sender, what SparkPost's side and the recorder have."""

    given: dict[str, bytes]
    output: str
    said: dict[tuple[str, str], str]
    arrived: dict[str, list[Accepted]]
    references: dict[str, list[Recorded]]


async def play(run: Run, subaccount: int, ways: Collection[str], messages: list[Message]) -> Played:
    """The client sends these messages in these ways; with a login, as `client-N`, where N is the subaccount."""
    with _folder() as folder:
        listeners = _listeners(folder)
        sections: dict[str, Any] = {
            "listeners": listeners,
            "identities": [
                {"name": "clients", "match": {"login": "client-{subaccount}"}, "password": PASSWORD},
                {"name": "default", "match": {}},
            ],
            "delivery": {"cut_through_deadline": "40s"},
        }
        async with sandbox_with(folder / "tls") as sandbox, relay_to(sandbox, **sections) as relay:
            offered = await asyncio.to_thread(_offered, port_of(relay, "plain"))
            async with Recorder(offered) as recorder:
                targets = _targets(relay, recorder, f"client-{subaccount}", folder, ways)
                delivered = _delivered(sandbox, recorder, len(messages), len(ways))
                job = Job(folder, jobs.write(folder, targets, messages), targets, messages, delivered)
                async with asyncio.timeout(_PATIENCE):
                    output = await run(job)
        said = [line.split("\t", 2) for line in output.splitlines() if line.count("\t") >= 2]
        return Played(
            {message.name: (folder / f"{message.name}.eml").read_bytes() for message in messages},
            output,
            {(message, target): words for target, message, words in said},
            _by(lambda one: one.reverse_path, sandbox.accepted),
            _by(lambda one: one.reverse_path, recorder.recorded),
        )


def _delivered(sandbox: Sandbox, recorder: Recorder, messages: int, ways: int) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await recorder.wait_for(messages)
        await sandbox.wait_for(messages * ways, _PATIENCE)

    return wait


def _targets(relay: Relay, recorder: Recorder, login: str, folder: Path, ways: Collection[str]) -> list[Target]:
    ca_file = str(folder / "ca.pem")
    reference = Target(REFERENCE, "127.0.0.1", recorder.port, "plain", None, PASSWORD, ca_file)
    return [reference] + [
        Target(way, "localhost", port_of(relay, door), door, login if with_login else None, PASSWORD, ca_file)
        for way, (door, with_login) in WAYS.items()
        if way in ways
    ]


def _listeners(folder: Path) -> list[dict[str, Any]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files = {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    return [
        {
            "name": door,
            "address": "localhost:0",
            "tls": {"mode": "none"} if door == "plain" else {"mode": door, **files},
        }
        for door in DOORS
    ]


def _offered(port: int) -> list[str]:
    """The relay's EHLO lines, without its name."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        _, lines = client.ehlo("recorder.test")
    return lines.decode().splitlines()[1:]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder that others than its owner may enter: Postfix changes users."""
    with tempfile.TemporaryDirectory(prefix="relay-client-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _by(key: Callable[[Any], str], things: list[Any]) -> dict[str, list[Any]]:
    sorted_out: dict[str, list[Any]] = {}
    for thing in things:
        sorted_out.setdefault(key(thing), []).append(thing)
    return sorted_out
