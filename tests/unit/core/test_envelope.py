"""Paths and parameters: strict where leniency would change the meaning, kind where it would not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.envelope import (
    MAX_PATH,
    Address,
    Home,
    InternationalAddress,
    Path,
    PathError,
    parse_parameters,
    read_path,
    split_path,
)
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("<a@b.c>", Path("a@b.c", True, False, "")),
        (" <a@b.c>", Path("a@b.c", True, True, "")),
        ("<>", Path("", True, False, "")),
        ("<a@b.c> SIZE=1 BODY=7BIT", Path("a@b.c", True, False, " SIZE=1 BODY=7BIT")),
        ("a@b.c SIZE=1", Path("a@b.c", False, False, "SIZE=1")),
        ("< a@b.c >", Path("a@b.c", True, False, "")),
        ("<@one.example,@two.example:a@b.c>", Path("a@b.c", True, False, "")),
        ('<"a>b"@c.d> RET=HDRS', Path('"a>b"@c.d', True, False, " RET=HDRS")),
    ],
)
def test_split_path(argument, expected):
    """Path and parameters come apart."""
    assert split_path(argument) == expected


@pytest.mark.parametrize(
    "argument", ["<a@b.c", "<a@b.c>SIZE=1", "", "   ", "Name <a@b.c>", "a@b.c>", '<"a@b.c>', "<@a.b:>"]
)
def test_paths_that_are_refused(argument):
    """An unclosed bracket, a display name, nothing at all, a source route to nobody."""
    with pytest.raises(PathError):
        Address.parse(split_path(argument).text)


def test_a_source_route_to_nobody_is_not_the_null_reverse_path():
    """Which nobody would get a report of."""
    with pytest.raises(PathError, match="source route"):
        read_path("<@a.b:>")


@pytest.mark.parametrize(
    "text",
    [
        "a@b.c",
        "a.b+c=d@e-f.example",
        '"a b"@c.d',
        '"a\\"b@c"@d.e',
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "a..b@c.d",
        "a@c_d.e",
    ],
)
def test_addresses_survive_verbatim(text):
    """What can be read is kept as it was written."""
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("argument", ["<a@b.example.>", "a@b.example. SIZE=1", "<@c.d:a@b.example.>", "<a@b.example>"])
def test_a_dot_behind_the_domain_is_dropped_and_shown(argument):
    """It is no part of a Domain (RFC 5321 §4.1.2): SparkPost refuses it, and no pattern of an identity has it."""
    path = read_path(argument)

    assert str(path.address) == "a@b.example"
    assert (Tolerance.TRAILING_DOT in path.tolerances) is ("example." in argument)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a@",
        "@b.c",
        "a b@c.d",
        "a@b..c",
        "a@b.c..",
        "a@.",
        "a@[192.0.2.1].",
        "a@-b.c",
        "a,b@c.d",
        "a@b c",
        "a@b.c,d@e.f",
        "(x)a@b.c",
        "a@b@c",
        "a" * 400 + "@b.c",
    ],
)
def test_bad_addresses(text):
    """What could be read in two ways is not read at all."""
    with pytest.raises(PathError):
        Address.parse(text)


def test_international_addresses_are_told_apart():
    """They need SMTPUTF8, which has a reply of its own."""
    with pytest.raises(InternationalAddress):
        Address.parse("jürgen@example.com")


def test_parameters_keep_their_case():
    """Keywords are case-blind, values are not (ENVID, ORCPT)."""
    assert parse_parameters(" size=10 EnvId=AbC NOTIFY=never flag") == {
        "SIZE": "10",
        "ENVID": "AbC",
        "NOTIFY": "never",
        "FLAG": None,
    }


@pytest.mark.parametrize("rest", [" =1", " SIZE=", " SIZE=1 size=2", " A=b=c", " -X=1"])
def test_malformed_parameters(rest):
    """Malformed and repeated parameters are refused by name."""
    assert isinstance(parse_parameters(rest), Reply)


@given(st.text(max_size=80))
def test_the_parser_never_fails_otherwise(text):
    """Any argument gives an address or a PathError, and what is read has one `@` outside quotes."""
    try:
        address = Address.parse(split_path(text).text)
    except PathError:
        return

    assert "@" not in address.domain
    assert str(address).isascii()


def test_a_name_may_be_no_longer_with_its_domain_than_any_address():
    """What is taken can be read again from the spool."""
    home = Home("example.com")
    longest = "x" * (MAX_PATH - len("@example.com"))

    assert str(read_path(f"<{longest}>", home).address) == f"{longest}@example.com"
    with pytest.raises(PathError, match="longer than"):
        read_path(f"<{longest}x>", home)
