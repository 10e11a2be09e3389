"""Lists of addresses: what is read out of them, and what is not guessed at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.addresses import AddressError, completed, key, parse_list


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b.c", ["a@b.c"]),
        ("root", ["root"]),
        ("a@b.c, d@e.f", ["a@b.c", "d@e.f"]),
        ("a@b.c; d@e.f", ["a@b.c", "d@e.f"]),
        (",a@b.c,,", ["a@b.c"]),
        ("", []),
        ("<>", []),
        ("Jane Doe <a@b.c>", ["a@b.c"]),
        ("Jane <root>", ["root"]),
        ('"Doe, Jane <x@y.z>" <a@b.c>, d@e.f', ["a@b.c", "d@e.f"]),
        ('"quoted \\" local, part"@b.c', ['"quoted \\" local, part"@b.c']),
        ('<"a b"@c.d>', ['"a b"@c.d']),
        ("a@b.c (Jane, (the real) Doe)", ["a@b.c"]),
        ("(x@y.z) a@b.c", ["a@b.c"]),
        ("x@y.z <a@b.c>", ["a@b.c"]),
        ("friends: a@b.c, Jane <d@e.f>;, g@h.i", ["a@b.c", "d@e.f", "g@h.i"]),
        ("undisclosed-recipients:;", []),
        ("Undisclosed recipients: ;", []),
        ("<@relay.example,@other.example:a@b.c>", ["a@b.c"]),
        ("mailto:a@b.c", ["a@b.c"]),
        ("a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        ("a@[IPv6:2001:db8::1], d@e.f", ["a@[IPv6:2001:db8::1]", "d@e.f"]),
        ("=?utf-8?Q?J=C3=BCrgen=2C?= <a@b.c>", ["a@b.c"]),
        ("Jürgen Müller <a@b.c>", ["a@b.c"]),
        ("a @ b.c", ["a@b.c"]),
        ("a@b.c,\n d@e.f,\n\tJane\n <g@h.i>", ["a@b.c", "d@e.f", "g@h.i"]),
        ("user+tag=x!y%z@b.c", ["user+tag=x!y%z@b.c"]),
    ],
)
def test_addresses_are_read_out_of_what_surrounds_them(text, expected):
    """Names, comments, groups, folds and source routes go."""
    assert parse_list(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Jane Doe",
        "Jane Doe a@b.c",
        "a@b.c d@e.f",
        "a@b@c",
        "<a@b.c",
        "a@b.c>",
        "<a@b.c> <d@e.f>",
        "<a@b.c> Jane",
        '"open <a@b.c>',
        "(open a@b.c",
        "a@",
        "@b.c",
        "a\\b@c.d",
        "jürgen@b.c",
        "a@bücher.example",
        "a\x00@b.c",
        '"a\r\nRCPT TO:<x"@b.c',
        '"a\x7f"@b.c',
        "[192.0.2.1]",
        "a@b.c:d@e.f",
        "Jane <a@b.c>: d@e.f",
        "friends: a@b.c:d@e.f;",
        "@b.c:d@e.f",
    ],
)
def test_what_can_be_understood_in_two_ways_is_an_error(text):
    """Nobody gets mail by a guess, and no line end gets into a command."""
    with pytest.raises(AddressError):
        parse_list(text)


@given(st.text(alphabet=st.sampled_from('ab@<>,:;()[]"\\. \t\r\n\x00é'), max_size=40))
def test_any_text_gives_addresses_fit_for_a_command_or_an_error(text):
    """Printable ASCII, in any case: nothing that could end a line."""
    try:
        found = parse_list(text)
    except AddressError:
        return
    assert all(address.isascii() and address.isprintable() and address for address in found)


def test_a_list_of_many_addresses_takes_time_in_proportion():
    """A hundred thousand are read, and a hundred thousand opened brackets are refused."""
    assert len(parse_list(", ".join(f"Name {n} <r{n}@example.net>" for n in range(100_000)))) == 100_000
    for hostile in ("(" * 100_000, "<" * 100_000, '"' + "\\" * 100_001, "a" * 100_000 + "\\"):
        with pytest.raises(AddressError):
            parse_list(hostile)


def test_only_the_domain_has_no_case():
    """RFC 5321, section 2.4."""
    assert key("A@B.C") == key("A@b.c") != key("a@b.c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root (Cron Daemon)", "root@b.c (Cron Daemon)"),
        ('"(Cron Daemon)" <root>', '"(Cron Daemon)" <root@b.c>'),
        ("root", "root@b.c"),
        ("< root >", "< root@b.c >"),
        (" root ,\n ops@d.e, (x) <bob>;", " root@b.c ,\n ops@d.e, (x) <bob@b.c>;"),
        ("admins: root, ops@d.e;", "admins: root@b.c, ops@d.e;"),
        ('"a@d.e"', '"a@d.e"@b.c'),
        ("<@relay.example:root>", "<@relay.example:root@b.c>"),
        ("=?utf-8?Q?J=C3=BCrgen?=", "=?utf-8?Q?J=C3=BCrgen?="),
        ("undisclosed-recipients:;", "undisclosed-recipients:;"),
        ("root @ d.e, <>", "root @ d.e, <>"),
        ("", ""),
    ],
)
def test_a_domain_is_put_behind_addresses_that_have_none(text, expected):
    """Within the text as it stands; a name on its own that is no address is not made one."""
    assert completed(text, "b.c") == expected


@given(st.text(alphabet='ab@.<>()"\\,:;[] \n'))
def test_what_is_completed_means_the_same(text):
    """The same addresses in the same order, each with a domain; and another time nothing changes."""
    try:
        before = parse_list(text)
    except AddressError:
        return
    after = completed(text, "b.c")

    assert parse_list(after) == [one if "@" in one.rpartition('"')[2] else f"{one}@b.c" for one in before]
    assert completed(after, "b.c") == after
