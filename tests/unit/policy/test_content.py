"""What leaves: the Received line on top, no blind copies, everything else as it came."""

import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.envelope import Address, Recipient
from relay.core.message import Content
from relay.core.tolerance import Tolerance
from relay.policy.content import Trace, missing, prepare, received, way_of

EPOCH = 1_700_000_000.75  # Tue, 14 Nov 2023 22:13:20 +0000
ONE = (Recipient(Address("customer", "example.net")),)


def trace(
    *,
    helo: str = "app.example.com",
    peer: str = "192.0.2.1",
    protocol: str = "ESMTPSA",
    recipients: tuple[Recipient, ...] = ONE,
    epoch: float = EPOCH,
) -> Trace:
    way = way_of(helo, peer, "relay.example.com", protocol)
    return Trace(way, "relay.example.com", "01HFQ7XK3M9ABC", recipients, epoch)


TRACE = trace()


@dataclass(frozen=True)
class Octets:
    """A body in memory."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    def chunks(self) -> Iterator[bytes]:
        yield self.octets

    def close(self) -> None:
        pass


def content(header: bytes, body: bytes = b"\r\nbody\r\n") -> Content:
    longest = max(map(len, (header + body).split(b"\r\n")))
    return Content(header, Octets(body), longest_line=longest, eight_bit=not (header + body).isascii())


def test_the_received_line():
    """From, by, with, id, for and the date in UTC, as RFC 5321 §4.4 has them."""
    assert received(TRACE) == (
        b"Received: from app.example.com ([192.0.2.1])\r\n"
        b"\tby relay.example.com with ESMTPSA id 01HFQ7XK3M9ABC\r\n"
        b"\tfor <customer@example.net>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_several_recipients_are_not_shown():
    """`for` would tell each of them about the others."""
    several = (*ONE, Recipient(Address("hidden", "example.net")))

    assert received(trace(recipients=several, protocol="SMTP")) == (
        b"Received: from app.example.com ([192.0.2.1])\r\n"
        b"\tby relay.example.com with SMTP id 01HFQ7XK3M9ABC;\r\n"
        b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_ipv6_clients():
    """Their address literal has its tag."""
    assert b"([IPv6:2001:db8::1])" in received(trace(peer="2001:db8::1"))


@pytest.mark.parametrize(
    ("helo", "shown"),
    [
        ("MY_PC", b"MY_PC"),
        ("[192.168.1.5]", b"[192.168.1.5]"),
        ("[IPv6:fe80::1]", b"[IPv6:fe80::1]"),
        ("[open", b"?open"),
        ("a b", b"a?b"),
        ("x (mail.bank.example [203.0.113.5]) by y", b"x??mail.bank.example??203.0.113.5???by?y"),
        ("evil\r\nBcc: x", b"evil??Bcc??x"),
        ("b\xfccher\x00", b"b?cher?"),
        ("", b"unknown"),
        ("x" * 5000, b"x" * 255),
    ],
)
def test_a_helo_name_is_only_a_word(helo, shown):
    """Nothing a client says there can look like a trace of our own."""
    assert received(trace(helo=helo)).startswith(b"Received: from " + shown + b" ([192.0.2.1])\r\n")


@given(
    helo=st.text(max_size=300),
    local=st.from_regex(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", fullmatch=True),
    epoch=st.floats(0, 4e9),
)
def test_the_received_line_is_one_field(helo, local, epoch):
    """Whatever the client is called: one folded field, short lines, printable, and a date that reads as it was."""
    line = received(trace(helo=helo, recipients=(Recipient(Address(local, "example.net")),), epoch=epoch))

    assert re.fullmatch(rb"Received: [\x20-\x7e]+\r\n(?:\t[\x21-\x7e][\x20-\x7e]*\r\n)+", line)
    assert max(map(len, line.split(b"\r\n"))) <= 998
    assert email.utils.parsedate_to_datetime(line.rpartition(b";")[2].decode()).timestamp() == int(epoch)


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: x\r\n",
        b"",
        b" a fold of nothing\r\nSubject: x\r\n",
        b"no field at all\r\n",
        b"From x@y.z Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n",
        b"Received: from elsewhere\r\n",
    ],
)
def test_received_stands_on_top_whatever_follows(header):
    """Also before content without a header section, or with a broken one, which stays as it was."""
    raw = content(header)
    prepared = prepare(raw, TRACE)

    assert b"".join(prepared.chunks()) == received(TRACE) + header + b"\r\nbody\r\n"
    assert prepared.size == raw.size + len(received(TRACE))


def test_empty_content():
    """A message of nothing becomes a message of one field."""
    assert b"".join(prepare(content(b"", b""), TRACE).chunks()) == received(TRACE)


def test_blind_copies_leave_and_the_body_stays():
    """Only the header section is looked at."""
    prepared = prepare(content(b"To: a\r\nBcc: b,\r\n c\r\n", b"\r\nBcc: d\r\n"), TRACE)

    assert b"".join(prepared.chunks()) == received(TRACE) + b"To: a\r\n\r\nBcc: d\r\n"


def test_the_measures_cover_the_new_line():
    """`longest_line` is never less than the longest line that leaves."""
    longest = Recipient(Address("x" * 64, ".".join(["y" * 63] * 4)))
    prepared = prepare(
        content(b"A: b\r\n", b""), trace(helo="x" * 255, peer="2001:db8::" + "1:" * 5 + "1", recipients=(longest,))
    )

    assert max(map(len, prepared.header.splitlines())) <= prepared.longest_line < 998
    assert prepare(content(b"", b"\r\n" + b"y" * 900 + b"\r\n"), TRACE).longest_line == 900


def test_a_client_on_a_unix_socket_has_no_address():
    """Which user it was is for the log, and not for whoever gets the mail."""
    line = received(trace(peer=""))

    assert line.startswith(b"Received: from app.example.com (local socket)\r\n\tby relay.example.com with ESMTPSA id ")


@pytest.mark.parametrize(
    ("header", "lacks"),
    [
        (b"Date: x\r\nMessage-ID: y\r\n", ()),
        (b"From: a\r\nDATE : x\r\nmessage-id\t: y\r\n", ()),
        (b"From: a\r\n", (Tolerance.NO_DATE, Tolerance.NO_MESSAGE_ID)),
        (b"X-Date: x\r\nResent-Date: x\r\nMessage-ID: y\r\n", (Tolerance.NO_DATE,)),
        (b"Date: x\r\nReferences: y\r\n Message-ID: z\r\n", (Tolerance.NO_MESSAGE_ID,)),
        (b"", (Tolerance.NO_DATE, Tolerance.NO_MESSAGE_ID)),
    ],
)
def test_what_a_message_lacks(header, lacks):
    """Its fields are found in any case, and only at the beginning of a line."""
    assert missing(header) == lacks


def test_date_and_message_id_are_added_where_they_are_missing():
    """Below our Received line; the queue id makes the Message-ID unlike any other."""
    raw = content(b"From: a\r\n")

    assert prepare(raw, TRACE, missing(raw.header)).header == (
        received(TRACE) + b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        b"Message-ID: <01HFQ7XK3M9ABC@relay.example.com>\r\nFrom: a\r\n"
    )


def test_a_fold_with_nothing_to_be_folded_to_does_not_become_part_of_what_is_added():
    """It becomes one of Received, as before."""
    raw = content(b" odd\r\nFrom: a\r\n")

    assert prepare(raw, TRACE, missing(raw.header)).header.endswith(received(TRACE) + b" odd\r\nFrom: a\r\n")


ASKED = b'X-MSYS-API: {"campaign_id": "x"}\r\n'


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (b"From: a\r\n", b"From: a\r\n"),
        (b'From: a\r\nx-msys-api : {"tags":\r\n\t[]}\r\nTo: b\r\n', b"From: a\r\nTo: b\r\n"),
        (b"X-MSYS-API: {}\r\nX-MSYS-API-Not: x\r\n", b"X-MSYS-API-Not: x\r\n"),
        (b"no field\r\nX-MSYS-API: {}\r\n", b"no field\r\n"),
    ],
)
def test_what_sparkpost_is_asked_takes_the_place_of_what_was_there(header, rest):
    """One field, below our Received line; every other octet is as it was."""
    assert prepare(content(header), TRACE, asked=ASKED).header == received(TRACE) + ASKED + rest


def test_what_sparkpost_is_asked_is_no_part_of_a_fold():
    """As with all that is added."""
    assert prepare(content(b" odd\r\nFrom: a\r\n"), TRACE, asked=ASKED).header.endswith(
        ASKED + received(TRACE) + b" odd\r\nFrom: a\r\n"
    )


def test_a_long_text_that_sparkpost_is_asked_counts_as_a_line():
    """Whoever re-encodes goes by the longest line."""
    assert prepare(content(b"From: a\r\n"), TRACE, asked=b"X-MSYS-API:\r\n " + b"x" * 900 + b"\r\n").longest_line == 901
