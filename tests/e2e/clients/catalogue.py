"""Every client of the matrix: how it is started, what it needs, and what it cannot be brought to do."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.postfix import missing as missing_postfix
from tests.e2e.clients import postfix
from tests.e2e.clients.job import WAYS, write_lines
from tests.e2e.clients.programs import PROGRAMS, write_msmtprc
from tests.e2e.clients.stage import Job, Run
from tests.e2e.clients.starting import HERE, driver, each

PHPMAILER: Final = Path("/usr/share/php/libphp-phpmailer")
RELAY_SENDMAIL: Final = Path(sys.executable).with_name("relay-sendmail")
JAVA_MAIL: Final = Path("/usr/share/java/javax.mail.jar")

_SILENT: Final = {"8bit-announced": "it has no way to say BODY=8BITMIME"}
_LOUD: Final = {"8bit-unannounced": "it says BODY=8BITMIME by itself"}
_DATE: Final = rb"(?m)^Date: .*\r\n"
_RECEIVED: Final = rb"\AReceived: .*\r\n(?:[ \t].*\r\n)*"
_MESSAGE_ID: Final = rb"(?mi)^Message-ID: .*\r\n"


@dataclass(frozen=True, slots=True)
class Client:
    """How to start it, and what to expect of it.

    `missing` says why it cannot run here, or None. `refuses`: messages that it cannot send, each with the reason.
    `varies`: what it writes anew for each copy: taken out before two copies are compared, or, where the pattern has a
    group, what the group matches is renamed. `verbatim`: it sends the octets that it is given as they are.
    `ways`: those that it can go.
    """

    name: str
    run: Run
    missing: Callable[[], str | None] = lambda: None
    refuses: Mapping[str, str] = field(default_factory=dict)
    varies: tuple[bytes, ...] = ()
    verbatim: bool = False
    ways: Collection[str] = tuple(WAYS)

    def alike(self, content: bytes) -> bytes:
        """The content without what varies."""
        for pattern in map(re.compile, self.varies):
            found = pattern.search(content)
            if found and pattern.groups:
                content = content.replace(found[1], b"renamed")
            else:
                content = pattern.sub(b"", content, count=1)
        return content


def _program(name: str, package: str | None = None) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"{name} is not installed (Debian package {package or name})"


def _file(path: Path, package: str, program: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if shutil.which(program) is None:
            return f"{program} is not installed"
        return None if path.exists() else f"{path} is not there ({package})"

    return missing


def _perl() -> str | None:
    if shutil.which("perl") is None:
        return "perl is not installed"
    for module, package in (("IO::Socket::SSL", "libio-socket-ssl-perl"), ("Authen::SASL", "libauthen-sasl-perl")):
        if subprocess.run(["perl", f"-M{module}", "-e1"], capture_output=True, check=False).returncode != 0:
            return f"Perl's {module} is not installed (Debian package {package})"
    return None


def _git() -> str | None:
    if not Path("/usr/lib/git-core/git-send-email").exists():
        return "git send-email is not installed (Debian package git-email)"
    return _perl()


def _msmtprc(job: Job) -> None:
    write_msmtprc(job.folder, job.targets)


def _job_lines(job: Job) -> None:
    write_lines(job.folder, job.targets, job.messages)


def _python(module: str) -> Run:
    return driver(sys.executable, "-m", f"tests.e2e.clients.{module}", "{job}")


_PATCHES_ONLY: Final = "git send-email sends patches, which are plain text"

CLIENTS: Final = (
    Client("smtplib", _python("smtplib_client")),
    Client("aiosmtplib", _python("aiosmtplib_client")),
    Client("curl", each(PROGRAMS["curl"]), _program("curl"), _SILENT, verbatim=True),
    Client("swaks", each(PROGRAMS["swaks"]), _program("swaks"), _SILENT),
    Client("msmtp", each(PROGRAMS["msmtp"], prepare=_msmtprc), _program("msmtp"), _SILENT),
    Client(
        "mutt",
        each(PROGRAMS["mutt"]),
        _program("mutt"),
        _LOUD,
        (_DATE, _MESSAGE_ID, rb'boundary="([^"]+)"'),
    ),
    Client(
        "git",
        each(PROGRAMS["git"]),
        _git,
        {**_SILENT, "html": _PATCHES_ONLY, "attachment": _PATCHES_ONLY},
        (_DATE,),
    ),
    Client(
        "nodemailer",
        driver("node", "{here}/nodemailer.js", "{job}"),
        _file(HERE / "node_modules/nodemailer", "npm ci --prefix tests/e2e/clients", "node"),
    ),
    Client(
        "php-mail",
        driver(
            *["php", "-d", "sendmail_path=msmtp -t -C {folder}/msmtprc", "{here}/mail.php", "{job}"],
            prepare=_msmtprc,
        ),
        lambda: _program("php", "php-cli")() or _program("msmtp")(),
        _SILENT,
    ),
    Client(
        "php-relay-sendmail",
        driver("php", "-d", f"sendmail_path={RELAY_SENDMAIL} -t -i", "{here}/mail.php", "{job}"),
        _program("php", "php-cli"),
        _LOUD,
        ways=["plain"],
    ),
    Client(
        "phpmailer",
        driver("php", "{here}/phpmailer.php", "{job}", PHPMAILER=str(PHPMAILER)),
        _file(PHPMAILER, "Debian package libphp-phpmailer", "php"),
        _SILENT,
    ),
    Client("perl-net-smtp", driver("perl", "{here}/net_smtp.pl", "{job}"), _perl, verbatim=True),
    Client("ruby-net-smtp", driver("ruby", "{here}/net_smtp.rb", "{job}"), _program("ruby"), verbatim=True),
    Client(
        "java-mail",
        driver("java", "-cp", f"{JAVA_MAIL}", "{here}/JavaMail.java", "{folder}/job.lines", prepare=_job_lines),
        _file(JAVA_MAIL, "Debian packages default-jre-headless and libmail-java", "java"),
    ),
    Client(
        "go-net-smtp",
        driver("go", "run", "{here}/net_smtp.go", "{job}"),
        _program("go", "golang-go"),
        _LOUD,
        verbatim=True,
    ),
    Client("postfix", postfix.run, missing_postfix, _LOUD, (_RECEIVED,)),
)
