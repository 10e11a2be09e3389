"""Whose mail this is, and what an address without a domain means on this host."""

import os
import pwd
import re
import socket
from collections.abc import Mapping

from relay.addresses import AddressError, parse_list
from relay.sendmail.failure import Failure

DOMAIN_VARIABLE = "RELAY_SENDMAIL_DOMAIN"
MAILNAME = "/etc/mailname"  # Debian policy 11.6: the name of this host in mail

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_NOBODYS = ("localhost.localdomain",)


class Domain:
    """The domain that completes addresses. `real` is False for a bare host name, which no mail can reach."""

    def __init__(self, name: str, *, real: bool) -> None:
        self.name = name
        self.real = real


def domain(environ: Mapping[str, str], mailname: str = MAILNAME) -> Domain:
    """$RELAY_SENDMAIL_DOMAIN, else the first of /etc/mailname and the host's name that has a dot in it.

    DNS is not asked: where it does not answer, every message of this host would wait for it.
    """
    if given := environ.get(DOMAIN_VARIABLE):
        if not is_domain(given):
            raise Failure(os.EX_CONFIG, f"${DOMAIN_VARIABLE} is {given!r}: a domain is expected, such as example.com")
        return Domain(given, real=True)
    host = socket.gethostname()
    for name in (_first_line(mailname), host):
        if "." in name and name not in _NOBODYS and is_domain(name):
            return Domain(name, real=True)
    return Domain(host if is_domain(host) else "localhost.localdomain", real=False)


def complete_sender(text: str, domain: Domain) -> str:
    """The reverse-path that -f names: one address, or empty for the null reverse-path; raises Failure."""
    try:
        found = parse_list(text)
    except AddressError as error:
        raise Failure(os.EX_USAGE, f"-f: {error}") from None
    if len(found) > 1:
        raise Failure(os.EX_USAGE, f"-f {text}: one address is expected")
    return complete(found[0], domain) if found else ""


def complete(address: str, domain: Domain) -> str:
    return address if "@" in _unquoted(address) else f"{address}@{domain.name}"


def is_local(address: str) -> bool:
    """Is it without a domain?"""
    return "@" not in _unquoted(address)


def _unquoted(address: str) -> str:
    """What is left of an address without a quoted local part, which may have an @ in it."""
    return address.rpartition('"')[2]


def login(environ: Mapping[str, str]) -> str:
    """Who calls: the name of the user id; in a container that has no such user, what the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("LOGNAME") or environ.get("USER") or f"uid{os.getuid()}"


def address_of(login: str, domain: Domain) -> str:
    """The address of a user; some directories have `CORP\\jane`, `jane doe` or `jane@corp.example`. Raises Failure."""
    local, at, own = login.rpartition("@")
    if not (at and is_domain(own)):
        local, own = login, domain.name
    if not (local.isascii() and local.isprintable()):
        text = f"the login name {login!r} cannot stand in an address: name the sender with -f. Nothing was sent"
        raise Failure(os.EX_CONFIG, text)
    if not _DOT_STRING.fullmatch(local):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'  # RFC 5321 §4.1.2
    return f"{local}@{own}"


def full_name() -> str:
    """The caller's name, as the user database has it."""
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return ""
    return user.pw_gecos.partition(",")[0].replace("&", user.pw_name.capitalize())  # passwd(5)


def is_domain(text: str) -> bool:
    return _DOMAIN.fullmatch(text) is not None


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""
