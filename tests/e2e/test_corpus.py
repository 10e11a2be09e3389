"""All real messages travel client → relay → SparkPost stand-in and arrive as they were, but for the documented changes.

Documented changes: line ends become CRLF, a Received line goes on top, Bcc lines go, and entities with lines over 998
octets are re-encoded so that a reader sees the same text.
"""

import asyncio
import email
import email.policy
import re
import shutil
import smtplib
import ssl
from pathlib import Path

import pytest
import trustme

from relay.sandbox import Sandbox
from tests.support.running import port_of, relay_to, sandbox_with

CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.eml"))
DOORS = ["plain", "starttls", "implicit"]


def test_the_corpus_is_whole():
    """104 messages."""
    assert len(CORPUS) == 104


@pytest.fixture
def door(request, tmp_path_factory):
    """A listener's tls section and how a client gets in."""
    mode = "none" if request.param == "plain" else request.param
    if mode == "none":
        return request.param, {"mode": "none"}, None
    folder = tmp_path_factory.mktemp("listener")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    tls = {"mode": mode, "certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    return request.param, tls, folder / "ca.pem"


def expected(original: bytes) -> bytes:
    """The content with CRLF line ends and without Bcc lines, as an independent reading of the documentation."""
    content = re.sub(rb"\r\n|\r|\n", b"\r\n", original)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    header, separator, body = content.partition(b"\r\n\r\n")
    header = re.sub(rb"(?im)^(?:resent-)?bcc[ \t]*:.*(?:\r\n[ \t].*)*(?:\r\n|\Z)", b"", header + b"\r\n")
    return header + (b"\r\n" + body if separator else b"")


def assert_arrived(content: bytes, original: bytes, name: str) -> None:
    received, _, rest = content.partition(b"\r\n")
    assert received.startswith(b"Received: from "), name
    while rest.startswith((b" ", b"\t")):
        rest = rest.partition(b"\r\n")[2]
    header = original.replace(b"\r\n", b"\n").replace(b"\r", b"\n").partition(b"\n\n")[0]
    for field in (b"Date", b"Message-ID"):  # added where there is none
        if not re.search(rb"(?im)^" + field + rb"[ \t]*:", header):
            added, _, rest = rest.partition(b"\r\n")
            assert added.startswith(field + b": "), name
    wanted = expected(original)
    if max(map(len, wanted.split(b"\r\n"))) <= 998:
        assert rest == wanted, name
    else:
        assert texts(rest) == texts(wanted), name
        assert max(map(len, rest.split(b"\r\n"))) <= 998, name


def texts(content: bytes) -> list[bytes]:
    """Every leaf's decoded octets, with line ends made alike."""
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    payloads = [part.get_payload(decode=True) or b"" for part in message.walk() if not part.is_multipart()]
    return [payload.replace(b"\r\n", b"\n").rstrip(b"\n") for payload in payloads]


def _send_all(port: int, how: str, ca_file: Path | None) -> int:
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    if how == "implicit":
        client = smtplib.SMTP_SSL("localhost", port, context=context, timeout=30)
    else:
        client = smtplib.SMTP("localhost", port, timeout=30)
        if how == "starttls":
            client.starttls(context=context)
    sent = 0
    with client:
        for path in CORPUS:
            client.sendmail(
                "sender@example.com", ["rcpt@example.net"], path.read_bytes(), mail_options=["BODY=8BITMIME"]
            )
            sent += 1
    return sent


@pytest.mark.parametrize("door", DOORS, indirect=True)
async def test_by_smtplib(door, tmp_path):
    """Python's own client, one connection, every message."""
    how, tls, ca_file = door
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, listeners=[{"address": "localhost:0", "tls": tls}]) as relay,
    ):
        sent = await asyncio.to_thread(_send_all, port_of(relay), how, ca_file)

    assert sent == len(CORPUS) == len(sandbox.accepted)
    for path, accepted in zip(CORPUS, sandbox.accepted, strict=True):
        assert_arrived(accepted.content, as_smtplib_sends(path.read_bytes()), path.name)


def as_smtplib_sends(original: bytes) -> bytes:
    """smtplib sends octets as they are, and one more line end if they do not end in CRLF."""
    return original if original.endswith(b"\r\n") else original + b"\r\n"


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed (Debian package swaks)")
@pytest.mark.parametrize("door", DOORS, indirect=True)
async def test_by_swaks(door, tmp_path):
    """swaks, one connection for each message."""
    how, tls, _ = door
    async with (
        sandbox_with(tmp_path) as sandbox,
        relay_to(sandbox, listeners=[{"address": "localhost:0", "tls": tls}]) as relay,
    ):
        for path in CORPUS:
            await _swaks(port_of(relay), how, path)
        check(sandbox)


async def _swaks(port: int, how: str, path: Path) -> None:
    secure = {"plain": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}[how]
    program = await asyncio.create_subprocess_exec(
        *["swaks", "--server", f"127.0.0.1:{port}", "--from", "sender@example.com", "--to", "rcpt@example.net"],
        *["--data", f"@{path}", *secure],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await program.communicate()
    assert program.returncode == 0, output.decode("utf-8", "replace")


def check(sandbox: Sandbox) -> None:
    assert len(sandbox.accepted) == len(CORPUS)
    for path, accepted in zip(CORPUS, sandbox.accepted, strict=True):
        assert_arrived(accepted.content, as_swaks_sends(path.read_bytes()), path.name)


def as_swaks_sends(original: bytes) -> bytes:
    """swaks takes away an mbox "From " line, and ends every message with one more line end."""
    return re.sub(rb"\AFrom .*\r?\n", b"", original) + b"\r\n"
