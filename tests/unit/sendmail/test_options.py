"""The command line of sendmail(8), in the forms that decades of callers use."""

import os

import pytest

from relay.sendmail.failure import Failure
from relay.sendmail.options import HEEDED, IGNORED, LIST, NOTHING_TO_DO, SEND, SMTP, VALUE, parse


def refused(*arguments: str) -> str:
    """What a command line that is not taken gets to hear; the status is EX_USAGE."""
    with pytest.raises(Failure) as caught:
        parse("sendmail", list(arguments))
    assert caught.value.status == os.EX_USAGE
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "sender", "name", "from_header", "dot_ends", "recipients"),
    [
        ("-FCronDaemon -i -odi -oem -oi -t -f root", "root", "CronDaemon", True, False, []),
        ("-FCronDaemon -i -B8BITMIME -oem root", None, "CronDaemon", False, False, ["root"]),
        ("-t -i", None, None, True, False, []),
        ("-ti", None, None, True, False, []),
        ("-oem -oi -- a@b.c -x@y.z", None, None, False, False, ["a@b.c", "-x@y.z"]),
        ("-oi -f a@b.c -- d@e.f", "a@b.c", None, False, False, ["d@e.f"]),
        ("-fa@b.c d@e.f", "a@b.c", None, False, True, ["d@e.f"]),
        ("-r a@b.c d@e.f", "a@b.c", None, False, True, ["d@e.f"]),
        ("-ra@b.c d@e.f", "a@b.c", None, False, True, ["d@e.f"]),
        ("-itfa@b.c", "a@b.c", None, True, False, []),
        ("d@e.f -f a@b.c g@h.i", "a@b.c", None, False, True, ["d@e.f", "g@h.i"]),
        ("-bm -odb -oee -v -N never -R hdrs -V id -O x=y d@e.f", None, None, False, True, ["d@e.f"]),
        ("-O IgnoreDots=True d@e.f", None, None, False, False, ["d@e.f"]),
        ("-Oi d@e.f", None, None, False, False, ["d@e.f"]),
        ("-Am -d0.1 -h 5 -L tag -X /var/log/x -e m -G -n -m -U -x d@e.f", None, None, False, True, ["d@e.f"]),
    ],
)
def test_what_callers_write_is_understood(line, sender, name, from_header, dot_ends, recipients):
    """Joined letters, values in the same word or the next, options behind recipients, and `--`."""
    asked = parse("sendmail", line.split())

    assert asked.mode == SEND
    assert (asked.sender, asked.full_name) == (sender, name)
    assert (asked.from_header, asked.dot_ends) == (from_header, dot_ends)
    assert asked.recipients == recipients


@pytest.mark.parametrize("letter", sorted(IGNORED))
def test_an_option_without_meaning_here_is_taken_with_its_value(letter):
    """And what follows is still what it was."""
    value = ["value"] if IGNORED[letter] is VALUE else []
    asked = parse("sendmail", [f"-{letter}", *value, "-f", "a@b.c", "d@e.f"])

    assert (asked.sender, asked.recipients) == ("a@b.c", ["d@e.f"])


@pytest.mark.parametrize(
    ("name", "arguments", "mode"),
    [
        ("sendmail", ["-bs"], SMTP),
        ("sendmail", ["-bp"], LIST),
        ("mailq", [], LIST),
        ("sendmail", ["-bi"], NOTHING_TO_DO),
        ("sendmail", ["-I"], NOTHING_TO_DO),
        ("newaliases", [], NOTHING_TO_DO),
        ("sendmail", ["-q"], NOTHING_TO_DO),
        ("sendmail", ["-q15m"], NOTHING_TO_DO),
        ("sendmail", ["-qIABC"], NOTHING_TO_DO),
        ("relay-sendmail", ["-ba"], SEND),
    ],
)
def test_the_mode_follows_from_name_and_option(name, arguments, mode):
    """A link called mailq or newaliases is enough."""
    assert parse(name, arguments).mode == mode


@pytest.mark.parametrize("line", ["-q a@b.c", "a@b.c -q15m", "-t -q", "-bi a@b.c", "-bp -t", "-bs a@b.c"])
def test_a_message_is_not_lost_to_a_mode_that_sends_none(line):
    """As with Postfix, whoever names recipients means to send."""
    assert "Nothing was sent" in refused(*line.split())


def test_values_for_dsn_are_written_as_smtp_has_them():
    """Upper case, and the envelope id as xtext (RFC 3461, section 4)."""
    asked = parse("sendmail", ["-N", "failure,delay", "-R", "hdrs", "-V", "a+b=c d"])

    assert (asked.notify, asked.ret, asked.envid) == ("FAILURE,DELAY", "HDRS", "a+2Bb+3Dc+20d")


@pytest.mark.parametrize(
    "line", ["-Z", "-t -Z", "--help", "-f", "-N never,delay", "-N sometimes", "-R all", "-bx", "-b", f"-V {'x' * 101}"]
)
def test_what_is_not_understood_is_wrong_use(line):
    """It says which word."""
    assert line.split()[0].lstrip("-")[0] in refused(*line.split())


def test_a_daemon_is_refused_with_a_hint():
    """This program is not it."""
    assert "sparkpost-relay serve" in refused("-bd", "-q30m")


def test_an_envelope_id_cannot_carry_a_command():
    """A line end in it is encoded like any other octet that is no plain character."""
    assert parse("sendmail", ["-V", "x\r\nRSET"]).envid == "x+0D+0ARSET"


def test_no_letter_is_in_both_tables():
    """An option is heeded or it is not."""
    assert not set(HEEDED) & set(IGNORED)
