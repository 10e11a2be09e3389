"""SMTP towards the relay, command by command, each reply understood as a status for the caller.

A refusal of some recipients for good (5yz) leaves the others served, as with every mail server. "Not now" (4yz) for one
of them, and nothing is sent: the caller may try all of it again without sending anybody a second copy.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable

from relay.sendmail.failure import Failure, complain
from relay.sendmail.place import Place

CONNECT_SECONDS = 10.0
REPLY_SECONDS = 300.0  # RFC 5321 §4.5.3.2
FINAL_SECONDS = 660.0  # the relay itself may wait 600 s for SparkPost
_LONGEST_REPLY = 1 << 16  # octets

_LINE = re.compile(rb"([2-5][0-9][0-9])([ -]?)([^\r\n]*)\r?\n")
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}\b")
# What a refusal for good is about (RFC 3463 §3), as sysexits(3) has it.
_STATUSES = {"1": os.EX_NOUSER, "6": os.EX_DATAERR, "7": os.EX_NOPERM}


class Reply:
    """What the relay answered: its code, and its text with the enhanced status code in it."""

    def __init__(self, code: int, lines: list[str]) -> None:
        self.code = code
        self.lines = lines

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}".rstrip()

    @property
    def good(self) -> bool:
        return self.code < 400

    @property
    def enhanced(self) -> str:
        found = _ENHANCED.match(self.lines[0])
        return found[0] if found else ""

    @property
    def status(self) -> int:
        """The exit status that a refusal comes to."""
        if self.code < 500:
            return os.EX_TEMPFAIL
        if self.enhanced == "5.3.4":  # too large
            return os.EX_DATAERR
        if self.code in (530, 535):
            return os.EX_NOPERM
        return _STATUSES.get(self.enhanced[2:3], os.EX_UNAVAILABLE)

    @property
    def too_many(self) -> bool:
        """The rest of the recipients go into another transaction (RFC 5321 §4.5.3.1.10)."""
        return self.code == 452 and self.enhanced in ("", "4.5.3")


class Mail:
    """What is to be sent: envelope, ESMTP parameters where the relay knows them, and the octets for the wire."""

    def __init__(
        self, sender: str, recipients: list[str], size: int, *, eight_bit: bool, mail: str = "", rcpt: str = ""
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.size = size
        self.eight_bit = eight_bit
        self.mail_parameters = mail
        self.rcpt_parameters = rcpt


def connect(place: Place) -> socket.socket:
    """A connection to the relay; raises Failure with EX_TEMPFAIL, which says where it was looked for."""
    try:
        return _unix(place.path) if place.path else _tcp(place.host, place.port)
    except OSError as error:
        text = (
            f"the relay cannot be reached at {place} ({place.found}): {error.strerror or error}. "
            "Is `sparkpost-relay serve` running? Nothing was sent"
        )
        raise Failure(os.EX_TEMPFAIL, text) from None


def _tcp(host: str, port: int) -> socket.socket:
    """localhost is what the relay takes it for, and not looked up: a chroot may have no /etc/hosts (RFC 6761 §6.3)."""
    if host.lower() != "localhost":
        return socket.create_connection((host, port), CONNECT_SECONDS)
    try:
        return socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
    except OSError:
        try:
            return socket.create_connection(("::1", port), CONNECT_SECONDS)
        except OSError:
            pass  # many hosts have no IPv6: what 127.0.0.1 said tells more
        raise


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class Client:
    """One connection to the relay."""

    def __init__(self, place: Place, *, verbose: bool) -> None:
        self._place = place
        self._verbose = verbose
        self._socket = connect(place)
        self._received = b""
        self._extensions: set[str] = set()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        """Say goodbye, and wait for nothing: all that matters has been answered by now."""
        try:
            self._socket.settimeout(0)
            self._socket.sendall(b"QUIT\r\n")
        except OSError:
            return
        finally:
            self._socket.close()

    def greet(self, name: str) -> None:
        """Read the banner and say EHLO, or HELO to a server that knows no better."""
        self._expect(self._reply("its greeting"), "the connection")
        answer = self._command(f"EHLO {name}")
        if answer.code in (500, 502):
            self._expect(self._command(f"HELO {name}"), "HELO")
            return
        self._expect(answer, "EHLO")
        self._extensions = {line.partition(" ")[0].upper() for line in answer.lines[1:]}

    def send(self, mail: Mail, blocks: Callable[[], Iterable[bytes]]) -> int:
        """Send it, in as many transactions as the relay wants. 0, or the status of the first refused recipient.

        Raises Failure when the message was not taken.
        """
        status, waiting, served = os.EX_OK, mail.recipients, 0
        while waiting:
            try:
                accepted, refused, waiting = self._transaction(mail, waiting, blocks)
            except Failure as failure:
                if served:
                    text = f"{failure}. The first {served} recipients are served, those behind them are not"
                    raise Failure(failure.status, text) from None
                raise
            served += accepted
            for recipient, answer in refused:
                complain(f"{recipient} was refused by the relay at {self._place}: {answer}. The others are served")
                status = status or answer.status
        return status

    def _transaction(
        self, mail: Mail, recipients: list[str], blocks: Callable[[], Iterable[bytes]]
    ) -> tuple[int, list[tuple[str, Reply]], list[str]]:
        """How many were served, who was refused, and who has to wait for the next transaction."""
        self._expect(self._command(f"MAIL FROM:<{mail.sender}>{self._mail_parameters(mail)}"), "the sender")
        refused: list[tuple[str, Reply]] = []
        waiting: list[str] = []
        accepted = 0
        for index, recipient in enumerate(recipients):
            answer = self._command(f"RCPT TO:<{recipient}>{mail.rcpt_parameters}")
            if answer.good:
                accepted += 1
            elif answer.too_many and accepted:
                waiting = recipients[index:]
                break
            elif answer.code >= 500:
                refused.append((recipient, answer))
            else:
                raise self._refusal(answer, recipient)
        if not accepted:
            for recipient, answer in refused[1:]:
                complain(f"{recipient} was refused as well: {answer}")
            raise self._refusal(refused[0][1], refused[0][0])
        answer = self._command("DATA")
        if answer.code != 354:
            raise self._refusal(answer, "the message")
        self._expect(self._data(blocks), "the message")
        return accepted, refused, waiting

    def _mail_parameters(self, mail: Mail) -> str:
        size = f" SIZE={mail.size}" if "SIZE" in self._extensions else ""
        body = " BODY=8BITMIME" if mail.eight_bit and "8BITMIME" in self._extensions else ""
        return size + body + mail.mail_parameters

    def _data(self, blocks: Callable[[], Iterable[bytes]]) -> Reply:
        """Send the content; the reply after the final dot, or one that came before it and ended the connection."""
        try:
            for block in blocks():
                self._socket.sendall(block)
            self._socket.sendall(b".\r\n")
        except OSError as error:
            return self._last_words(error)
        return self._reply("the final dot", final=True)

    def _last_words(self, cause: OSError) -> Reply:
        """What the relay said before it hung up in the midst of the message, if it did say something."""
        try:
            return self._read_reply()
        except (EOFError, OSError, ValueError):
            text = f"the relay at {self._place} hung up in the midst of the message: {cause.strerror or cause}"
            raise Failure(os.EX_TEMPFAIL, f"{text}. Nothing was sent") from None

    def _command(self, command: str) -> Reply:
        self._socket.settimeout(REPLY_SECONDS)
        try:
            self._socket.sendall(command.encode("ascii") + b"\r\n")
        except OSError as error:
            return self._last_words(error)
        return self._reply(command.partition(" ")[0])

    def _reply(self, what: str, *, final: bool = False) -> Reply:
        """The next reply; raises Failure with EX_TEMPFAIL if it does not come. Without the final one, nobody knows."""
        self._socket.settimeout(FINAL_SECONDS if final else REPLY_SECONDS)
        try:
            answer = self._read_reply()
        except TimeoutError:
            text = "did not answer in time"
        except EOFError:
            text = "hung up without an answer"
        except ValueError:
            text = "answered something that is no SMTP"
        except OSError as error:
            text = f"did not answer: {error.strerror or error}"
        else:
            if self._verbose:
                complain(f"{what}: {answer}")
            return answer
        end = (
            "The message may have been delivered; sending it again may make a second copy"
            if final
            else "Nothing was sent"
        )
        raise Failure(os.EX_TEMPFAIL, f"{what}: the relay at {self._place} {text}. {end}")

    def _read_reply(self) -> Reply:
        """Raises EOFError if the connection ends before it, ValueError if it is none."""
        lines: list[str] = []
        while True:
            found = _LINE.match(self._received)
            if found is None:
                if b"\n" in self._received or len(self._received) > _LONGEST_REPLY:
                    raise ValueError
                octets = self._socket.recv(4096)
                if not octets:
                    raise EOFError
                self._received += octets
                continue
            self._received = self._received[found.end() :]
            text = found[3].decode("ascii", "replace")
            lines.append("".join(one if one.isprintable() else "?" for one in text))
            if found[2] != b"-":
                return Reply(int(found[1]), lines)

    def _expect(self, answer: Reply, what: str) -> None:
        if not answer.good:
            raise self._refusal(answer, what)

    def _refusal(self, answer: Reply, what: str) -> Failure:
        return Failure(answer.status, f"{what} was refused by the relay at {self._place}: {answer}")
