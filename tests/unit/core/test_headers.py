"""The header section as octets: what is read in it, and that nothing but blind copies ever leaves it."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.headers import (
    LONGEST_COMPLETED,
    LONGEST_FROM,
    MOST_FIELDS,
    MOST_MARKS,
    count_received,
    field_values,
    from_addresses,
    with_domains,
    without_blind_copies,
    without_sparkpost_fields,
)


def senders(value: str | bytes) -> list[str] | None:
    """The addresses of a header section with this From field between two others."""
    octets = value if isinstance(value, bytes) else value.encode()
    found = from_addresses(b"Subject: x\r\nFrom:" + octets + b"\r\nTo: other@example.net\r\n")
    return None if found is None else [str(address) for address in found]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" a@b.c", ["a@b.c"]),
        ("a@b.c", ["a@b.c"]),
        (" <a@b.c>", ["a@b.c"]),
        (" Jane Doe <a@b.c>", ["a@b.c"]),
        (" Jane Q. Doe <a@b.c>", ["a@b.c"]),
        (' "Doe, Jane <x@y.z>" <a@b.c>', ["a@b.c"]),
        (' "Jane \\"x@y.z\\" Doe" <a@b.c>', ["a@b.c"]),
        (" (the (real) x@y.z) Jane <a@b.c> (x@y.z \\) z@y.x)", ["a@b.c"]),
        ("\r\n Jane\r\n\tDoe\r\n <a@b.c>", ["a@b.c"]),
        (" =?utf-8?Q?J=C3=BCrgen=2C_x=40y.z?= <a@b.c>", ["a@b.c"]),
        (" =?utf-8?B?SsO8cmdlbg==?= =?utf-8?B?RG9l?= <a@b.c>", ["a@b.c"]),
        (" Jürgen <a@b.c>", ["a@b.c"]),
        (b" J\xfcrgen <a@b.c>", ["a@b.c"]),
        (" a@b.c, Jane <d@e.f>", ["a@b.c", "d@e.f"]),
        (" a@b.c,, <d@e.f>,", ["a@b.c", "d@e.f"]),
        (" the board: Jane <a@b.c>, d@e.f; , g@h.i", ["a@b.c", "d@e.f", "g@h.i"]),
        (' "a b"@c.d', ['"a b"@c.d']),
        (" a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        (" a (x) @ b.c", ["a@b.c"]),
    ],
)
def test_the_header_from_is_read(value, expected):
    """Folds, comments, quoted and encoded display names, groups and lists hide no address and invent none."""
    assert senders(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" Doe, Jane <a@b.c>", ["a@b.c"]),
        (" [support] Jane <a@b.c>", ["a@b.c"]),
        (" a@b.c <a@b.c>", ["a@b.c", "a@b.c"]),
        (" x@y.z <a@b.c>", ["x@y.z", "a@b.c"]),
    ],
)
def test_display_names_without_their_quotes(value, expected):
    """What applications often write is taken; an address in the place of a name counts as an address."""
    assert senders(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        " Jane Doe",
        " nobody:;",
        " a@b.c <",
        " <a@b.c",
        " a@b.c>",
        " <a@b.c> <d@e.f>",
        " <a@b.c> Jane",
        " <@x.y:a@b.c>",
        " a@b@c.d",
        " @b.c",
        " a@",
        ' "a@b.c',
        " (a@b.c",
        " a@b.c)",
        " a\\@b.c",
        " g: a@b.c",
        " a@b.c;",
        " jürgen@b.c",
        " a@bücher.example",
        " =?utf-8?Q?x=40y.z?=@b.c",
        " =?utf-8?Q?x@y.z?= <a@b.c>",
        " a@b.c\x00",
        " " + "x" * LONGEST_FROM + " <a@b.c>",
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(value):
    """Unclosed brackets, routes, encoded words within addresses, no address at all."""
    assert senders(value) is None


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Subject: x\r\n",
        b"From: a@b.c\r\nFrom: a@b.c\r\n",
        b"From: a@b.c\r\nfrom : d@e.f\r\n",
        b"From: a@b.c\r\nno field\r\nFROM:d@e.f\r\n",
        b"From me@example.com Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n",
        b"X-From: a@b.c\r\nFromage: a@b.c\r\n",
        b"Subject: x\r\n From: a@b.c\r\n",
    ],
)
def test_exactly_one_from_field_is_wanted(header):
    """None, several, or something that only looks like one: nobody can say who the sender is."""
    assert from_addresses(header) is None


def test_the_from_line_of_a_mailbox_file_is_no_field():
    """It may stand on top without hiding the header From."""
    header = b"From x@y.z Mon Jan  1 00:00:00 2024\r\nFrom: a@b.c\r\n"

    assert [str(address) for address in from_addresses(header) or ()] == ["a@b.c"]


def test_received_lines_are_counted():
    """In any case, with white space before the colon, folded; not in a fold, not in a longer name."""
    header = (
        b"Received: from a\r\n\tby b\r\nRECEIVED : x\r\nX: y\r\n Received: z\r\nReceived-SPF: pass\r\nreceived:\r\n"
    )

    assert count_received(header) == 3


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"To: a\r\nBcc: b\r\nSubject: c\r\n", b"To: a\r\nSubject: c\r\n"),
        (b"Bcc: b\r\n", b""),
        (b"BCC \t: b,\r\n c,\r\n\td\r\nTo: a\r\n", b"To: a\r\n"),
        (b"bcc:\r\n \r\n b\r\nTo: a\r\n", b"To: a\r\n"),
        (b"To: a\r\nResent-Bcc: b\r\nresent-bcc:c\r\n", b"To: a\r\n"),
        (b"Bcc: b\r\nBcc: c\r\nTo: a\r\n", b"To: a\r\n"),
        (
            b"From x Mon Jan  1\r\nBcc: b\r\nno field\r\nBcc: c\r\nTo: a\r\n",
            b"From x Mon Jan  1\r\nno field\r\nTo: a\r\n",
        ),
        (b" a fold\r\nBcc: b\r\nTo: a\r\n", b" a fold\r\nTo: a\r\n"),
        (b"To: a\r\n Bcc: b\r\n", b"To: a\r\n Bcc: b\r\n"),
        (b"X-Bcc: b\r\nBcc-To: c\r\nBcc\r\n", b"X-Bcc: b\r\nBcc-To: c\r\nBcc\r\n"),
        (b"", b""),
    ],
)
def test_blind_copies_are_taken_out(header, expected):
    """The fields with all their folds, in any case; what only resembles them stays."""
    assert without_blind_copies(header) == expected


NAMES = st.sampled_from([b"To", b"Subject", b"X-Bcc", b"Bcc-X", b"DKIM-Signature", b"From", b"bc"])
BLIND_NAMES = st.sampled_from([b"Bcc", b"BCC", b"bcc ", b"Resent-Bcc", b"RESENT-BCC\t"])
VALUES = st.lists(st.binary(max_size=20).map(lambda line: re.sub(rb"[\r\n]", b"?", line)), min_size=1, max_size=4).map(
    b"\r\n\t".join
)


def fields(names):
    return st.builds(lambda name, value: name + b":" + value + b"\r\n", names, VALUES)


JUNK = st.sampled_from([b"no field\r\n", b"From x Mon Jan  1\r\n", b":\r\n", b"\xff\xfe\r\n", b"Bcc\r\n"])


@given(st.lists(st.one_of(fields(NAMES).map(lambda field: (field, True)), JUNK.map(lambda line: (line, True)),
                          fields(BLIND_NAMES).map(lambda field: (field, False)))))  # fmt: skip
def test_everything_else_stays_as_it_was(parts):
    """Whatever stands around blind copies keeps every octet and its order."""
    header = b"".join(part for part, _ in parts)

    assert without_blind_copies(header) == b"".join(part for part, stays in parts if stays)


@given(st.binary(max_size=300))
@example(b"From: (\\")
@example(b"From: [")
def test_no_octets_are_too_strange(octets):
    """Reading never fails, taking out is done after one pass, and an address that is read is one."""
    header = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    kept = without_blind_copies(header)

    assert without_blind_copies(kept) == kept
    assert all(address.local and address.domain for address in from_addresses(b"From: " + header) or ())


ALPHABET = st.lists(
    st.sampled_from(["a", "a@b.c", '"q"', "@", "<", ">", ",", ":", ";", "(", ")", " ", "\r\n ", "[1]", "\\", '"']),
    max_size=12,
).map("".join)


@given(ALPHABET)
def test_every_at_sign_is_accounted_for(value):
    """Whatever is read, no `@` outside quotes and comments belongs to an address that was not."""
    found = senders(value)
    bare = re.sub(r'"[^"\\]*"', "q", value)

    if found is not None and "(" not in bare and "\\" not in value:
        assert len(found) == bare.count("@") > 0


def test_what_is_for_sparkpost_itself_is_found_and_taken_out():
    """X-MSYS-… and X-Binding, in any case, with their folds; what only looks alike stays."""
    mine = b"Subject: X-MSYS-API: x\r\nX-MSYSAPI: y\r\nX-Bindings: z\r\n"
    theirs = b'x-msys-api : {"a":\r\n 1}\r\nX-MSYS-SUBACCOUNT: 5\r\nX-BINDING:b\r\n\tc\r\n'

    odd = b"X-MSYS-API\x0b: {}\r\nX-Binding \x00: b\r\n"

    assert without_sparkpost_fields(theirs + odd + mine + theirs) == mine
    assert field_values(theirs + mine, b"X-MSYS-API") == [b' {"a":\r\n 1}\r']


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"From: scanner\r\n", b"From: scanner@b.c\r\n"),
        (b"FROM:\r\n\tscanner (1st floor)\r\n", b"FROM:\r\n\tscanner@b.c (1st floor)\r\n"),
        (b"To : root, Boss <boss>,\r\n a@d.e\r\n", b"To : root@b.c, Boss <boss@b.c>,\r\n a@d.e\r\n"),
        (b"Cc: team: x, y;\r\nReply-To: z\r\n", b"Cc: team: x@b.c, y@b.c;\r\nReply-To: z@b.c\r\n"),
        (b"Resent-From: x\r\nSender: \xe4 <y>\r\n", b"Resent-From: x@b.c\r\nSender: \xe4 <y@b.c>\r\n"),
    ],
)
def test_names_get_a_domain(header, expected):
    """In every field that has addresses, folds and comments where they were."""
    assert with_domains(header, "b.c") == expected


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"From: a@d.e\r\nTo: undisclosed-recipients:;\r\n",
        b"From: John Doe\r\n",
        b"From: =?utf-8?Q?J=C3=BCrgen?=\r\n",
        b"To:\r\nCc: \r\nSubject: root\r\nX-To: root\r\nIn-Reply-To: x\r\n",
        b"From root Mon Jan  1 00:00:00 2024\r\n",
        b"To: <root\r\n",
        b"To: x\xe4\r\n",
    ],
)
def test_what_is_no_list_of_addresses_stays_as_it_was(header):
    """And so does a list whose addresses all have their domain."""
    assert with_domains(header, "b.c") == header


@pytest.mark.parametrize(
    "header",
    [
        b"From: scanner\r\nX: " + b"x" * LONGEST_COMPLETED + b"\r\n",
        b"To: " + b"a," * (MOST_MARKS // 5) + b"a\r\n",
        b"To: " + b"a " * MOST_MARKS + b"<a>\r\n",
        b"To: " + b"()" * MOST_MARKS + b"a\r\n",
        b"To: " + b"(" * MOST_MARKS + b")" * MOST_MARKS + b"a\r\n",
        b"To: a" + b"\r\n ,a" * (MOST_MARKS // 8) + b"\r\n",
    ],
    ids=["header", "addresses", "words", "comments", "nested comments", "folds"],
)
def test_what_would_take_too_long_to_read_stays_as_it_was(header):
    """Nobody else's mail waits for it."""
    assert with_domains(header, "b.c") == header


def test_what_takes_too_long_takes_no_other_field_along():
    """The rest is completed, as long as there is time and fields are not too many."""
    huge = b"To: " + b"a," * MOST_MARKS + b"a\r\n"
    fields = b"Cc: x\r\n" * (MOST_FIELDS - 2)

    after = with_domains(b"From: scanner\r\n" + huge + fields + b"Cc: y\r\n", "b.c")

    assert after == b"From: scanner@b.c\r\n" + huge + fields.replace(b"x", b"x@b.c") + b"Cc: y\r\n"


def test_a_thousand_recipients_are_completed():
    """With names that need quotes, each on a line of its own."""
    header = b"From: scanner\r\nTo: " + b",\r\n ".join(b'"Doe, J." <d%d>' % one for one in range(1000)) + b"\r\n"

    assert with_domains(header, "b.c").count(b"@b.c") == 1001


@given(
    st.lists(st.sampled_from([*b' ,;:<>()@a\\\xe4"', *b"\r\n"]).map(lambda one: bytes([one])), max_size=40).map(
        b"".join
    )
)
def test_nothing_but_domains_is_put_in(value):
    """Whatever stands there: without the domain that was put in, every octet is where it was, and no line is new."""
    header = b"Subject: s\r\nTo: " + value + b"\r\nX: y\r\n"
    after = with_domains(header, "b.c")

    assert after.replace(b"@b.c", b"") == header
    assert after.count(b"\n") == header.count(b"\n")
