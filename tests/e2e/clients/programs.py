"""Programs that are started for each message: their command lines, and the files that configure them."""

import shlex
from pathlib import Path
from typing import Final

from tests.e2e.clients.job import FROM, Message, Target

Command = tuple[list[str], bytes | None]  # what to start, and what it reads from stdin


def curl(target: Target, message: Message, folder: Path) -> Command:
    scheme = "smtps" if target.tls == "implicit" else "smtp"
    login = ["--user", f"{target.login}:{target.password}"] if target.login else []
    security = {"plain": [], "starttls": ["--ssl-reqd"], "implicit": []}[target.tls]
    return [
        *["curl", "--silent", "--show-error", f"{scheme}://{target.host}:{target.port}/curl.test"],
        *[*security, "--cacert", target.ca_file, *login, "--mail-from", message.sender(target.name)],
        *[word for recipient in message.recipients for word in ("--mail-rcpt", recipient)],
        *["--upload-file", str(folder / f"{message.name}.eml")],
    ], None


def swaks(target: Target, message: Message, folder: Path) -> Command:
    login = ["--auth", "LOGIN", "--auth-user", target.login, "--auth-password", target.password] if target.login else []
    security = {"plain": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}[target.tls]
    verify = ["--tls-verify", "--tls-ca-path", target.ca_file] if security else []
    return [
        *["swaks", "--server", target.host, "--port", str(target.port), *security, *verify, *login],
        *["--silent", "2", "--pipeline", "--from", message.sender(target.name), "--to", ",".join(message.recipients)],
        *["--data", f"@{folder / f'{message.name}.eml'}"],
    ], None


def msmtp(target: Target, message: Message, folder: Path) -> Command:
    arguments = ["-C", str(folder / "msmtprc"), "-a", target.name, "-f", message.sender(target.name)]
    return ["msmtp", *arguments, "--", *message.recipients], (folder / f"{message.name}.eml").read_bytes()


def write_msmtprc(folder: Path, targets: list[Target]) -> None:
    """An account for each target."""
    accounts = []
    for target in targets:
        lines = [f"account {target.name}", f"host {target.host}", f"port {target.port}"]
        if target.tls != "plain":
            lines += ["tls on", f"tls_starttls {'on' if target.tls == 'starttls' else 'off'}"]
            lines += [f"tls_trust_file {target.ca_file}"]
        if target.login:
            lines += ["auth plain", f"user {target.login}", f"password {target.password}"]
        accounts.append("\n".join(lines) + "\n")
    file = folder / "msmtprc"
    file.write_text("\n".join(accounts))
    file.chmod(0o600)


def mutt(target: Target, message: Message, folder: Path) -> Command:
    scheme = "smtps" if target.tls == "implicit" else "smtp"
    user = f"{target.login}@" if target.login else ""
    settings = {
        "smtp_url": f"{scheme}://{user}{target.host}:{target.port}/",
        "smtp_pass": target.password,
        "ssl_starttls": "yes" if target.tls == "starttls" else "no",
        "ssl_force_tls": "no" if target.tls == "plain" else "yes",
        "certificate_file": target.ca_file,
        "use_envelope_from": "yes",
        "envelope_from_address": message.sender(target.name),
        "from": FROM,
        "hostname": "mutt.test",
        "copy": "no",
    }
    commands = [word for name, value in settings.items() for word in ("-e", f"set {name}={shlex.quote(value)}")]
    draft = str(folder / f"{message.name}.eml")
    return ["mutt", "-n", "-F", "/dev/null", *commands, "-H", draft], b""


def git(target: Target, message: Message, folder: Path) -> Command:
    settings = {
        "smtpServer": target.host,
        "smtpServerPort": str(target.port),
        "smtpEncryption": {"plain": "", "starttls": "tls", "implicit": "ssl"}[target.tls],
        "smtpSSLCertPath": target.ca_file,
        "smtpDomain": "git.test",
        "from": f"App <{FROM}>",
        "envelopeSender": message.sender(target.name),
        "confirm": "never",
        "suppressCc": "all",
        "transferEncoding": "8bit",
    }
    if target.login:
        settings |= {"smtpUser": target.login, "smtpPass": target.password, "smtpAuth": "PLAIN"}
    commands = [word for name, value in settings.items() for word in ("-c", f"sendemail.{name}={value}")]
    recipients = [f"--to={one}" for one in message.to] + [f"--bcc={one}" for one in message.bcc]
    patch = folder / f"{message.name}.patch"
    octets = (folder / f"{message.name}.eml").read_bytes().replace(b"\r\n", b"\n")
    patch.write_bytes(octets)
    return ["git", *commands, "send-email", "--quiet", *recipients, str(patch)], None


PROGRAMS: Final = {"curl": curl, "swaks": swaks, "msmtp": msmtp, "mutt": mutt, "git": git}
