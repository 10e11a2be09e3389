"""A client for tests that says its octets itself, and what it needs to speak TLS."""

import asyncio
from pathlib import Path

import trustme

ENVELOPE = b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
MESSAGE = b"From: a@example.com\r\n\r\nhello\r\n.\r\n"


async def talk(
    port: int, octets: bytes, *, half_close: bool = False, host: str = "127.0.0.1", source: str | None = None
) -> bytes:
    """Send octets (and perhaps a half-close), read until the relay closes."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0) if source else None)
    try:
        writer.write(octets)
        if half_close:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


def starttls(folder: Path) -> dict[str, str]:
    """The tls section of a listener that offers STARTTLS, with a certificate nobody knows: `issuer.pem` is its CA."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "issuer.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return {"mode": "starttls", "certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
