"""A client for tests: sends one message with smtplib and gives back what it heard."""

import asyncio
import smtplib

CONTENT = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: test\r\n\r\nhello\r\n"


def _send(port: int, recipients: list[str], mail_from: str, content: bytes) -> tuple[int, str]:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("client.test")
        answers = [client.mail(mail_from), *(client.rcpt(recipient) for recipient in recipients)]
        refused = next((answer for answer in answers if answer[0] >= 400), None)
        code, text = refused or client.data(content)
        return code, text.decode("ascii")


async def send(
    port: int, *recipients: str, mail_from: str = "a@example.com", content: bytes = CONTENT
) -> tuple[int, str]:
    """The code and text of the final reply, or of the first refusal."""
    return await asyncio.to_thread(_send, port, list(recipients) or ["b@example.net"], mail_from, content)
