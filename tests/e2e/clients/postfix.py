"""Postfix as a client, with a configuration of its own: the first target is its relayhost, and for each of the others
the sender chooses a transport.

Mail is put in with its `sendmail` before it starts, and found by pickup when it does.
"""

import asyncio
import grp
import os
import pwd
import shutil
from pathlib import Path
from typing import Final

from tests.e2e.clients.job import FROM, Target
from tests.e2e.clients.stage import Job
from tests.e2e.clients.starting import start

DAEMONS: Final = Path("/usr/lib/postfix/sbin")
_QUEUES: Final = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush"),
    *("hold", "incoming", "private", "saved", "trace"),
)
_SERVICES: Final = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def missing() -> str | None:
    """Why it cannot run here, or None."""
    if not (DAEMONS / "master").exists():
        return "Postfix is not installed (Debian packages postfix and libsasl2-modules)"
    return None if os.geteuid() == 0 else "Postfix changes users, and so must be started by root"


async def run(job: Job) -> str:
    """All mail through one Postfix; what it logged, if not all of it arrived."""
    configuration, log = _configure(job), job.folder / "postfix.log"
    lines = []
    for message in job.messages:
        body = ["-B", "8BITMIME"] if message.announced else []
        octets = (job.folder / f"{message.name}.eml").read_bytes()
        for target in job.targets:
            words = ["/usr/sbin/sendmail", "-C", str(configuration), "-i", *body, "-f", message.sender(target.name)]
            status, output = await start([*words, "--", *message.recipients], octets)
            lines.append(f"{target.name}\t{message.name}\t{'ok' if status == 0 else output}")
    master = await asyncio.create_subprocess_exec(str(DAEMONS / "master"), "-c", str(configuration), "-d")
    try:
        await job.delivered()
    except TimeoutError:
        lines.append(log.read_text())
    finally:
        master.terminate()
        await master.wait()
    return "\n".join(lines)


def _configure(job: Job) -> Path:
    configuration, queue, data = (job.folder / name for name in ("postfix", "queue", "data"))
    for folder in (configuration, queue, data):
        folder.mkdir()
    shutil.chown(data, "postfix")
    _make_queue(queue)
    senders = "".join(
        f"{message.sender(target.name)} {target.name}:[{target.host}]:{target.port}\n"
        for target in job.targets[1:]
        for message in job.messages
    )
    first = job.targets[0]  # goes the usual way
    (configuration / "senders").write_text(senders)
    settings = {
        "compatibility_level": "3.6",
        "queue_directory": str(queue),
        "data_directory": str(data),
        "daemon_directory": str(DAEMONS),
        "maillog_file": str(job.folder / "postfix.log"),
        "maillog_file_prefixes": str(job.folder),
        "myhostname": "postfix.test",
        "myorigin": FROM.partition("@")[2],
        "mydestination": "",
        "inet_interfaces": "loopback-only",
        "local_recipient_maps": "",
        "alias_maps": "",
        "alias_database": "",
        "relayhost": f"[{first.host}]:{first.port}",
        "sender_dependent_default_transport_maps": f"texthash:{configuration}/senders",
        "smtp_host_lookup": "native",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_tls_CAfile": first.ca_file,
    }
    (configuration / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    (configuration / "master.cf").write_text(_SERVICES + "".join(map(_transport, job.targets[1:])))
    return configuration


def _transport(target: Target) -> str:
    """A line of master.cf; what it sets would stand in main.cf where there is only one way out."""
    settings = {"smtp_tls_security_level": "none" if target.tls == "plain" else "verify"}
    if target.tls == "implicit":
        settings["smtp_tls_wrappermode"] = "yes"
    if target.login:
        settings["smtp_sasl_auth_enable"] = "yes"
        settings["smtp_sasl_password_maps"] = f"static:{target.login}:{target.password}"
    options = "".join(f" -o {name}={value}" for name, value in settings.items())
    return f"{target.name} unix - - n - - smtp{options}\n"


def _make_queue(queue: Path) -> None:
    """The directories that `postfix check` would make, with the rights that the daemons want."""
    owner = pwd.getpwnam("postfix").pw_uid
    group = grp.getgrnam("postdrop").gr_gid
    (queue / "pid").mkdir(mode=0o755)
    for name in _QUEUES:
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, owner, 0)
    for name, mode in (("public", 0o710), ("maildrop", 0o730)):
        (queue / name).mkdir()
        os.chown(queue / name, owner, group)
        (queue / name).chmod(mode)
