"""The yardstick: what a competent user writes in an afternoon with aiosmtpd in front and aiosmtplib behind.

It verifies TLS, logs each message, passes SparkPost's refusals on and answers 451 to everything else. `--pool 0` opens
a connection per message; `--pool N` keeps up to N, and replaces each after 100 messages as SparkPost asks. It has no
identities, no timers of its own, no limits and no fallback: it does less for a message than a real relay must.
"""

import argparse
import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiosmtplib
from aiosmtpd.smtp import SMTP

MESSAGES_PER_CONNECTION = 100

log = logging.getLogger("naive_relay")


@dataclass(slots=True)
class Upstream:
    """Opens authenticated connections to the smarthost, one for each message."""

    host: str
    port: int
    tls_context: ssl.SSLContext

    async def connect(self) -> aiosmtplib.SMTP:
        """A connection after STARTTLS and AUTH."""
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username="SMTP_Injection",
            password="secret",
            start_tls=True,
            tls_context=self.tls_context,
            local_hostname="relay.example",
        )
        await client.connect()
        return client

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """A new connection, closed with QUIT afterwards."""
        async with await self.connect() as client:
            yield client


@dataclass(slots=True)
class PooledUpstream(Upstream):
    """Keeps up to `limit` connections and hands out the one that was used last."""

    limit: int
    slots: asyncio.Semaphore = field(init=False)
    idle: list[tuple[aiosmtplib.SMTP, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.limit)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """A connection from the pool; it goes back only after a message that went well."""
        async with self.slots:
            client, uses = self.idle.pop() if self.idle else (await self.connect(), 0)
            if not client.is_connected:
                client, uses = await self.connect(), 0
            try:
                yield client
            except BaseException:
                client.close()
                raise
            if uses + 1 < MESSAGES_PER_CONNECTION:
                self.idle.append((client, uses + 1))
            else:
                with suppress(aiosmtplib.SMTPException):  # the message is delivered, whatever becomes of QUIT
                    await client.quit()


@dataclass
class Forwarder:
    """aiosmtpd's handler: sends each message on before the client gets its answer.

    Without slots: aiosmtpd looks at each attribute, and with them Python 3.11.2 has one that cannot be looked at.
    """

    upstream: Upstream

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        """The smarthost's answer, or 451."""
        try:
            async with self.upstream.connection() as client:
                _, text = await client.sendmail(envelope.mail_from, envelope.rcpt_tos, envelope.content)
        except aiosmtplib.SMTPResponseException as error:
            log.warning("refused from=%s: %s %s", envelope.mail_from, error.code, error.message)
            return f"{error.code} {error.message}"
        except (aiosmtplib.SMTPException, OSError) as error:
            log.warning("deferred from=%s: %s", envelope.mail_from, error)
            return "451 4.4.1 smarthost not available, try again later"
        log.info("sent from=%s to=%s size=%d: %s", envelope.mail_from, envelope.rcpt_tos, len(envelope.content), text)
        return f"250 {text}"


async def serve(port: int, upstream: Upstream) -> None:
    """Listens until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    handler = Forwarder(upstream)
    # aiosmtpd's Controller would add a thread and offer SMTPUTF8, which SparkPost does not take.
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="relay.example", enable_SMTPUTF8=False, loop=loop), "127.0.0.1", port
    )
    async with server:
        await stop.wait()


def main() -> None:
    """Reads the command line and serves on the loop that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream-host", default="localhost")
    parser.add_argument("--upstream-port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--pool", type=int, default=0)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    tls_context = ssl.create_default_context(cafile=options.ca_file)
    upstream = (
        PooledUpstream(options.upstream_host, options.upstream_port, tls_context, options.pool)
        if options.pool
        else Upstream(options.upstream_host, options.upstream_port, tls_context)
    )
    loop_factory = None
    if options.uvloop:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(options.port, upstream))


if __name__ == "__main__":
    main()
