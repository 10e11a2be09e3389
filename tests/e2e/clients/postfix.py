"""Postfix as a client, with a configuration of its own: the first target is its relayhost, and for each of the others
the sender chooses a transport.

Mail is put in with its `sendmail` before it starts, and found by pickup when it does.
"""

import asyncio
from pathlib import Path

from benchmarks.postfix import master, prepare
from tests.e2e.clients.job import FROM, Target
from tests.e2e.clients.stage import Job
from tests.e2e.clients.starting import start


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
    process = await asyncio.create_subprocess_exec(*master(configuration))
    try:
        await job.delivered()
    except TimeoutError:
        lines.append(log.read_text())
    finally:
        process.terminate()
        await process.wait()
    return "\n".join(lines)


def _configure(job: Job) -> Path:
    first, *others = job.targets  # to the first it goes the usual way
    senders = job.folder / "senders"
    senders.write_text(
        "".join(
            f"{message.sender(target.name)} {target.name}:[{target.host}]:{target.port}\n"
            for target in others
            for message in job.messages
        )
    )
    return prepare(
        job.folder,
        job.folder / "postfix.log",
        "pickup unix n - n 60 1 pickup\n" + "".join(map(_transport, others)),
        {
            "myhostname": "postfix.test",
            "myorigin": FROM.partition("@")[2],
            "inet_interfaces": "loopback-only",
            "relayhost": f"[{first.host}]:{first.port}",
            "sender_dependent_default_transport_maps": f"texthash:{senders}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_tls_CAfile": first.ca_file,
        },
    )


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
