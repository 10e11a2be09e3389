"""A listener's certificate is renewed while the relay runs and clients are connected."""

import asyncio
import ssl

import pytest
import trustme

from tests.support.ledger import until
from tests.support.running import port_of, relay_to, sandbox_with
from tests.support.wire import MESSAGE


async def said(reader: asyncio.StreamReader) -> bytes:
    """One reply, to its last line."""
    lines = [await reader.readline()]
    while lines[-1][3:4] == b"-":
        lines.append(await reader.readline())
    return b"".join(lines)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(tmp_path, monkeypatch, mode):
    """Mail on a connection that was there before is delivered as any other, and nobody is refused."""
    monkeypatch.setattr("relay.app.FILES_INTERVAL", 0.02)
    contexts = []

    def place() -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(tmp_path / "key.pem")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        contexts.append(ssl.create_default_context())
        authority.configure_trust(contexts[-1])

    async def connected(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if mode == "implicit":
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            assert (await said(reader)).startswith(b"220")
            return reader, writer
        reader, writer = await asyncio.open_connection("localhost", port)
        assert (await said(reader)).startswith(b"220")
        writer.write(b"STARTTLS\r\n")
        assert (await said(reader)).startswith(b"220")
        await writer.start_tls(context, server_hostname="localhost")
        return reader, writer

    async def sends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recipient: bytes) -> bytes:
        for octets in (b"EHLO c", b"MAIL FROM:<a@example.com>", b"RCPT TO:<%s>" % recipient, b"DATA"):
            writer.write(octets + b"\r\n")
            await said(reader)
        writer.write(MESSAGE)
        return (await said(reader))[:3]

    async def trusted(port: int, context: ssl.SSLContext) -> bool:
        try:
            _, writer = await connected(port, context)
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True

    place()
    tls = {"mode": mode, "certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    listeners = [{"address": "127.0.0.1:0", "tls": tls}]
    async with (
        asyncio.timeout(30),
        sandbox_with(tmp_path / "ca") as sandbox,
        relay_to(sandbox, listeners=listeners) as relay,
    ):
        port = port_of(relay)
        before = await connected(port, contexts[0])
        place()
        while not await trusted(port, contexts[1]):
            pass
        after = await connected(port, contexts[1])
        answers = [await sends(*before, b"before@example.net"), await sends(*after, b"after@example.net")]
        stale = await trusted(port, contexts[0])
        for _, writer in (before, after):
            writer.close()
        await until(lambda: len(sandbox.accepted) == 2)

    assert (answers, stale) == ([b"250", b"250"], False)
    assert [one.recipients for one in sandbox.accepted] == [("before@example.net",), ("after@example.net",)]
