"""Who may connect, how hosts are called, and what address patterns look like: text in, values out.

Every parser raises ValueError with the remedy in its text. Nothing here asks the network.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from relay.core.envelope import Address, PathError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCALHOST: Final = "localhost"

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291 §2.5.5.2: IPv4 as an IPv6 socket shows it
# RFC 5321 §4.1.2 `Domain`, with the length of RFC 1035 §2.3.4. An underscore is not a host name's character.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


def parse_network(value: object) -> IPNetwork:
    """An IPv4 or IPv6 network, or a single address; host bits must be zero. Raises ValueError.

    IPv4 that is written as mapped into IPv6 is IPv4, as clients that come in by an IPv6 socket are.
    """
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    # An int would be taken for an address in integer form.
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a network: write 10.0.0.0/8, 192.0.2.7 or "fd00::/8"')
    try:
        return _unmapped(ipaddress.ip_network(value))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f'{value!r} is not a network: write 10.0.0.0/8, 192.0.2.7 or "fd00::/8"') from None
    address = value.partition("/")[0]
    raise ValueError(f"{value!r} has bits behind its prefix: write {meant} for the network, {address} for one address")


def _unmapped(network: IPNetwork) -> IPNetwork:
    if network.version == 4 or not network.subnet_of(_MAPPED):
        return network
    return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))


def parse_domain(value: object) -> str:
    """A host name as EHLO and DNS know it; raises ValueError."""
    if not isinstance(value, str) or not _DOMAIN.fullmatch(value):
        raise ValueError(f"{value!r} is not a host name: letters, digits, hyphens and dots, such as relay.example.com")
    return value


def parse_host(value: object) -> str:
    """A host to connect to: a host name or an IP address without brackets; raises ValueError."""
    if isinstance(value, str) and ":" in value:
        try:
            return str(ipaddress.IPv6Address(value))
        except ValueError:
            raise ValueError(f"{value!r} is not a host: no port and no scheme belong here, only its name") from None
    return parse_domain(value)


def parse_api_url(value: object) -> str:
    """The base of an HTTPS API, without a slash at its end; http only on this host, as a key travels with each request.

    Raises ValueError, and never shows a password that stands in it.
    """
    remedy = "write https://host/path, such as https://api.sparkpost.com/api/v1"
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        host, port = parse_host(parts.hostname), parts.port
    except ValueError:
        raise ValueError(f"this is not the URL of an API: {remedy}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"no user name or password belongs into it, as the API key is sent by itself: {remedy}")
    if parts.query or parts.fragment or port == 0 or not re.fullmatch(r"[!-~]*", parts.path):
        raise ValueError(f"{value!r} is not the base of an API: {remedy}")
    if parts.scheme == "http" and not _is_this_host(host):
        raise ValueError(f"{value!r} would send API keys over the network in clear: write https://")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{value!r} is not the URL of an API: {remedy}")
    return str(value).rstrip("/")


def _is_this_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOCALHOST


def parse_ehlo_name(value: object) -> str:
    """What the relay calls itself: a host name or an address literal such as `[192.0.2.7]` (RFC 5321 §4.1.3)."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            ipaddress.ip_address(value[1:-1].removeprefix("IPv6:"))
        except ValueError:
            raise ValueError(f"{value!r} is not an address literal: write [192.0.2.7] or [IPv6:2001:db8::7]") from None
        return value
    return parse_domain(value)


def parse_mail_pattern(value: object) -> str:
    """A pattern for mail addresses: `*@example.com`, `app-?@*.example.com`, `*`, or `<>` for the null reverse-path."""
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not an address pattern: write "*@example.com"')
    if value in ("*", "<>"):
        return value
    if "{subaccount}" in value:
        raise ValueError(f"{value!r}: only match.login can capture {{subaccount}}")
    local, at, domain = value.rpartition("@")
    if not at and value:
        raise ValueError(f'{value!r} is not an address pattern: for a whole domain write "*@{value}"')
    if not local and domain:
        raise ValueError(f'{value!r} has no local part: for a whole domain write "*@{domain}"')
    quoted = len(local) > 1 and local.startswith('"') and local.endswith('"')
    if not domain or ("@" in local and not quoted) or re.search(r"[\s<>]", value) or not value.isascii():
        raise ValueError(f'{value!r} is not an address pattern: one @, no spaces or brackets: "*@example.com"')
    return value


def parse_mail_address(value: object) -> str:
    """One mail address without a display name; raises ValueError."""
    try:
        return str(Address.parse(value if isinstance(value, str) else ""))
    except PathError as error:
        raise ValueError(f"{value!r} is not a mail address, such as relay@example.com: {error}") from None


def parse_login_pattern(value: object) -> str:
    """A pattern for login names, with at most one `{subaccount}`, which captures a number."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a login: write it in quotes")
    if not value or not value.isprintable():
        raise ValueError(f"{value!r} is not a login: a login is not empty and has no control characters")
    before, capture, after = value.partition("{subaccount}")
    if "{subaccount}" in after:
        raise ValueError(f"{value!r} captures {{subaccount}} twice: a message has one subaccount")
    if re.search(r"[{}]", before + after):
        raise ValueError(f"{value!r}: braces are for {{subaccount}} only")
    if capture and re.search(r"[*?0-9]\Z", before):
        raise ValueError(
            f"{value!r}: what stands before {{subaccount}} could be part of the number: put a letter or - between"
        )
    if capture and re.match(r"[*?0-9]", after):
        raise ValueError(
            f"{value!r}: what stands behind {{subaccount}} could be part of the number: put a letter or - between"
        )
    return value
