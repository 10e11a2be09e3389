"""`sparkpost-relay demo`: a client, the relay and the SparkPost stand-in in one process, and what they say.

Everything is real but SparkPost: real sockets, real TLS with a certificate of the stand-in's own CA, the relay as
`serve` runs it. Ports are ephemeral, keys are made up, nothing is left behind.
"""

import asyncio
import base64
import signal
import smtplib
import socket
import sys
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final

from relay.app import Relay
from relay.config import Config
from relay.core.secret import MASK
from relay.observe import log
from relay.sandbox import Direction, Port, Sandbox, Session
from relay.sockets import host_port

_KEY: Final = "demo-key-of-no-account"
_PASSWORD: Final = "demo-password"  # noqa: S105 - of the demo's own making, good for nothing else
_LOGIN: Final = "tenant-123"
_WANTED: Final = "SMTP_Injection:X-MSYS-SUBACCOUNT=123"


async def demonstrate(*, keep: bool) -> int:
    """Run it; 0 if the message arrived under the right identity, 1 if not, or if this host does not allow it."""
    try:
        return await _demonstrate(keep=keep)
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as error:
        print(f"the demo cannot be shown here: {error}", file=sys.stderr)
        return 1


async def _demonstrate(*, keep: bool) -> int:
    log.configure(form="console", level="error", addresses="plain")
    with tempfile.TemporaryDirectory(prefix="sparkpost-relay-demo-") as folder:
        here = _loopback()
        # The first port stands for a blocked 587: it accepts connections and never speaks.
        ports = [Port(here, 0, mode="silent"), Port(here, 0)]
        async with Sandbox(ports=ports, api_keys={_KEY: None}, tls_dir=Path(folder)) as sandbox:
            (_, blocked), (_, working) = sandbox.addresses
            relay = Relay(_config(here, sandbox.ca_file, [blocked, working]))
            await relay.start()
            host, port = relay.listeners[0].addresses[0]
            print(_picture(host_port(host, port), blocked, working))
            try:
                answer = await asyncio.to_thread(_send, host, port)
                passed = _show(answer, sandbox, working)
                if keep:
                    await _stay(host, port, working, sandbox.ca_file)
            finally:
                await relay.stop()
    return 0 if passed else 1


def _loopback() -> str:
    """127.0.0.1, or ::1 on a host without it; what `localhost` is called there does not matter."""
    try:
        socket.create_server(("127.0.0.1", 0)).close()
    except OSError:
        return "::1"
    return "127.0.0.1"


def _config(here: str, ca_file: Path, ports: list[int]) -> Config:
    return Config.model_validate(
        {
            "hostname": "relay.demo.example",
            "listeners": [{"address": host_port(here, 0)}],
            "upstream": {
                "host": here,
                "ports": ports,
                "fallback_after": "500ms",
                "tls": {"ca_file": str(ca_file)},
            },
            "credentials": {"default": {"api_key": _KEY}},
            "spool": {"url": "none"},
            "admin": {"address": None},
            "identities": [{"name": "tenants", "match": {"login": "tenant-{subaccount}"}, "password": _PASSWORD}],
        }
    )


def _picture(relay: str, blocked: int, working: int) -> str:
    return f"""
  application            sparkpost-relay                       SparkPost stand-in
  (smtplib)    ------->  {relay:<15}  ----- STARTTLS ----->  localhost:{blocked} (blocked, as 587 often is)
                                             ----- STARTTLS ----->  localhost:{working} (as 2525)
"""


def _message() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Billing <billing@example.com>"
    message["To"] = "customer@example.net"
    message["Subject"] = "Invoice 2026-1042"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content("Dear customer,\n\nyour invoice is 42.00 EUR.\n\n.this line began with a dot\n")
    return message


def _send(host: str, port: int) -> str:
    """Send as an application does; the relay's reply to the final dot."""
    message = _message()
    with smtplib.SMTP(host, port, local_hostname="application.example", timeout=30) as client:
        client.login(_LOGIN, _PASSWORD)
        client.mail("billing@example.com")
        client.rcpt("customer@example.net")
        code, text = client.data(message.as_bytes(policy=SMTP))
    return f"{code} {text.decode()}"


def _show(answer: str, sandbox: Sandbox, working: int) -> bool:
    print(f"The application logged in as {_LOGIN!r}, sent one message and heard:\n\n    {answer}\n")
    if not sandbox.accepted:
        print("SparkPost received nothing. That is a defect: please report it.")
        return False
    accepted = sandbox.accepted[0]
    print(f"What the relay said to SparkPost on port {working}, inside TLS unless marked:\n")
    for line in _dialogue(next(one for one in sandbox.sessions if one.number == accepted.connection)):
        print(f"    {line}")
    print(f"\nSparkPost saw the login {accepted.auth_user!r}: subaccount {accepted.subaccount}, and received:\n")
    for line in accepted.content.decode("utf-8", "replace").splitlines():
        print(f"    | {line}")
    right = accepted.auth_user == _WANTED and answer.startswith("250 ")
    print(f"\naccepted 1 = delivered 1, under {'the right' if right else 'THE WRONG'} identity")
    return right


def _dialogue(session: Session) -> Iterator[str]:
    """The transcript as lines; logins decoded, the key masked, the content left out."""
    secret = in_data = False
    for exchange in session.transcript:
        if in_data and exchange.direction is Direction.CLIENT:
            continue
        for line in exchange.octets.decode("ascii", "replace").splitlines():
            if exchange.direction is Direction.SERVER:
                secret, in_data = line == "334 UGFzc3dvcmQ6", line.startswith("354")
                yield f"S: {line}"
                if session.tls and line.startswith("220") and "continue" in line:
                    yield f"   --- {session.tls}, certificate verified ---"
            elif secret:
                yield f"C: {MASK}"
            else:
                yield f"C: {line}{_decoded(line)}"
        if in_data:
            yield "C: (the content, then the final dot)"


def _decoded(line: str) -> str:
    """What the base64 of an AUTH command says."""
    if not line.upper().startswith("AUTH LOGIN "):
        return ""
    return f"    = {base64.b64decode(line.split()[2]).decode()}"


async def _stay(host: str, port: int, working: int, ca_file: Path) -> None:
    """Until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)  # as Ctrl-C: nothing is left behind
    print(f"\nStill running: the relay on {host_port(host, port)} (log in as {_LOGIN} with {_PASSWORD}),")
    print(f"the stand-in on localhost:{working} with CA {ca_file}. Ctrl-C ends both.", flush=True)
    try:
        await stop.wait()
    except asyncio.CancelledError:
        return
