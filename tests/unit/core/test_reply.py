"""Replies as values."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import reply
from relay.core.reply import MAX_LINE, EnhancedCode, Reply

CATALOGUE = [value for value in vars(reply).values() if isinstance(value, Reply)]
MADE = [
    reply.greeting("relay.example"),
    reply.hello("relay.example"),
    reply.not_in_networks("192.0.2.1"),
    reply.too_many_connections(5),
    reply.too_many_connections_from("192.0.2.1", 5),
    reply.auth_challenge("VXNlcm5hbWU6"),
    reply.auth_unavailable("no route"),
    reply.sender_syntax("no domain"),
    reply.recipient_syntax("no domain"),
    reply.parameter_unknown("X"),
    reply.parameter_malformed("SIZE"),
    reply.too_many_recipients(5),
    reply.sender_not_allowed("header From", "a@b.c", "billing"),
    reply.header_from_unusable("billing"),
    reply.line_too_long(5),
    reply.message_too_large(5),
    reply.sparkpost_unreachable("no route", "Q"),
    reply.login_refused("default", "535 5.7.8 Sorry.", "Q"),
    reply.own_key_refused("535 5.7.8 Sorry.", "Q"),
    reply.relay_misconfigured("503", "Q"),
    reply.message_not_sent("Q"),
    reply.maybe_delivered("connection lost", "Q"),
]


@pytest.mark.parametrize("answer", [*CATALOGUE, *MADE], ids=str)
def test_every_reply_is_well_formed(answer):
    """Each reply of the catalogue has a legal code, an enhanced code of its class, and fits its line unshortened."""
    assert re.fullmatch(rb"[2345]\d\d [\x20-\x7e]+\r\n", answer.wire())
    assert answer.wire() == str(answer).encode() + b"\r\n"
    assert len(answer.wire()) <= 200
    if answer.enhanced is not None:
        assert answer.enhanced.klass == answer.code // 100
    else:
        assert answer.code in {220, 250, 334, 354}


def test_parse_takes_the_enhanced_code_off_each_line():
    """A multi-line reply repeats its enhanced code; the value has it once."""
    answer = Reply.parse(550, ["5.7.1 Unconfigured Sending Domain", "5.7.1 <a.example>"])

    assert answer == Reply(550, EnhancedCode(5, 7, 1), "Unconfigured Sending Domain <a.example>")
    assert str(answer) == "550 5.7.1 Unconfigured Sending Domain <a.example>"


def test_an_enhanced_code_of_another_class_is_only_text():
    """RFC 2034 wants the classes to agree; where they do not, the reply code is believed."""
    assert Reply.parse(250, ["5.7.1 fine"]) == Reply(250, None, "5.7.1 fine")


def test_long_text_is_cut_visibly():
    """A reply is one line of at most 512 octets, and shows when it was cut."""
    wire = Reply(550, EnhancedCode(5, 0, 0), "x" * 600).wire()

    assert len(wire) == MAX_LINE
    assert wire.endswith(b"...\r\n")


def test_ehlo_is_one_piece():
    """Many lines, one value to write."""
    assert reply.multiline(250, ["relay", "PIPELINING", "SIZE 1"]) == b"250-relay\r\n250-PIPELINING\r\n250 SIZE 1\r\n"


@given(st.integers(200, 599), st.text())
def test_whatever_the_text_a_reply_is_one_ascii_line(code, text):
    """Nothing that a peer says can break out of its line in our reply."""
    wire = Reply(code, None, text).wire()

    assert wire.count(b"\r\n") == 1
    assert wire.isascii()
    assert len(wire) <= MAX_LINE
