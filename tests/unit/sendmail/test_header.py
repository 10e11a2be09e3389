"""The header section: where it ends, who is named in it, what is added and what is taken out."""

import email.header
import email.utils
import os
import re
from datetime import UTC, datetime

import pytest

from relay.sendmail.failure import Failure
from relay.sendmail.header import Header, find_end, phrase

COMPLETE = b"From: a@b.c\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nMessage-ID: <1@b.c>\n"


@pytest.mark.parametrize(
    ("octets", "header", "content"),
    [
        (b"A: 1\nB: 2\n\nbody\n", b"A: 1\nB: 2\n", b"body\n"),
        (b"A: 1\n\n", b"A: 1\n", b""),
        (b"\nbody\n", b"", b"body\n"),
        (b"A: 1\n fold\n\tfold\nB : 2\n\nbody\n", b"A: 1\n fold\n\tfold\nB : 2\n", b"body\n"),
        (b"just text\n", b"", b"just text\n"),
        (b"A: 1\nno field\nBcc: x\n", b"A: 1\n", b"no field\nBcc: x\n"),
        (b" fold of nothing\nA: 1\n", b"", b" fold of nothing\nA: 1\n"),
        (b"From a@b.c  Thu Jan  1\n>From x\nA: 1\n\nbody\n", b"From a@b.c  Thu Jan  1\n>From x\nA: 1\n", b"body\n"),
        (b".\n", b"", b".\n"),
    ],
)
def test_the_header_ends_with_the_first_line_that_is_no_field(octets, header, content):
    """An empty line between the two is neither's; any other line is content."""
    end = find_end(octets, 0)

    assert end is not None
    assert (octets[: end[0]], octets[end[1] :]) == (header, content)


@pytest.mark.parametrize("octets", [b"", b"A: 1\n", b"A: 1\n B", b"A: 1\nB", b"text without end"])
def test_the_end_is_not_seen_before_it_is_there(octets):
    """A line counts when it is whole."""
    assert find_end(octets, 0) is None


def test_the_line_of_a_mailbox_file_is_dropped():
    """It is no field."""
    assert bytes(Header(b"From a@b.c  Thu Jan  1 00:00:00 2026\nA: 1\n")) == b"A: 1\n"


def test_a_first_field_with_white_space_before_its_colon_is_no_line_of_a_mailbox_file():
    """RFC 5322, section 4.5: the author stays who it is."""
    header = Header(b"From : a@b.c\nA: 1\n")

    assert bytes(header) == b"From : a@b.c\nA: 1\n"
    assert header.has(b"from")


def test_recipients_come_from_to_cc_and_bcc():
    """In any case, folded, several fields of one name."""
    header = Header(
        b"TO: a@b.c,\n Jane\n <d@e.f>\nsubject: x@y.z\ncc : g@h.i\n"
        b"To: j@k.l\nBcc: friends: m@n.o, p@q.r;\nReply-To: x@y.z\n"
    )

    assert header.recipients() == ["a@b.c", "d@e.f", "g@h.i", "j@k.l", "m@n.o", "p@q.r"]


def test_a_message_sent_again_goes_to_whom_it_is_sent_again():
    """RFC 5322, section 3.6.6; as Postfix does it."""
    header = Header(b"Resent-To: a@b.c\nResent-Bcc: d@e.f\nTo: x@y.z\nCc: x@y.z\n")

    assert header.recipients() == ["a@b.c", "d@e.f"]


def test_a_field_that_cannot_be_read_is_named():
    """And nothing is sent."""
    with pytest.raises(Failure, match=r"Resent-To: 'Jane Doe' is no address") as caught:
        Header(b"Resent-To: Jane Doe\n").recipients()

    assert caught.value.status == os.EX_DATAERR


def test_blind_copies_are_taken_out_with_their_folds():
    """Every other octet stays."""
    header = Header(
        b"A: 1\nBcc: a@b.c,\n d@e.f\n\t,g@h.i\nBCC:x@y.z\nB: \xff  2\n  3\nresent-bcc : q@r.s\nBcc-Note: 4\n"
    )
    header.remove_blind_copies()

    assert bytes(header) == b"A: 1\nB: \xff  2\n  3\nBcc-Note: 4\n"


def test_nothing_is_added_to_a_complete_header():
    """Octet by octet."""
    header = Header(COMPLETE)
    header.complete(author="x@y.z", full_name="X", domain="y.z")

    assert bytes(header) == COMPLETE


def test_from_date_and_message_id_are_added():
    """Behind what is there, with the caller's name and the present time."""
    header = Header(b"Subject: x\n")
    header.complete(author="cron@example.com", full_name="Cron Daemon", domain="example.com")
    added = bytes(header).decode().splitlines()

    assert added[:2] == ["Subject: x", "From: Cron Daemon <cron@example.com>"]
    moment = email.utils.parsedate_to_datetime(added[2].removeprefix("Date: "))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert re.fullmatch(r"Message-ID: <[0-9a-f.]+@example\.com>", added[3])


def test_addresses_without_a_domain_are_completed():
    """In every field of addresses and nowhere else; names, comments and folds stay, and so does what is no address."""
    header = Header(
        b"from : root (Cron \xff\n Daemon)\nTo: root,\n\tops@d.e\nReply-To: J\xc3\xbcrgen <bob>\nSubject: root\n"
        b"Cc: Jane Doe\nResent-Sender:bob\nDate: x\nMessage-ID: <1@d.e>\n"
    )
    header.complete(author="x@y.z", full_name="", domain="y.z")

    assert bytes(header) == (
        b"from : root@y.z (Cron \xff\n Daemon)\nTo: root@y.z,\n\tops@d.e\nReply-To: J\xc3\xbcrgen <bob@y.z>\n"
        b"Subject: root\nCc: Jane Doe\nResent-Sender:bob@y.z\nDate: x\nMessage-ID: <1@d.e>\n"
    )


def test_without_a_name_the_address_stands_alone():
    """No empty phrase."""
    header = Header(b"")
    header.complete(author="a@b.c", full_name="  ", domain="b.c")

    assert bytes(header).startswith(b"From: a@b.c\n")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Cron Daemon", "Cron Daemon"),
        ("Doe, Jane (x)", '"Doe, Jane (x)"'),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ("a\r\nBcc: x@y.z", '"a Bcc: x@y.z"'),
        ("=?x?", '"=?x?"'),
        ("Jürgen", "=?utf-8?B?SsO8cmdlbg==?="),
    ],
)
def test_a_name_is_written_as_a_header_may_have_it(name, written):
    """Plain, quoted or encoded; a line end in it adds no field."""
    assert phrase(name) == written


def test_a_long_name_becomes_several_encoded_words():
    """Each is within the 75 characters of RFC 2047, on a line of its own, and together they are the name."""
    name = "ジュール・ヴェルヌと彼の驚くべき旅行、世界中を八十日間で"
    written = phrase(name)

    assert all(len(word) <= 75 for word in written.split("\n "))
    assert str(email.header.make_header(email.header.decode_header(written.replace("\n", "")))) == name
