"""The systemd units: systemd understands them, they are as tight as they should be, and what refers to them is true."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relay.config.listening import SystemdAddress, parse_listener_address
from relay.options import EX_CONFIG, EX_UNAVAILABLE
from relay.sendmail.place import USUAL_SOCKET

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE, SOCKET = "sparkpost-relay.service", "sparkpost-relay.socket"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def system_calls(name: str) -> set[str]:
    """What a name in SystemCallFilter= stands for; a group begins with @, and may have groups in it."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, timeout=50, check=True
    )
    members = [line.strip() for line in listed.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    return set().union(*(system_calls(member) for member in members if member))


@needs_systemd
def test_systemd_has_nothing_to_say_against_them(tmp_path):
    """No key that it does not know, no dependency that is not there."""
    for unit in (SERVICE, SOCKET):
        text = (UNITS / unit).read_text()
        (tmp_path / unit).write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / SOCKET), str(tmp_path / SERVICE)],
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert [line for line in verified.stderr.splitlines() if "sparkpost" in line] == []


@needs_systemd
def test_the_service_can_do_little_else():
    """An exposure of at most 2.0 by systemd's own scale, which ends at 10."""
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNITS / SERVICE)],
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert rated.returncode == 0, rated.stdout[-200:]


@needs_systemd
def test_what_the_service_may_ask_of_the_kernel():
    """Keep to one processor, which is one of @resources; no io_uring, whose work no filter sees; no owners of files."""
    allowed: set[str] = set()
    for line in values(SERVICE, "SystemCallFilter"):
        named = set().union(*(system_calls(name) for name in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named

    assert {"sched_setaffinity", "sched_getaffinity", "epoll_ctl", "fsync"} <= allowed
    assert not {"io_uring_setup", "io_uring_enter", "sched_setscheduler", "chown", "ptrace"} & allowed


def test_what_stays_wrong_is_not_tried_again():
    """A port or a spool in use may be free the next time; a configuration does not mend itself."""
    (statuses,) = values(SERVICE, "RestartPreventExitStatus")

    assert values(SERVICE, "Restart") == ["always"]  # a SIGHUP would be no failure
    assert str(EX_CONFIG) in statuses.split()
    assert str(EX_UNAVAILABLE) not in statuses.split()


def test_the_service_sees_who_is_at_the_other_end_of_a_unix_socket():
    """In a user namespace of its own, everybody would be 65534."""
    assert values(SERVICE, "PrivateUsers") == []


def test_the_socket_unit_is_what_its_header_and_sendmail_say():
    """One name for all of its sockets, and a path that does not go with the service."""
    (name,) = values(SOCKET, "FileDescriptorName")
    (written,) = re.findall(r'address: "(fd:[^"]*)"', (UNITS / SOCKET).read_text())

    assert parse_listener_address(written) == SystemdAddress(name)
    assert values(SOCKET, "ListenStream") == [USUAL_SOCKET]
