"""`sparkpost-relay send`: one test message through a running relay, with the dialogue shown."""

import ipaddress
import re
import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import formatdate, getaddresses, make_msgid
from pathlib import Path
from typing import Any, Final

from relay.admin.tables import printable
from relay.sockets import connect_unix

UNIX: Final = "unix:"
GREETING_PATIENCE: Final = 30.0  # seconds; a relay that listens greets at once
PATIENCE: Final = 660.0  # seconds; the relay may wait ten minutes for SparkPost's reply to the final dot


class _NoGreeting(Exception):
    """The connection has ended, or was given up, before anything was said on it."""


class _Unsafe(Exception):
    """Why a password is kept back."""


class _Utf8(str):
    """A login as RFC 4616 wants it on the wire; smtplib asks for ASCII, and fails at a name or password beyond it."""

    def encode(self, *_: Any) -> bytes:
        return super().encode()


class _ShowingSMTP(smtplib.SMTP):
    """smtplib's client that shows what is said, but never what is presented as a password."""

    _hidden = False

    def connect(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        try:
            greeting = super().connect(*args, **kwargs)
        except smtplib.SMTPServerDisconnected as error:
            raise _NoGreeting from error
        assert self.sock is not None
        self.sock.settimeout(PATIENCE)
        return greeting

    def putcmd(self, cmd: str, args: str = "") -> None:
        # What answers a 334 is the password, or the user name before it, in the place of a command.
        shown = f"{cmd} {args}".rstrip() if not self._hidden else "AUTH ********" if cmd == "AUTH" else "********"
        print(f"  -> {shown}")
        super().putcmd(cmd, args)

    def getreply(self) -> tuple[int, bytes]:
        code, text = super().getreply()
        for line in text.decode("ascii", "replace").splitlines():
            print(f"  <- {code} {printable(line)}")
        return code, text

    def auth(self, mechanism: str, authobject: Any, **kwargs: Any) -> tuple[int, bytes]:
        def in_utf8(challenge: bytes | None = None) -> Any:
            said = authobject(challenge)
            return None if said is None else _Utf8(said)

        self._hidden = True
        try:
            return super().auth(mechanism, in_utf8, **kwargs)
        finally:
            self._hidden = False


class _ByUnixSocket(_ShowingSMTP):
    """The same by a Unix socket: smtplib's host is its path."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return connect_unix(Path(host), timeout=timeout)


def _connect(via: str) -> smtplib.SMTP | None:
    """A connection to the relay, None if `via` is no place; raises OSError or SMTPException."""
    if via.startswith(UNIX):
        path = via.removeprefix(UNIX)
        return _ByUnixSocket(path, 1, _own_name(), timeout=GREETING_PATIENCE) if path else None
    host, _, port = via.rpartition(":")
    host = host.strip("[]")
    if not host or re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        return None
    try:
        return _ShowingSMTP(host, int(port), _own_name(), timeout=GREETING_PATIENCE)
    except UnicodeError:  # a name with an empty label, or one that is too long
        return None


def _own_name() -> str:
    """What is said in EHLO. smtplib would ask the name servers, and wait for them where they are silent."""
    name = socket.gethostname()
    return name if "." in name else "[127.0.0.1]"


def _stays_here(sock: socket.socket) -> bool:
    """Whether what is said on a connection leaves this host: not by a Unix socket, nor by a loopback address."""
    if sock.family == socket.AF_UNIX:
        return True
    address = ipaddress.ip_address(sock.getpeername()[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _secure(relay: smtplib.SMTP, *, for_password: bool) -> None:
    """STARTTLS where it is offered; verified `for_password`, and then _Unsafe is raised where it cannot be had."""
    offered = relay.has_extn("starttls")
    if for_password and not offered:
        raise _Unsafe("it offers no STARTTLS, and what is said without leaves this host in clear")
    if not offered:
        return
    try:
        # What this host trusts, or what SSL_CERT_FILE and SSL_CERT_DIR name.
        relay.starttls(context=ssl.create_default_context() if for_password else None)
    except ssl.SSLCertVerificationError as error:
        raise _Unsafe(
            f"its certificate does not verify ({error.verify_message}). If a CA of your own has issued it, name that:"
            " SSL_CERT_FILE=/path/to/ca.pem; --via takes the host by the name that is in the certificate"
        ) from error
    relay.ehlo()


def _is_one_address(text: str) -> bool:
    """Whether `text` can stand in a header and names one mailbox, whatever the relay will say to that."""
    addresses = getaddresses([text])
    return "\r" not in text and "\n" not in text and len(addresses) == 1 and bool(addresses[0][1] or text == "<>")


def _message(to: str, mail_from: str, via: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = mail_from, to
    message["Subject"] = "Test message from sparkpost-relay"
    domain = getaddresses([mail_from])[0][1].rpartition("@")[2]
    message["Date"], message["Message-ID"] = (
        formatdate(localtime=True),
        make_msgid(domain=domain or socket.gethostname()),
    )
    message.set_content(f"This is a test message.\n\nIt was sent on {socket.gethostname()} by way of {via}.\n")
    return message


def send_test_message(*, to: str, mail_from: str, via: str, login: str | None, password: str | None) -> int:
    """Send it; 0 if the relay accepted it, 1 if not or if it cannot be reached. `via` is HOST:PORT or unix:/path."""
    for option, text in (("--to", to), ("--from", mail_from)):
        if not _is_one_address(text):
            print(f"{option} {text!r}: one address is expected, for example you@example.com")
            return 1
    shown = via.encode("utf-8", "backslashreplace").decode()  # a path may have octets that are no text
    message = _message(to, mail_from, shown)
    print(f"{shown}: connecting", flush=True)
    try:
        connection = _connect(via)
        if connection is None:
            print(f"--via {shown}: HOST:PORT is expected, for example localhost:2525, or unix:/path")
            return 1
        with connection as relay:
            relay.ehlo()
            assert relay.sock is not None
            _secure(relay, for_password=login is not None and not _stays_here(relay.sock))
            if login is not None and password is not None:
                relay.login(login, password)
            relay.send_message(message)
    except _NoGreeting:
        print(f"{shown}: no greeting came. TLS from the start (tls.mode: implicit) is not spoken here")
        return 1
    except _Unsafe as error:
        print(f"{shown}: the password was not sent: {error}")
        return 1
    except smtplib.SMTPException as error:
        print(f"not accepted: {printable(_reason(error))}")
        return 1
    except ssl.SSLError as error:
        print(f"{shown}: no TLS could be agreed on: {error.reason or error}")
        return 1
    except OSError as error:
        print(
            f"{shown}: {error.strerror or error}. Does the relay listen there? Its log says where it does at start-up."
        )
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
