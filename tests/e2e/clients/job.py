"""What every client is asked to do: the same messages, to the same places, written down for drivers in any language.

A driver reads the job, a JSON file, sends every message to every target and prints a line for each: target, message,
and `ok` or what went wrong, with tabs between them. A client that composes takes a message's fields; one that is given
whole messages takes the file `raw`.
"""

import base64
import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FROM: Final = "app@example.com"
DATE: Final = "Wed, 25 Nov 2026 10:00:00 +0000"
REFERENCE: Final = "reference"
DOORS: Final = ("plain", "starttls", "implicit")
WAYS: Final = {f"{door}{'-login' * login}": (door, login) for door in DOORS for login in (False, True)}

_TEXT: Final = (
    "Dear reader,\n\n.a line with a dot\n..two dots\n.\nFrom here on it is dull.\nTwo blanks at the end:  \n\n"
    + "x" * 900
    + "\n.\nThe end.\n"
)
_LATIN: Final = "Grüße aus Köln, 12 €\n.¡hola!\n你好\n"
_HTML: Final = '<html><body><p class="a">Grüße</p>\n.<b>bold</b>\n</body></html>\n'
_ATTACHMENT_OCTETS: Final = 120_000  # as base64 more than the relay keeps in memory


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send, and how: `tls` is plain, starttls or implicit; `login` is None to send without."""

    name: str
    host: str
    port: int
    tls: str
    login: str | None
    password: str
    ca_file: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its fields for clients that compose, its octets in `raw` for clients that do not.

    The reverse-path is `sender`, different for each target, so that the message is known again at the other end.
    `announced`: the client is to say BODY=8BITMIME; False: it is not to; None: as it likes.
    """

    name: str
    subject: str
    to: tuple[str, ...]
    text: str
    bcc: tuple[str, ...] = ()
    html: str | None = None
    attachment: str | None = None
    eight_bit: bool = False
    announced: bool | None = None

    @property
    def recipients(self) -> tuple[str, ...]:
        return self.to + self.bcc

    @property
    def message_id(self) -> str:
        return f"<{self.name}@example.com>"

    def sender(self, target: str) -> str:
        return f"{self.name}.{target}@example.com"


ONE: Final = ("b@example.net",)
MESSAGES: Final = (
    Message("text", "Text", ONE, _TEXT),
    Message("html", "HTML", ONE, _LATIN, html=_HTML),
    Message("attachment", "Attachment", ONE, "See the attachment.\n", attachment="figures.bin"),
    Message("8bit-announced", "8 bit", ONE, _LATIN, eight_bit=True, announced=True),
    Message("8bit-unannounced", "8 bit", ONE, _LATIN, eight_bit=True, announced=False),
    Message("bcc", "Bcc", ONE, "Who else has this?\n", bcc=("hidden@example.org", "boss@example.org")),
    Message("many", "Many", tuple(f"person{n}@example.net" for n in range(25)), "To all of you.\n"),
)


def _octets(message: Message, attachment: bytes) -> bytes:
    """The message as a client without any composing of its own would have to be given it."""
    to = ",\n ".join(message.to)
    bcc = f"Bcc: {','.join(f'{chr(10)} {one}' for one in message.bcc)}\n" if message.bcc else ""
    top = (
        f"From: App <{FROM}>\nTo: {to}\n{bcc}Subject: {message.subject}\nDate: {DATE}\n"
        f"Message-ID: {message.message_id}\nMIME-Version: 1.0\n"
    )
    plain = f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{message.text}"
    if message.html is not None:
        html = base64.encodebytes(message.html.encode()).decode()
        text = base64.encodebytes(message.text.encode()).decode()
        content = (
            f"{top}Content-Type: multipart/alternative; boundary=b1\n\nPreamble\n--b1\n"
            f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n{text}--b1\n"
            f"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n{html}--b1--\n"
        )
    elif message.attachment is not None:
        content = (
            f"{top}Content-Type: multipart/mixed; boundary=b1\n\n--b1\n{plain}--b1\n"
            f"Content-Type: application/octet-stream; name={message.attachment}\n"
            f"Content-Disposition: attachment; filename={message.attachment}\nContent-Transfer-Encoding: base64\n\n"
            f"{base64.encodebytes(attachment).decode()}--b1--\n"
        )
    else:
        content = top + plain
    return content.replace("\n", "\r\n").encode()


def write(folder: Path, targets: Iterable[Target], messages: Iterable[Message]) -> Path:
    """The job as a file in this folder, with a file beside it for each message and for the attachment."""
    attachment = random.Random(1).randbytes(_ATTACHMENT_OCTETS)
    described = []
    for message in messages:
        raw = folder / f"{message.name}.eml"
        raw.write_bytes(_octets(message, attachment))
        file = None
        if message.attachment is not None:
            (folder / message.attachment).write_bytes(attachment)
            file = str(folder / message.attachment)
        described.append(
            asdict(message)
            | {"raw": str(raw), "file": file, "recipients": message.recipients, "message_id": message.message_id}
            | {"from": FROM, "date": DATE}
        )
    job = folder / "job.json"
    job.write_text(json.dumps({"targets": [asdict(target) for target in targets], "messages": described}))
    return job


def write_lines(folder: Path, targets: Iterable[Target], messages: Iterable[Message]) -> None:
    """The same as `job.lines`, for a language that reads no JSON by itself: fields with tabs between."""
    rows: list[list[str]] = []
    for target in targets:
        where = [target.name, target.host, str(target.port), target.tls]
        rows.append(["target", *where, target.login or "", target.password, target.ca_file])
    for message in messages:
        addresses = [",".join(message.to), ",".join(message.bcc), FROM]
        bodies = [body.replace("\n", "\\n") for body in (message.text, message.html or "")]
        file = str(folder / message.attachment) if message.attachment else ""
        flags = ["true" if flag else "false" for flag in (message.eight_bit, message.announced)]
        header = [message.subject, DATE, message.message_id]
        rows.append(["mail", message.name, *addresses, *header, *bodies, file, *flags])
    (folder / "job.lines").write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
