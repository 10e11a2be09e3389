"""aiosmtplib: `send_message` for messages that the standard library composes, `sendmail` for octets."""

import asyncio

import aiosmtplib

from tests.e2e.clients import composing


def client_of(target):
    return aiosmtplib.SMTP(
        hostname=target["host"],
        port=target["port"],
        use_tls=target["tls"] == "implicit",
        start_tls=target["tls"] == "starttls",
        tls_context=composing.trust(target),
        username=target["login"],
        password=target["password"] if target["login"] else None,
        timeout=20,
    )


async def main():
    targets, messages = composing.job()
    for target in targets:
        async with client_of(target) as client:
            for message in messages:
                envelope = {"sender": composing.sender(message, target), "recipients": message["recipients"]}
                options = composing.options(message)
                try:
                    if message["eight_bit"]:
                        await client.sendmail(*envelope.values(), message["composed"], mail_options=options)
                    else:
                        await client.send_message(message["composed"], **envelope, mail_options=options)
                    composing.tell(target, message)
                except aiosmtplib.SMTPException as error:
                    composing.tell(target, message, error)


asyncio.run(main())
