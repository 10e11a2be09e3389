"""Addresses, networks, host names and patterns: read strictly, printed as they are read."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import SystemdAddress, TcpAddress, UnixAddress
from relay.config.addresses import parse_ehlo_name, parse_host, parse_login_pattern, parse_mail_pattern, parse_network
from relay.config.listening import clash, format_mode, parse_listener_address, parse_mode

HOSTS = st.one_of(
    st.sampled_from(["localhost", "*"]),
    st.ip_addresses().filter(lambda address: getattr(address, "ipv4_mapped", None) is None).map(str),
)
ADDRESSES = st.builds(TcpAddress, HOSTS, st.integers(0, 65535))


@given(ADDRESSES)
def test_an_address_reads_back_as_it_was(address: TcpAddress) -> None:
    """What is printed, brackets included, means the same address."""
    assert TcpAddress.parse(str(address)) == address


@given(ADDRESSES, ADDRESSES)
def test_a_clash_is_mutual(one: TcpAddress, other: TcpAddress) -> None:
    """If one takes the place of the other, the other takes the place of the one."""
    assert one.clashes(other) == other.clashes(one)


@given(ADDRESSES)
def test_an_address_clashes_with_itself_unless_the_port_is_free(address: TcpAddress) -> None:
    """Nothing can be bound twice, but port 0 is another port each time."""
    assert address.clashes(address) == (address.port != 0)


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("localhost:25", "127.0.0.1:25", True),
        ("localhost:25", "[::1]:25", True),
        ("localhost:25", "0.0.0.0:25", True),
        ("localhost:25", "[::]:25", True),
        ("127.0.0.1:25", "[::]:25", False),
        ("*:25", "[::1]:25", True),
        ("*:25", "127.0.0.1:25", True),
        ("0.0.0.0:25", "[::]:25", False),
        ("127.0.0.1:25", "127.0.0.2:25", False),
        ("localhost:25", "localhost:26", False),
    ],
)
def test_localhost_is_two_addresses_and_a_wildcard_is_all_of_its_family(one: str, other: str, clash: bool) -> None:
    """`localhost` stands for 127.0.0.1 and ::1, `*` for both wildcards; the IPv6 wildcard does not take IPv4."""
    assert TcpAddress.parse(one).clashes(TcpAddress.parse(other)) is clash


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/smtp.sock", UnixAddress("/run/smtp.sock")),
        ("unix:/run/a b:c.sock", UnixAddress("/run/a b:c.sock")),
        ("fd:smtp", SystemdAddress("smtp")),
        ("fd:sparkpost-relay.socket", SystemdAddress("sparkpost-relay.socket")),
        ("*:2525", TcpAddress("*", 2525)),
        ("LOCALHOST:2525", TcpAddress("localhost", 2525)),
    ],
)
def test_a_listener_may_be_a_path_or_a_socket_of_systemds(
    text: str, address: TcpAddress | UnixAddress | SystemdAddress
) -> None:
    """Each is printed as it is written."""
    assert parse_listener_address(text) == address
    assert str(address) == text.lower()


def test_addresses_of_different_kinds_never_clash() -> None:
    """A path is one however many slashes are in it."""
    kinds = [parse_listener_address(text) for text in ("localhost:25", "unix:/run/smtp", "fd:smtp")]

    assert [[clash(one, other) for other in kinds] for one in kinds] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert clash(UnixAddress("/run//./smtp"), UnixAddress("/run/smtp"))


@pytest.mark.parametrize(
    ("value", "mode"), [("0660", 0o660), ("660", 0o660), (660, 0o660), (666, 0o666), ("0200", 0o200)]
)
def test_a_mode_is_octal_whether_quoted_or_not(value: object, mode: int) -> None:
    """As chmod has it; nobody means the decimal number."""
    assert parse_mode(value) == mode
    assert parse_mode(format_mode(mode)) == mode


@pytest.mark.parametrize("value", ["0888", "66", "01660", 8, True, None, "rw-rw----", "0440", "0"])
def test_a_mode_that_lets_nobody_in_or_is_none_is_refused(value: object) -> None:
    """To connect to a Unix socket is to write to it (unix(7))."""
    with pytest.raises(ValueError):
        parse_mode(value)


def test_a_socket_far_down_may_be_listened_on_but_not_one_with_an_endless_name() -> None:
    """The kernel's limit is for the name, and a directory can be reached in another way."""
    deep = f"unix:/{'deep/' * 60}smtp.sock"

    assert str(parse_listener_address(deep)) == deep
    with pytest.raises(ValueError, match="longer than 80 octets"):
        parse_listener_address(f"unix:/run/{'x' * 81}")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_ipv4_in_ipv6_is_ipv4(written: str, meant: str) -> None:
    """Clients that come so are known by their IPv4 address; a network of the other kind would never match."""
    assert str(parse_network(written)) == meant


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("localhost:25", True), ("127.9.9.9:25", True), ("[::1]:25", True), ("0.0.0.0:25", False), ("[::]:25", False)],
)
def test_only_loopback_is_out_of_reach_of_other_hosts(address: str, loopback: bool) -> None:
    """A wildcard can be reached from anywhere."""
    assert TcpAddress.parse(address).loopback is loopback


def test_an_ipv6_address_with_a_zone_may_be_listened_on() -> None:
    """Link-local addresses need their interface."""
    assert TcpAddress.parse("[fe80::1%eth0]:25") == TcpAddress("fe80::1%eth0", 25)


@given(st.ip_addresses().flatmap(lambda address: st.integers(0, address.max_prefixlen).map(lambda n: (address, n))))
def test_the_network_that_was_meant_is_named(pair: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]) -> None:
    """With bits behind the prefix, the error names the network without them."""
    address, prefix = pair
    written = f"{address}/{prefix}"
    meant = ipaddress.ip_network(written, strict=False)

    if getattr(meant.network_address, "ipv4_mapped", None) is None:
        assert parse_network(str(meant)) == meant
    if str(meant) != str(ipaddress.ip_network(str(address))) and str(meant.network_address) != str(address):
        with pytest.raises(ValueError) as error:
            parse_network(written)
        assert f"write {meant} for the network" in str(error.value)


@pytest.mark.parametrize("name", ["relay", "relay.example.com", "[192.0.2.7]", "[IPv6:2001:db8::7]"])
def test_the_relay_may_be_called_by_name_or_address_literal(name: str) -> None:
    """What RFC 5321 allows in EHLO is taken as it is."""
    assert parse_ehlo_name(name) == name


@pytest.mark.parametrize(
    "name", ["my_relay", "-relay", "relay.", "a..b", "x" * 64, "[192.0.2]", "", "relay example", 5]
)
def test_what_ehlo_cannot_say_is_refused(name: object) -> None:
    """An upstream may refuse a session whose EHLO is malformed."""
    with pytest.raises(ValueError):
        parse_ehlo_name(name)


@pytest.mark.parametrize("host", ["smtp.sparkpostmail.com", "192.0.2.7", "2001:db8::7"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    """Private endpoints may be given by address."""
    assert parse_host(host) == host


@pytest.mark.parametrize("pattern", ["*", "<>", "*@example.com", "app-?@*.example.com", '"odd@local"@example.com'])
def test_an_address_pattern_is_taken_as_written(pattern: str) -> None:
    """Wildcards, the null reverse-path and quoted local parts are patterns."""
    assert parse_mail_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern", ["", "@", "a@", "example.com", "@example.com", "a@b@c", "<a@b>", "ä@b", "a b@c", None]
)
def test_what_can_match_no_address_is_refused(pattern: object) -> None:
    """A pattern that would never match is an error of the operator, not a rule."""
    with pytest.raises(ValueError):
        parse_mail_pattern(pattern)


@pytest.mark.parametrize("pattern", ["billing", "tenant-{subaccount}", "*-{subaccount}-*", "app?", "a b"])
def test_a_login_pattern_is_taken_as_written(pattern: str) -> None:
    """Wildcards, and one captured subaccount."""
    assert parse_login_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["{subaccount}7", "7{subaccount}", "*{subaccount}", "{subaccount}?"])
def test_what_stands_beside_a_captured_number_must_not_look_like_one(pattern: str) -> None:
    """Otherwise one login could mean several subaccounts."""
    with pytest.raises(ValueError, match="could be part of the number"):
        parse_login_pattern(pattern)
