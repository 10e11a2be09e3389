"""The request to the HTTP API, piece by piece: what becomes of headers, braces and chunks."""

import json
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.envelope import Address, Recipient
from relay.core.login import subaccount_of, username_for
from relay.core.message import Body, Content, MemoryBody
from relay.sandbox.templates import evaluate
from relay.upstream.transmission import TAIL, head, json_text, literal_braces, mime

HEADER = st.sampled_from([b"Subject: x\r\n", b"X-MSYS-API: {}\r\n", b" folded\r\n", b"no field\r\n"])
BODY = st.sampled_from([b"\r\n", b"x\r\n", b".\r\n", b"X-MSYS-API: y\r\n", b"\xfc\r\n", b"y" * 1200 + b"\r\n"])
TO = Recipient(Address("b", "example.net"))


class Pieces:
    """A body that comes a few octets at a time."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.size = len(octets)

    def chunks(self) -> Iterator[bytes]:
        return iter([self.octets[at : at + 3] for at in range(0, len(self.octets), 3)])

    def close(self) -> None:
        """Nothing is held open."""


def carried(header: bytes, body: bytes, *, pieces: Callable[[bytes], Body] = MemoryBody) -> bytes:
    """What the API gets of this content."""
    longest = max(map(len, (header + body).split(b"\r\n")))
    return b"".join(mime(Content(header, pieces(body), longest, not (header + body).isascii())))


@given(st.text("{}ax ").map(lambda text: f"Subject: {text}\r\n"))
def test_braces_come_out_of_the_templates_as_they_went_in(header):
    """Any run of them, in any order."""
    escaped = literal_braces(header.encode()).decode()

    assert evaluate(escaped, {}) == header


@given(header=st.lists(HEADER), body=st.lists(BODY))
def test_chunks_make_no_difference(header, body):
    """Whole or in pieces: the same octets, ASCII, no line of a lone dot at their end."""
    head_octets, body_octets = b"".join(header), b"".join([b"\r\n", *body] if body else [])
    whole = carried(head_octets, body_octets)

    assert carried(head_octets, body_octets, pieces=Pieces) == whole
    assert whole.isascii()
    assert not whole.endswith(b"\r\n.\r\n")
    if body_octets.isascii() and max(map(len, body_octets.split(b"\r\n"))) <= 998:
        expected = re.sub(rb"(?m)^X-MSYS-API: \{\}\r\n(?: folded\r\n)*", b"", head_octets) + body_octets
        assert whole == expected + (b"\r\n" if expected.endswith(b"\r\n.\r\n") else b"")


@pytest.mark.parametrize(
    ("header", "body"),
    [(b"", b""), (b"", b"\r\nbody\r\n"), (b"Subject: {{x}}\r\n", b""), (b"Subject: x\r\n", b"\r\n{{x}}\r\n")],
)
def test_content_without_one_of_its_parts(header, body):
    """No header section, no body, neither."""
    assert carried(header, body) == literal_braces(header) + body


def test_pieces_are_bounded():
    """However a body is kept."""
    content = Content(b"Subject: x\r\n", MemoryBody(b"\r\n" + b"y\r\n" * 200_000), 10, False)

    assert max(map(len, mime(content))) <= 64 * 1024


@given(st.binary().map(lambda octets: bytes(octet & 0x7F for octet in octets)))
def test_the_pieces_make_a_json_document(octets):
    """Control characters, quotes and backslashes included."""
    document = json.loads(head(TO, {"tags": ["ü"]}) + json_text(octets) + TAIL)

    assert document["content"]["email_rfc822"].encode() == octets
    assert document["recipients"] == [{"address": {"email": "b@example.net"}, "tags": ["ü"]}]


@pytest.mark.parametrize("subaccount", [None, 1, 2**31 - 1])
def test_the_subaccount_is_that_of_the_user_name(subaccount):
    """Also below a user name of an account's own."""
    assert subaccount_of(username_for("SMTP_Injection", subaccount)) == subaccount
    assert subaccount_of(username_for("tenant", subaccount)) == subaccount
