"""What the two Python drivers share: the job as Python sees it, and messages made with the standard library."""

import json
import ssl
import sys
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any


def job() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Targets and messages; each message is composed once, so that every target gets the same octets."""
    read = json.loads(Path(sys.argv[1]).read_text())
    for message in read["messages"]:
        message["composed"] = Path(message["raw"]).read_bytes() if message["eight_bit"] else compose(message)
    return read["targets"], read["messages"]


def compose(message: dict[str, Any]) -> EmailMessage:
    """The message from its fields."""
    composed = EmailMessage(policy=SMTP)
    composed["From"] = f"App <{message['from']}>"
    composed["To"] = ", ".join(message["to"])
    if message["bcc"]:
        composed["Bcc"] = ", ".join(message["bcc"])
    composed["Subject"] = message["subject"]
    composed["Date"] = message["date"]
    composed["Message-ID"] = message["message_id"]
    composed.set_content(message["text"])
    if message["html"] is not None:
        composed.add_alternative(message["html"], subtype="html")
    if message["file"] is not None:
        octets = Path(message["file"]).read_bytes()
        composed.add_attachment(octets, "application", "octet-stream", filename=message["attachment"])
    if composed.is_multipart():
        composed.set_boundary("boundary")
    return composed


def sender(message: dict[str, Any], target: dict[str, Any]) -> str:
    return f"{message['name']}.{target['name']}@example.com"


def options(message: dict[str, Any]) -> list[str]:
    """For MAIL."""
    return ["BODY=8BITMIME"] if message["announced"] else []


def trust(target: dict[str, Any]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=target["ca_file"])


def tell(target: dict[str, Any], message: dict[str, Any], error: Exception | None = None) -> None:
    """One line of what has become of a message."""
    outcome = "ok" if error is None else repr(error)
    sys.stdout.write(f"{target['name']}\t{message['name']}\t{outcome}\n")
