"""The request that asks SparkPost's Transmissions API to send one message to one recipient: JSON, in pieces. Pure.

The message goes in its MIME form (`content.email_rfc822`), and what over SMTP its X-MSYS-API header would say goes
beside it in fields of the JSON (fact sheet 2.1, 3.2). The MIME differs from what SMTP would carry in four ways:

* No `X-MSYS-…` and no `X-Binding` field is left in it.
* It does not end with a line of a single dot, which the API would take for SMTP's: an empty line follows.
* All of it is ASCII, because JSON is UTF-8 and mail is in any character set: 8-bit octets are re-encoded as for a
  server without 8BITMIME.
* `{{` and `}}` in its header section are written as SparkPost wants literal braces written: over HTTP it evaluates
  templates there, and that cannot be switched off. In the body it is switched off.

Tracking is off unless asked for; over HTTP it would be on (fact sheet 3.4). There is no `return_path`: SparkPost puts
the account's own in, as it does over SMTP.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from relay.core import smtp_api
from relay.core.envelope import Recipient
from relay.core.headers import field_values, has_field, without_sparkpost_fields
from relay.core.message import Content
from relay.core.recode import must_recode, recode

TAIL: Final = b'"}}'
_PIECE: Final = 64 * 1024
_DOT: Final = b"\r\n.\r\n"
_BRACES = re.compile(rb"(\{*)(\}*)")
_MAX_METADATA: Final = 10_000  # octets (fact sheet 3.2)


class NotOverHttps(Exception):
    """The message asks for something that the API cannot do; the text says for what."""


def wishes(header: bytes) -> Mapping[str, Any]:
    """What the message's X-MSYS-API header asks of SparkPost; raises NotOverHttps.

    `archive` and `X-Binding` do not exist over HTTP, copies to `cc` and `bcc` are messages of their own there, and
    metadata has a limit that it does not have over SMTP. A header that an earlier version let pass and this one would
    not is left to SMTP too: SparkPost says what it thinks of it.
    """
    if has_field(header, smtp_api.BINDING.encode("ascii")):
        raise NotOverHttps("the message has an X-Binding header")
    values = field_values(header, smtp_api.NAME)
    if not values:
        return {}
    if len(values) > 1:
        raise NotOverHttps("the message has several X-MSYS-API headers")
    try:
        asked = smtp_api.read(values[0])
    except smtp_api.SmtpApiError as error:
        raise NotOverHttps(str(error)) from error
    copies = [name for name in smtp_api.COPIES if asked.get(name)]
    if copies:
        raise NotOverHttps(f"the message's X-MSYS-API header asks for {' and '.join(copies)} recipients")
    if len(json.dumps(asked.get("metadata"))) > _MAX_METADATA:
        raise NotOverHttps("the message has more than 10 KB of metadata")
    return asked


def head(recipient: Recipient, asked: Mapping[str, Any]) -> bytes:
    """The request up to where the MIME begins."""
    to: dict[str, Any] = {"address": {"email": str(recipient)}}
    if "tags" in asked:
        to["tags"] = asked["tags"]
    fields = {"recipients": [to], **{name: asked[name] for name in ("campaign_id", "metadata") if name in asked}}
    options = {"open_tracking": False, "click_tracking": False, **asked.get("options", {})}
    fields["options"] = options | {"perform_substitutions": False}
    return json.dumps(fields)[:-1].encode("ascii") + b', "content": {"email_rfc822": "'


def json_text(octets: bytes) -> bytes:
    """ASCII as it stands between the quotes of a JSON string."""
    return json.dumps(octets.decode("ascii"))[1:-1].encode("ascii")


def mime(content: Content) -> Iterator[bytes]:
    """The message as the API gets it, in pieces of a bounded size."""
    chunks: Iterable[bytes] = content.chunks()
    if must_recode(content.longest_line, eight_bit=content.eight_bit, eight_bit_ok=False):
        chunks = recode(content.chunks, eight_bit_ok=False)
    pieces = iter(chunks)
    begun = bytearray()  # the header section, which the relay bounds, and what came with it
    end = -1
    while end < 0 and (chunk := next(pieces, None)) is not None:
        seen = max(len(begun) - 3, 0)
        begun += chunk
        end = _end_of_header(begun, seen)
    header = bytes(begun[:end] if end >= 0 else begun)
    last = b""
    begin = literal_braces(without_sparkpost_fields(header)) + bytes(begun[len(header) :])
    for piece in itertools.chain([begin], pieces):
        last = (last + piece[-len(_DOT) :])[-len(_DOT) :]
        yield from (piece[at : at + _PIECE] for at in range(0, len(piece), _PIECE))
    if last == _DOT:
        yield b"\r\n"


def _end_of_header(content: bytearray, start: int) -> int:
    """Where the empty line begins that ends the header section; -1 if it is not there yet. Not before `start`."""
    if content.startswith(b"\r\n"):
        return 0
    found = content.find(b"\r\n\r\n", start)
    return found if found < 0 else found + 2


def literal_braces(header: bytes) -> bytes:
    """A header section that SparkPost's templates come out of as it was (fact sheet 3.2)."""
    return _BRACES.sub(_escaped, header) if b"{{" in header or b"}}" in header else header


def _escaped(braces: re.Match[bytes]) -> bytes:
    opening, closing = len(braces[1]), len(braces[2])
    if opening == 1 and closing > 1:  # `{` before an escape would read as one of three braces; alone, `}}` ends nothing
        return braces[0]
    return _run(opening, b"{", b"opening") + _run(closing, b"}", b"closing")


def _run(length: int, brace: bytes, name: bytes) -> bytes:
    """Braces of one kind in a row: SparkPost has a macro for two of them, and one for three."""
    if length < 2:
        return brace * length
    triple, doubles = length % 2, length // 2 - length % 2
    return b"{{%b_double_curly()}}" % name * doubles + b"{{%b_triple_curly()}}" % name * triple
