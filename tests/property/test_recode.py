"""Re-encoding: whatever the message, a reader sees the same, and what is written can travel."""

import email
import email.policy
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.mime import MAX_LINE
from relay.core.recode import fold, must_recode, recode


def recoded(content: bytes, *, eight_bit_ok: bool, size: int = 0) -> bytes:
    def chunks():
        return [content] if not size else [content[at : at + size] for at in range(0, len(content), size)]

    return b"".join(recode(chunks, eight_bit_ok=eight_bit_ok))


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    """What a reader sees: the type and the decoded octets of every leaf."""
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    return [
        (part.get_content_type(), (part.get_payload(decode=True) or b"").replace(b"\r\n", b"\n").rstrip(b"\n"))
        for part in message.walk()
        if not part.is_multipart()
    ]


def assert_travels(octets: bytes, *, eight_bit_ok: bool) -> None:
    assert max(map(len, octets.split(b"\r\n"))) <= MAX_LINE
    assert octets == b"" or octets.endswith(b"\r\n")
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", octets) is None
    if not eight_bit_ok:
        assert octets.isascii()


LONG = b"word " * 300
PLAIN = b"Subject: x\r\nMIME-Version: 1.0\r\n"


def test_what_can_travel_is_not_touched():
    """No octet changes without need."""
    content = PLAIN + b"Content-Type: text/plain\r\n\r\nshort = lines \r\n.\r\nFrom here\r\n"

    assert recoded(content, eight_bit_ok=True) == content
    assert recoded(content, eight_bit_ok=False) == content


def test_text_becomes_quoted_printable():
    """The encoding is declared where the old one stood."""
    header = PLAIN + b"content-transfer-encoding: 8bit\r\nContent-Type: text/html; charset=utf-8\r\n"
    octets = recoded(header + b"\r\n" + LONG + "ü\r\n".encode(), eight_bit_ok=True)

    assert b"Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/html" in octets
    assert leaves(octets) == leaves(header + b"\r\n" + LONG + "ü\r\n".encode())
    assert_travels(octets, eight_bit_ok=False)


def test_a_message_without_mime_gets_it():
    """Text of the old kind is declared for what it is."""
    octets = recoded(b"Subject: x\r\n\r\n" + "Grüße\r\n".encode(), eight_bit_ok=False)

    assert b"MIME-Version: 1.0\r\n" in octets
    assert b"Content-Type: text/plain; charset=utf-8\r\n" in octets
    assert leaves(octets) == [("text/plain", "Grüße".encode())]


def test_other_types_become_base64():
    """The last line end belongs to the boundary."""
    part = b"--b\r\nContent-Type: application/octet-stream\r\n\r\n" + b"x" * 3000 + b"\r\nlast\r\n--b--\r\n"
    content = PLAIN + b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n" + part
    octets = recoded(content, eight_bit_ok=True)

    assert b"Content-Transfer-Encoding: base64" in octets
    assert leaves(octets) == leaves(content)
    assert_travels(octets, eight_bit_ok=True)


def test_only_the_offending_entity_changes():
    """Its neighbours, the boundaries, preamble and epilogue stay octet for octet."""
    good = b"--b\r\nContent-Type: text/plain\r\n\r\ngood  \r\n"
    bad = b"--b\r\nContent-Type: text/plain\r\n\r\n" + LONG + b"\r\n"
    header = PLAIN + b'Content-Type: multipart/mixed;\r\n boundary="b"\r\n\r\npreamble\r\n'
    octets = recoded(header + good + bad + good + b"--b--\r\nepilogue\r\n", eight_bit_ok=True)

    assert octets.startswith(header + good + b"--b\r\n")
    assert octets.endswith(good + b"--b--\r\nepilogue\r\n")


def test_a_message_within_is_entered():
    """message/rfc822 may not be encoded itself, and declares what it has become."""
    inner = (
        b"Subject: in\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xbc\r\n"
    )
    content = PLAIN + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner
    octets = recoded(content, eight_bit_ok=False)

    assert b"message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n" in octets
    assert leaves(octets) == leaves(content)
    assert_travels(octets, eight_bit_ok=False)


def test_messages_of_a_digest_are_entered():
    """Within multipart/digest what says nothing of its type is a message (RFC 2046 §5.1.5)."""
    inner = b"Subject: in\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + LONG + b"\xc3\xbc\r\n"
    content = PLAIN + b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" + inner + b"--b--\r\n"
    octets = recoded(content, eight_bit_ok=False)

    assert leaves(octets) == leaves(content)
    assert_travels(octets, eight_bit_ok=False)


@pytest.mark.parametrize(
    "parameters",
    [
        b'x-boundary="a"; boundary=b',
        b'name="; boundary=a"; Boundary="b"',
        b'boundary=\r\n "b"',
        b"boundary\r\n\t= b;\r\n charset=utf-8",
        b'boundary="b "',
    ],
)
def test_a_boundary_is_found_where_readers_find_it(parameters):
    """Whatever stands beside it, and wherever the line is folded."""
    part = b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nK\xc3\xb6ln\r\n--b--\r\n"
    content = PLAIN + b"Content-Type: multipart/mixed; " + parameters + b"\r\n\r\n" + part
    octets = recoded(content, eight_bit_ok=False)

    assert leaves(octets) == leaves(content) == [("text/plain", "Köln".encode())]
    assert_travels(octets, eight_bit_ok=False)


def test_long_quoted_printable_gets_soft_breaks():
    """Nothing is encoded twice, and no =XX is torn."""
    content = PLAIN + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=C3=BC" * 400 + b"\r\n"
    octets = recoded(content, eight_bit_ok=True)

    assert leaves(octets) == leaves(content)
    assert_travels(octets, eight_bit_ok=True)


def test_long_base64_is_wrapped():
    """One line of megabytes, as simple programs write it."""
    content = PLAIN + b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"QUJD" * 5000 + b"\r\n"
    octets = recoded(content, eight_bit_ok=True)

    assert leaves(octets) == leaves(content)
    assert_travels(octets, eight_bit_ok=True)


def test_eight_bit_octets_in_base64_are_dropped():
    """A reader takes no notice of them (RFC 2045 §6.8), and nobody on the way has to carry them."""
    content = PLAIN + b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\xe4\r\n\xa0QUJD\r\n"

    assert recoded(content, eight_bit_ok=True) == content
    assert recoded(content, eight_bit_ok=False) == content.replace(b"\xe4", b"").replace(b"\xa0", b"")


@pytest.mark.parametrize(
    "field", [b"X-Long: " + b"word " * 400, b"X-Solid: " + b"x" * 3000, b"To: " + b"someone@example.com, " * 100]
)
def test_long_header_lines_are_folded(field):
    """At white space where there is any."""
    content = field.rstrip() + b"\r\nSubject: x\r\n\r\nbody\r\n"
    octets = recoded(content, eight_bit_ok=True)
    unfolded = octets.partition(b"\r\nSubject")[0].replace(b"\r\n", b"")

    assert_travels(octets, eight_bit_ok=True)
    assert unfolded.replace(b" ", b"") == field.replace(b" ", b"")


@pytest.mark.parametrize("boundary", [b'"gr\xfc\xdfe"', b"gr\xfc\xdfe", '"grüße"'.encode(), b'"a \\"\xfc\\" b"'])
def test_a_boundary_stays_the_one_that_is_declared(boundary):
    """It is compared octet by octet: 8-bit ones are replaced alike in the header field and between the parts."""
    line = b"--" + re.sub(rb"\\(.)", rb"\1", boundary.strip(b'"'))
    part = line + b"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nK\xc3\xb6ln\r\n"
    content = (
        PLAIN
        + b"Content-Type: multipart/mixed;\r\n boundary="
        + boundary
        + b"; x=y\r\n\r\n"
        + part * 2
        + line
        + b"--\r\n"
    )
    octets = recoded(content, eight_bit_ok=False)

    assert_travels(octets, eight_bit_ok=False)
    assert leaves(octets) == [("text/plain", "Köln".encode())] * 2
    assert b"boundary*" not in octets


@pytest.mark.parametrize(
    ("field", "seen"),
    [
        ("Subject: Grüße aus Köln", "Grüße aus Köln"),
        ('From: "Jürgen Müller" <j@example.com>', "Jürgen Müller <j@example.com>"),
        ("From: Jürgen Müller <j@example.com>", "Jürgen Müller <j@example.com>"),
        ("Subject: " + "ü" * 200, "ü" * 200),
    ],
)
def test_eight_bit_header_fields_become_encoded_words(field, seen):
    """A reader of RFC 2047 sees what was written."""
    octets = recoded(field.encode() + b"\r\n\r\nx\r\n", eight_bit_ok=False)
    message = email.message_from_bytes(octets, policy=email.policy.default)

    assert_travels(octets, eight_bit_ok=False)
    assert str(message[field.partition(":")[0]]) == seen


@pytest.mark.parametrize(
    ("field", "seen"),
    [
        ('Subject: Er sagte "schön". Gut', 'Er sagte "schön". Gut'),
        (r"Subject: C:\Köln\neu", r"C:\Köln\neu"),
        ("Subject: Köln@Rhein", "Köln@Rhein"),
        ('To: "Müller, J"<j@example.com>,"Köln" <k@example.com>', '"Müller, J" <j@example.com>, Köln <k@example.com>'),
    ],
)
def test_quotes_hold_names_together_and_are_text_elsewhere(field, seen):
    """So a subject keeps them, and a list of addresses keeps its mailboxes."""
    octets = recoded(field.encode() + b"\r\n\r\nx\r\n", eight_bit_ok=False)
    message = email.message_from_bytes(octets, policy=email.policy.default)

    assert_travels(octets, eight_bit_ok=False)
    assert str(message[field.partition(":")[0]]) == seen


@pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.default], ids=["old", "new"])
@pytest.mark.parametrize("name", ['"Rechnung März.pdf"', '"März.pdf"', "März.pdf", r'"\"März\"; 1.pdf"'])
def test_the_name_of_an_attachment_stays(name, policy):
    """Encoded words have no meaning within a parameter; RFC 2231 has a form for it."""
    seen = re.sub(r"\\(.)", r"\1", name.removeprefix('"').removesuffix('"') if name.startswith('"') else name)
    field = f"Content-Disposition: attachment;\r\n filename={name}; size=1\r\nContent-Type: image/png; name={name}"
    octets = recoded(field.encode() + b"\r\n\r\nx\r\n", eight_bit_ok=False)
    message = email.message_from_bytes(octets, policy=policy)

    assert message.get_filename() == seen
    assert (message.get_content_type(), message.get_param("size", header="content-disposition")) == ("image/png", "1")
    assert_travels(octets, eight_bit_ok=False)


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Transfer-Encoding: " + b"(" * 90_000,
        b"Subject: x" + b"\r\n y" * 190_000,
        b"Subject: \xc3\xbc" + b" \xc3\xbc x" * 150_000,
        b'To: \xc3\xbc"' + b'"x ' * 250_000,
        b"To: \xc3\xbc" + b'\\"' * 250_000,
    ],
    ids=["comments", "folds", "words", "quotes", "escaped quotes"],
)
def test_a_header_takes_time_by_its_size_and_not_by_the_square(header):
    """Nobody else has a turn meanwhile: what took minutes takes a second."""
    begun = time.process_time()
    octets = recoded(header + b"\r\n\r\n\xff\r\n", eight_bit_ok=False)

    assert time.process_time() - begun < 5
    assert_travels(octets, eight_bit_ok=False)


def test_a_list_without_white_space_is_folded_between_its_addresses():
    """As applications write it that join addresses with a comma and nothing else."""
    listed = [b"user%d@example.com" % one for one in range(300)]
    lines = fold(b"To: " + b",".join(listed)).split(b"\r\n")

    assert max(map(len, lines)) <= 998
    assert [one for line in lines[1:] for one in line.strip(b" ,").split(b",")] == listed


def test_folding_never_makes_an_empty_line():
    """White space alone would end the header section."""
    assert all(piece.strip() for piece in fold(b"X:" + b" " * 3000 + b"y").split(b"\r\n"))
    assert fold(b"X: y" + b" " * 1000) == b"X: y" + b" " * 993
    assert fold(b"X: y" + b" " * 3000) == b"X: y" + b" " * 993


def test_measures_decide():
    """Clean content never comes here."""
    assert not must_recode(998, eight_bit=True, eight_bit_ok=True)
    assert must_recode(999, eight_bit=False, eight_bit_ok=True)
    assert must_recode(10, eight_bit=True, eight_bit_ok=False)


LINE = st.one_of(
    st.binary(max_size=40).map(lambda octets: re.sub(rb"[\r\n]", b"", octets)),
    st.integers(900, 3000).map(lambda count: b"long " * (count // 5)),
    st.integers(900, 3000).map(lambda count: b"x" * count),
    st.sampled_from([b"", b".", b"From me", b"trailing  ", b"=", "Köln".encode(), b"--"]),
)
BROKEN = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b0",
        b'Content-Type: multipart/mixed; boundary="b\xfc"',
        b"Content-Type: message/rfc822",
        b"--b0",
        b"--b0--",
        b"--b\xfc",
        b" folded",
    ]
)
BODY = st.lists(LINE, max_size=6).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@st.composite
def entities(draw, depth: int = 0):
    """A MIME entity, perhaps of several parts, with whatever in it."""
    kind = draw(
        st.sampled_from(["text", "binary", "none", "message", "multipart"] if depth < 2 else ["text", "binary", "none"])
    )
    cte = draw(st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n", b"Content-Transfer-Encoding: 7BIT\r\n"]))
    if kind == "multipart":
        boundary = b"b%d" % depth
        parts = draw(st.lists(entities(depth + 1), min_size=1, max_size=3))
        body = b"".join(b"--" + boundary + b"\r\n" + part for part in parts) + b"--" + boundary + b"--\r\n"
        return b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n" + cte + b"\r\npreamble\r\n" + body
    if kind == "message":
        return b"Content-Type: message/rfc822\r\n" + cte + b"\r\n" + draw(entities(depth + 1))
    declared = {
        "text": b"Content-Type: text/plain; charset=utf-8\r\n",
        "binary": b"Content-Type: image/gif\r\n",
        "none": b"",
    }
    return declared[kind] + cte + b"\r\n" + draw(BODY)


@given(
    content=entities().map(lambda entity: b"MIME-Version: 1.0\r\n" + entity),
    eight_bit_ok=st.booleans(),
    size=st.integers(1, 2000),
)
def test_a_reader_sees_the_same(content, eight_bit_ok, size):
    """Any structure, any octets, any chunking: what Python's own reader decodes does not change."""
    octets = recoded(content, eight_bit_ok=eight_bit_ok)

    assert_travels(octets, eight_bit_ok=eight_bit_ok)
    assert recoded(content, eight_bit_ok=eight_bit_ok, size=size) == octets
    assert leaves(octets) == leaves(content)


@given(lines=st.lists(LINE | BROKEN), eight_bit_ok=st.booleans())
def test_any_octets_come_out_as_lines_that_travel(lines, eight_bit_ok):
    """No content is too broken."""
    assert_travels(
        recoded(b"".join(line + b"\r\n" for line in lines), eight_bit_ok=eight_bit_ok), eight_bit_ok=eight_bit_ok
    )
