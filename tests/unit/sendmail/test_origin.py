"""Whose mail it is, and who is meant by an address without a domain."""

import os
import socket

import pytest

from relay.sendmail import origin
from relay.sendmail.aliases import Aliases
from relay.sendmail.failure import Failure
from relay.sendmail.origin import Domain

EXAMPLE = Domain("example.com", real=True)


@pytest.fixture
def aliases(tmp_path):
    """An aliases file with what such files have."""
    path = tmp_path / "aliases"
    path.write_text(
        "# comment: not@this\n"
        "root: ops, ADMIN ,\n"
        "   \tfar@example.net\n"
        "  # another\n"
        "Ops: Jane <jane@example.net>\n"
        'admin: "bob"\n'
        "null: /dev/null\n"
        "mostly: /dev/null, jane@example.net\n"
        "loop: pool\n"
        "pool: loop, jane@example.net\n"
        "self: \\self, jane@example.net\n"
        '"two words": jane@example.net\n'
        'program: "|/usr/bin/vacation jane"\n'
        "file: /var/mail/archive\n"
        "list: :include:/etc/list\n"
        "broken: Jane Doe\n"
        "empty:\n"
        "group: friends:;\n"
    )
    return Aliases(str(path))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("root", ["jane@example.net", '"bob"', "far@example.net"]),
        ("ROOT", ["jane@example.net", '"bob"', "far@example.net"]),
        ("nobody", ["nobody"]),
        ("null", []),
        ("mostly", ["jane@example.net"]),
        ("loop", ["loop", "jane@example.net"]),
        ("self", ["self", "jane@example.net"]),
        ("two words", ["jane@example.net"]),
    ],
)
def test_an_alias_leads_to_addresses(aliases, name, meant):
    """Through other aliases, in any case, folded, and out of loops."""
    assert aliases.resolve(name) == meant


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("program", "'\"|/usr/bin/vacation jane\"'"),
        ("file", "'/var/mail/archive'"),
        ("list", "':include:/etc/list'"),
        ("broken", "'Jane Doe' is no address"),
        ("empty", "leads to nobody"),
        ("group", "leads to nobody"),
    ],
)
def test_an_alias_that_leads_elsewhere_is_an_error(aliases, name, said):
    """Nothing is run, nothing is written to; file, alias and value are named."""
    with pytest.raises(Failure, match=f"aliases: the alias {name}") as caught:
        aliases.resolve(name)

    assert caught.value.status == os.EX_CONFIG
    assert said in str(caught.value)


def test_a_host_without_aliases(tmp_path):
    """Is the usual case; but a file that somebody has named must be there."""
    assert Aliases(str(tmp_path / "none")).resolve("root") == ["root"]
    with pytest.raises(Failure, match="none: the aliases cannot be read: No such file") as caught:
        Aliases(str(tmp_path / "none"), named=True)
    assert caught.value.status == os.EX_CONFIG


@pytest.mark.parametrize(
    ("variable", "mailname", "host", "name", "real"),
    [
        ("example.com", "mail.example.net", "web1.example.org", "example.com", True),
        ("intranet", "mail.example.net", "web1.example.org", "intranet", True),
        ("", "mail.example.net\n", "web1.example.org", "mail.example.net", True),
        ("", "web1\n", "web1.example.org", "web1.example.org", True),
        ("", None, "web1.example.org", "web1.example.org", True),
        ("", None, "web1", "web1", False),
        ("", "localhost.localdomain", "web1", "web1", False),
        ("", "not a name.\n", "not a name", "localhost.localdomain", False),
    ],
)
def test_the_domain_that_completes_addresses(tmp_path, monkeypatch, variable, mailname, host, name, real):
    """What somebody wrote down, else the host's name; without a dot in it that is no domain for mail."""
    path = tmp_path / "mailname"
    if mailname is not None:
        path.write_text(mailname)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    domain = origin.domain({"RELAY_SENDMAIL_DOMAIN": variable}, str(path))

    assert (domain.name, domain.real) == (name, real)


def test_a_domain_that_is_none_is_an_error():
    """It would end up in commands."""
    with pytest.raises(Failure, match="a domain is expected") as caught:
        origin.domain({"RELAY_SENDMAIL_DOMAIN": "a@b\r\n"})

    assert caught.value.status == os.EX_CONFIG


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b.c", "a@b.c"),
        ("root", "root@example.com"),
        ("", ""),
        ("<>", ""),
        ("Jane <a@b.c>", "a@b.c"),
        ('"a@b"', '"a@b"@example.com'),
        ('"a@b"@c.d', '"a@b"@c.d'),
    ],
)
def test_the_sender_is_completed(text, expected):
    """The null one stays null."""
    assert origin.complete_sender(text, EXAMPLE) == expected


@pytest.mark.parametrize("text", ["a@b.c, d@e.f", "a b", "a@b.c>\r\nRSET"])
def test_a_sender_that_is_none_is_wrong_use(text):
    """One address, or none."""
    with pytest.raises(Failure) as caught:
        origin.complete_sender(text, EXAMPLE)

    assert caught.value.status == os.EX_USAGE


def test_who_calls_where_the_user_is_unknown(monkeypatch):
    """A container may run under any number."""
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)

    assert origin.login({"LOGNAME": "app"}) == "app"
    assert origin.login({"USER": "app"}) == "app"
    assert origin.login({}) == "uid4000000000"
    assert origin.full_name() == ""


@pytest.mark.parametrize(
    ("login", "address"),
    [
        ("jane.doe-1", "jane.doe-1@example.com"),
        ("CORP\\jane", '"CORP\\\\jane"@example.com'),
        ("jane doe", '"jane doe"@example.com'),
        ("jane.", '"jane."@example.com'),
        ('say "hi"', '"say \\"hi\\""@example.com'),
        ("jane@corp.example", "jane@corp.example"),
        ("jane doe@corp.example", '"jane doe"@corp.example'),
        ("jane@", '"jane@"@example.com'),
    ],
)
def test_the_address_of_whoever_calls(login, address):
    """What a directory calls its users fits into a command."""
    assert origin.address_of(login, EXAMPLE) == address


@pytest.mark.parametrize("login", ["jürgen", "jane\r\nRSET"])
def test_a_login_name_that_fits_into_no_address_is_an_error_with_a_remedy(login):
    """No SMTP without SMTPUTF8 can carry it."""
    with pytest.raises(Failure, match="name the sender with -f") as caught:
        origin.address_of(login, EXAMPLE)

    assert caught.value.status == os.EX_CONFIG
