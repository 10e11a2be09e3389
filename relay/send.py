"""`sparkpost-relay send`: one test message through a running relay, with the dialogue shown."""

import smtplib
import socket
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any


class _ShowingSMTP(smtplib.SMTP):
    """smtplib's client that shows what is said, but never what is presented as a password."""

    _hidden = False

    def putcmd(self, cmd: str, args: str = "") -> None:
        print(f"  -> {cmd} ********" if self._hidden or cmd == "AUTH" else f"  -> {cmd} {args}".rstrip())
        super().putcmd(cmd, args)

    def getreply(self) -> tuple[int, bytes]:
        code, text = super().getreply()
        for line in text.decode("ascii", "replace").splitlines():
            print(f"  <- {code} {line}")
        return code, text

    def auth(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        self._hidden = True
        try:
            return super().auth(*args, **kwargs)
        finally:
            self._hidden = False


def send_test_message(*, to: str, mail_from: str, via: str, login: str | None, password: str | None) -> int:
    """Send it; 0 if the relay accepted it, 1 if not or if it cannot be reached. `via` is HOST:PORT."""
    host, _, port = via.rpartition(":")
    if not host or not port.isdigit():
        print(f"--via {via}: HOST:PORT is expected, for example localhost:2525")
        return 1
    message = EmailMessage()
    message["From"], message["To"] = mail_from, to
    message["Subject"] = "Test message from sparkpost-relay"
    message["Date"], message["Message-ID"] = formatdate(localtime=True), make_msgid(domain=mail_from.rpartition("@")[2])
    message.set_content(f"This is a test message.\n\nIt was sent on {socket.gethostname()} by way of {via}.\n")
    try:
        with _ShowingSMTP(host.strip("[]"), int(port), timeout=660) as relay:
            relay.ehlo()
            if relay.has_extn("starttls"):
                relay.starttls()
                relay.ehlo()
            if login is not None and password is not None:
                relay.login(login, password)
            relay.send_message(message)
    except smtplib.SMTPException as error:
        print(f"not accepted: {_reason(error)}")
        return 1
    except OSError as error:
        print(f"{via}: {error.strerror or error}. Does the relay listen there? Its log says where it does at start-up.")
        return 1
    print("accepted")
    return 0


def _reason(error: smtplib.SMTPException) -> str:
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            return "; ".join(f"{to}: {code} {text.decode('ascii', 'replace')}" for to, (code, text) in refused.items())
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=text):
            return f"{code} {text.decode('ascii', 'replace') if isinstance(text, bytes) else text}"
        case _:
            return str(error) or type(error).__name__
