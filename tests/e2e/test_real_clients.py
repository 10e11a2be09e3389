"""Programs that people really use, each with a login over STARTTLS, its content compared at SparkPost's side."""

import asyncio
import shutil
from pathlib import Path

import pytest
import trustme

from tests.support.running import port_of, relay_to, sandbox_with

PASSWORD = "correct-horse"
IDENTITIES = [{"name": "app", "match": {"login": "app"}, "password": PASSWORD, "subaccount": 3}]
CONTENT = (
    "From: App <app@example.com>\r\nTo: b@example.net\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    ".a line with a dot\r\nGrüße\r\n"
).encode()


def listener(folder: Path) -> tuple[list[dict], Path]:
    """A STARTTLS listener, and the CA its clients must trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    tls = {"mode": "starttls", "certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    return [{"address": "localhost:0", "tls": tls, "auth": "required"}], folder / "ca.pem"


def msmtp(port: int, ca_file: Path, message: Path) -> list[str]:
    return [
        *[
            "msmtp",
            "--host=127.0.0.1",
            f"--port={port}",
            "--tls=on",
            "--tls-starttls=on",
            f"--tls-trust-file={ca_file}",
        ],
        *["--tls-certcheck=on", "--auth=plain", "--user=app", f"--passwordeval=echo {PASSWORD}"],
        *["--from=app@example.com", "--", "b@example.net"],
    ]


def curl(port: int, ca_file: Path, message: Path) -> list[str]:
    return [
        *["curl", "--silent", "--show-error", f"smtp://localhost:{port}", "--ssl-reqd", "--cacert", str(ca_file)],
        *["--user", f"app:{PASSWORD}", "--mail-from", "app@example.com", "--mail-rcpt", "b@example.net"],
        *["--upload-file", str(message)],
    ]


def swaks(port: int, ca_file: Path, message: Path) -> list[str]:
    return [
        *[
            "swaks",
            "--server",
            f"127.0.0.1:{port}",
            "--tls",
            "--tls-verify",
            "--tls-ca-path",
            str(ca_file),
            "--auth",
            "LOGIN",
        ],
        *["--auth-user", "app", "--auth-password", PASSWORD, "--pipeline", "--from", "app@example.com"],
        *["--to", "b@example.net", "--data", f"@{message}"],
    ]


@pytest.mark.parametrize("program", [msmtp, curl, swaks], ids=lambda program: program.__name__)
async def test_a_real_client(tmp_path, program):
    """It logs in, sends, is told 250, and what it sent has arrived under its own identity."""
    if shutil.which(program.__name__) is None:
        pytest.skip(f"{program.__name__} is not installed (Debian package {program.__name__})")
    message = tmp_path / "message.eml"
    message.write_bytes(CONTENT)
    listeners, ca_file = listener(tmp_path)
    async with (
        sandbox_with(tmp_path / "tls") as sandbox,
        relay_to(sandbox, listeners=listeners, identities=IDENTITIES) as relay,
    ):
        process = await asyncio.create_subprocess_exec(
            *program(port_of(relay), ca_file, message),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(CONTENT), 30)

    assert process.returncode == 0, output.decode("utf-8", "replace")
    assert [one.auth_user for one in sandbox.accepted] == ["SMTP_Injection:X-MSYS-SUBACCOUNT=3"]
    received = sandbox.accepted[0].content
    assert received.startswith(b"Received: from ")
    assert b" with ESMTPSA id " in received
    assert received.partition(b"From: App")[2].rstrip() == CONTENT.partition(b"From: App")[2].rstrip()
