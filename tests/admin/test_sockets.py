"""Where the admin server is: its sockets, made and taken away."""

import os
import socket
import stat
from pathlib import Path

import pytest

from relay.admin.sockets import AdminUnavailable, bind_tcp, bind_unix, socket_path
from relay.app import Relay
from relay.config import Config, TcpAddress
from relay.sockets import connect_unix
from relay.spool.lock import holder
from tests.spool.driven import make_read_only, small_disk
from tests.support.admin import ask, keeping, unix_of
from tests.support.running import KEY, relay_to, sandbox_with


def config_with(**sections) -> Config:
    return Config.model_validate({"credentials": {"default": {"api_key": KEY}}, **sections})


@pytest.mark.parametrize(
    ("sections", "environ", "path"),
    [
        ({"admin": {"socket": "/run/a.sock"}}, {"RUNTIME_DIRECTORY": "/run/relay"}, "/run/a.sock"),
        ({}, {"RUNTIME_DIRECTORY": "/run/relay"}, "/run/relay/admin.sock"),
        ({"spool": {"url": "none"}}, {"RUNTIME_DIRECTORY": "/run/relay:/run/other"}, "/run/relay/admin.sock"),
        ({"spool": {"url": "sqlite:/var/spool/relay.db"}}, {}, "/var/spool/relay.db.sock"),
        ({"spool": {"url": "none"}}, {}, None),
    ],
)
def test_where_the_socket_belongs(sections, environ, path):
    """As configured, else in systemd's runtime directory, else beside the spool, else nowhere."""
    assert socket_path(config_with(**sections), environ) == (None if path is None else Path(path))


def test_only_its_owner_can_connect(tmp_path):
    """Mode 0600 from the first moment."""
    path = tmp_path / "admin.sock"
    with bind_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_dead_relay_left_is_replaced(tmp_path):
    """A socket that nobody listens on is in nobody's way."""
    path = tmp_path / "admin.sock"
    bind_unix(path).close()
    with bind_unix(path):
        connect_unix(path, timeout=1).close()


def test_a_socket_that_is_served_is_left_alone(tmp_path):
    """It is another relay's."""
    path = tmp_path / "admin.sock"
    with bind_unix(path), pytest.raises(AdminUnavailable, match="another process serves the admin socket"):
        bind_unix(path)


def test_a_file_is_left_alone(tmp_path):
    """Whatever it is, it is not ours to remove."""
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(AdminUnavailable, match="is no socket"):
        bind_unix(path)

    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there_is_named(tmp_path):
    """With the remedy."""
    with pytest.raises(AdminUnavailable, match=r"nowhere/admin\.sock cannot be made: No such file.*admin\.socket"):
        bind_unix(tmp_path / "nowhere" / "admin.sock")


def test_a_port_in_use_is_named():
    """With the remedy."""
    (taken,) = bind_tcp(TcpAddress("127.0.0.1", 0))
    with taken, pytest.raises(AdminUnavailable, match=r"admin\.address: cannot bind 127\.0\.0\.1 port \d+: Address"):
        bind_tcp(TcpAddress("127.0.0.1", taken.getsockname()[1]))


def test_localhost_is_both_loopback_addresses():
    """On one port; IPv4 alone on a host without IPv6."""
    sockets = bind_tcp(TcpAddress("localhost", 0))

    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    assert sockets[0].family == socket.AF_INET
    for sock in sockets:
        sock.close()


async def test_a_spool_deep_down_has_its_socket_all_the_same(tmp_path):
    """Names of sockets end at 108 octets; the socket is there, works, is noted in the lock, and goes with the relay."""
    folder = tmp_path / ("deep" * 20) / ("down" * 20)
    folder.mkdir(parents=True)
    async with sandbox_with(tmp_path / "tls") as sandbox, relay_to(sandbox, **keeping(folder)) as relay:
        path = Path(unix_of(relay).removeprefix("unix:"))
        noted = holder(folder / "spool.db")
        connect_unix(path, timeout=1).close()

    assert path == folder / "spool.db.sock"
    assert noted is not None
    assert noted.socket == str(path)
    assert path.name not in os.listdir(folder)


async def test_a_socket_that_cannot_be_taken_away_does_not_keep_the_spool_from_being_closed(tmp_path):
    """Its disk has become read-only; the relay stops in order."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        async with (
            sandbox_with(tmp_path / "tls") as sandbox,
            relay_to(sandbox, **keeping(tmp_path, socket=str(disk / "admin.sock"))),
        ):
            make_read_only(disk)

    assert holder(tmp_path / "spool.db") is None


async def test_what_was_not_asked_for_does_not_keep_mail_from_flowing(tmp_path, capsys):
    """The default address is taken by another program: a warning, and the relay runs, with its socket."""
    sections = keeping(tmp_path)
    del sections["admin"]["address"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9025))
        except OSError:
            pass  # somebody has it already, which is as good
        else:
            taken.listen()
        async with sandbox_with(tmp_path / "tls") as sandbox:
            sections["upstream"] = {"ports": [sandbox.addresses[0][1]], "host": "localhost"}
            relay = _relay_without_an_address(sandbox, sections)
            await relay.start()
            alive = await ask(unix_of(relay), "/livez")
            addresses = list(relay.admin.addresses)
            await relay.stop()

    assert alive.status == 200
    assert [address.partition(":")[0] for address in addresses] == ["unix"]
    assert "admin.unavailable" in capsys.readouterr().out


def _relay_without_an_address(sandbox, sections):
    return Relay(
        config_with(
            listeners=[{"address": "127.0.0.1:0"}],
            upstream=sections["upstream"] | {"tls": {"ca_file": str(sandbox.ca_file)}},
            spool=sections["spool"],
            admin=sections["admin"],
        )
    )


async def test_an_address_that_was_asked_for_must_be_had(tmp_path):
    """The relay does not start without it."""
    (taken,) = bind_tcp(TcpAddress("127.0.0.1", 0))
    sections = keeping(tmp_path, address=f"127.0.0.1:{taken.getsockname()[1]}")
    with taken:
        async with sandbox_with(tmp_path / "tls") as sandbox:
            with pytest.raises(AdminUnavailable):
                async with relay_to(sandbox, **sections):
                    pass

    assert holder(tmp_path / "spool.db") is None
