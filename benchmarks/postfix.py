"""How Postfix is configured and started, with directories of its own: the system's is neither read nor touched.

It is as Debian installs it, as a smarthost client with TLS and AUTH: everything that is not said here has its default.
Nothing is chrooted, which spares copying certificates, and it logs to a file by its own postlogd.
"""

import grp
import os
import pwd
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.place import Place

DAEMONS: Final = Path("/usr/lib/postfix/sbin")

QUEUES: Final = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush"),
    *("hold", "incoming", "private", "saved", "trace"),
)

SERVICES: Final = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
"""
"""What a smarthost client needs of master.cf, with the process limits and intervals of Debian's own file."""


def missing() -> str | None:
    """Why it cannot run here, or None."""
    if not (DAEMONS / "master").exists():
        return "Postfix is not installed; on Debian: apt-get install postfix libsasl2-modules"
    if os.geteuid() != 0:
        return "Postfix changes users, and so must be started by root"
    return None


def command(*, reuse: bool) -> Callable[[Place], list[str]]:
    """The command of a Postfix that does, or does not, reuse its TLS connections."""

    def at(place: Place) -> list[str]:
        configuration = prepare(
            place.directory,
            place.log,
            f"127.0.0.1:{place.port} inet n - n - - smtpd\n",
            {
                "myhostname": "relay.example",
                "inet_protocols": "ipv4",
                "mynetworks": "127.0.0.0/8",
                "message_size_limit": "20000000",
                "relayhost": f"[{place.upstream_host}]:{place.upstream_port}",
                "smtp_sasl_auth_enable": "yes",
                "smtp_sasl_password_maps": "static:SMTP_Injection:secret",
                "smtp_sasl_security_options": "noanonymous",
                "smtp_tls_security_level": "secure",
                "smtp_tls_secure_cert_match": "localhost",
                "smtp_tls_CAfile": str(place.ca_file),
                "smtp_tls_connection_reuse": "yes" if reuse else "no",
            },
        )
        return master(configuration)

    return at


def master(configuration: Path) -> list[str]:
    """The command that runs what is configured there, in the foreground."""
    return [str(DAEMONS / "master"), "-c", str(configuration), "-d"]


def prepare(directory: Path, log: Path, services: str, settings: Mapping[str, str]) -> Path:
    """Makes all that a Postfix needs in a directory, which other users may pass through; its configuration.

    `services` are the lines of master.cf that are its own, `settings` the same of main.cf. `log` is in the directory.
    """
    configuration, queue, data = (directory / name for name in ("postfix", "queue", "data"))
    for made in (configuration, queue, data):
        made.mkdir()
    _make_queue(queue)
    shutil.chown(data, "postfix")
    common = {
        "compatibility_level": "3.6",
        "queue_directory": str(queue),
        "data_directory": str(data),
        "daemon_directory": str(DAEMONS),
        "maillog_file": str(log),
        "maillog_file_prefixes": str(directory),
        "mydestination": "",
        "local_recipient_maps": "",
        "alias_maps": "",
        "alias_database": "",
        "smtp_host_lookup": "native",
    }
    (configuration / "main.cf").write_text(
        "".join(f"{name} = {value}\n" for name, value in {**common, **settings}.items())
    )
    (configuration / "master.cf").write_text(services + SERVICES)
    return configuration


def _make_queue(queue: Path) -> None:
    """The directories that `postfix check` would make, with the rights that the daemons want."""
    owner = pwd.getpwnam("postfix").pw_uid
    group = grp.getgrnam("postdrop").gr_gid
    (queue / "pid").mkdir(mode=0o755)
    for name in QUEUES:
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, owner, 0)
    for name, mode in (("public", 0o710), ("maildrop", 0o730)):
        (queue / name).mkdir()
        os.chown(queue / name, owner, group)
        (queue / name).chmod(mode)
