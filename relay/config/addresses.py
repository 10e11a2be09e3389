"""Where to listen, who may connect, how hosts are called, and what address patterns look like: text in, values out.

Every parser raises ValueError with the remedy in its text. Nothing here asks the network: `localhost` is the one name
that may be listened on, and it stays a name, because it stands for two addresses.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from relay.core.envelope import Address, PathError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCALHOST: Final = "localhost"
LOOPBACKS: Final = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_ADDRESS_REMEDY: Final = "write host:port, such as localhost:2525, 0.0.0.0:2525 or [::1]:2525"
# RFC 5321 §4.1.2 `Domain`, with the length of RFC 1035 §2.3.4. An underscore is not a host name's character.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """An address to listen on: `host` is a bare IP address or `localhost`; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The IP addresses it stands for: two for `localhost`, else one."""
        return LOOPBACKS if self.host == LOCALHOST else (ipaddress.ip_address(self.host),)

    @property
    def loopback(self) -> bool:
        """True if nobody off this host can reach it."""
        return all(address.is_loopback for address in self.addresses)

    def clashes(self, other: "TcpAddress") -> bool:
        """True if the two cannot be bound at once. An IPv6 wildcard takes IPv6 only."""
        if self.port != other.port or self.port == 0:
            return False
        return any(_overlap(mine, theirs) for mine in self.addresses for theirs in other.addresses)

    @classmethod
    def parse(cls, text: object) -> "TcpAddress":
        """Read `host:port`; raises ValueError."""
        match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r} is not an address to listen on: {_ADDRESS_REMEDY}")
        host, port = match["v6"] or match["host"], int(match["port"])
        if not host:
            raise ValueError(
                f"{text!r} has no host: write localhost:{port} for this host, 0.0.0.0:{port} for all of IPv4"
            )
        if port > 65535:
            raise ValueError(f"{text!r} has no valid port: the highest is 65535")
        if host.lower() == LOCALHOST:
            return cls(LOCALHOST, port)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(
                f"{text!r} has neither an IP address nor localhost before its port: {_ADDRESS_REMEDY}"
            ) from None
        if (address.version == 6) != (match["v6"] is not None):
            raise ValueError(f"{text!r}: brackets are for IPv6: {_ADDRESS_REMEDY}")
        return cls(str(address), port)


def _overlap(one: IPAddress, other: IPAddress) -> bool:
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def parse_network(value: object) -> IPNetwork:
    """An IPv4 or IPv6 network, or a single address; host bits must be zero. Raises ValueError."""
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    # An int would be taken for an address in integer form.
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a network: write 10.0.0.0/8, 192.0.2.7 or "fd00::/8"')
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f'{value!r} is not a network: write 10.0.0.0/8, 192.0.2.7 or "fd00::/8"') from None
    address = value.partition("/")[0]
    raise ValueError(f"{value!r} has bits behind its prefix: write {meant} for the network, {address} for one address")


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
