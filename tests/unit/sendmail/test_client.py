"""The transaction: what is said to a server that answers by a script, and what its answers come to."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay.sendmail import client as client_module
from relay.sendmail.client import Client, Mail
from relay.sendmail.failure import Failure
from relay.sendmail.place import Place

HANG_UP = b""
LINE = b"A: 1\r\n"
OK = b"250 2.0.0 ok\r\n"
GO_AHEAD = b"354 go ahead\r\n"
GREETING = (b"220 relay.test\r\n", b"250-relay.test\r\n250-SIZE 1000\r\n250 8BITMIME\r\n")


class Server:
    """Answers each command with the next line of a script, and the end of a message like a command."""

    def __init__(self, listener: socket.socket, replies: tuple[bytes, ...]) -> None:
        self._listener = listener
        self._replies = replies
        self.heard: list[bytes] = []

    def run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            for reply in self._replies:
                if reply == HANG_UP:
                    return
                connection.sendall(reply)
                self.heard.append(self._data(lines) if reply == GO_AHEAD else lines.readline())

    def _data(self, lines) -> bytes:
        content = b""
        while (line := lines.readline()) not in (b".\r\n", b""):
            content += line
        return content


@contextmanager
def server(*replies: bytes) -> Iterator[tuple[Server, Place]]:
    """A server on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        one = Server(listener, replies)
        thread = threading.Thread(target=one.run)
        thread.start()
        yield one, Place("127.0.0.1", listener.getsockname()[1], "", "the test")
        thread.join(20)


def mail(*recipients: str, **more) -> Mail:
    return Mail("a@b.c", list(recipients) or ["d@e.f"], 7, **{"eight_bit": False, **more})


def hand_over(one: Mail, place: Place, *, lines: int = 1, verbose: bool = False) -> int:
    """Send a message of so many lines."""
    with Client(place, verbose=verbose) as client:
        client.greet("client.test")
        return client.send(one, lambda: [LINE] * lines)


def send(one: Mail, *replies: bytes, greeting: tuple[bytes, ...] = GREETING) -> tuple[int, list[bytes]]:
    """The status, and what the server heard."""
    with server(*greeting, *replies) as (answering, place):
        status = hand_over(one, place)
    return status, answering.heard


def refused(one: Mail, *replies: bytes, greeting: tuple[bytes, ...] = GREETING) -> tuple[int, str]:
    """The status and the text of a message that is not taken."""
    with server(*greeting, *replies) as (_, place), pytest.raises(Failure) as caught:
        hand_over(one, place)
    return caught.value.status, str(caught.value)


def test_a_message_that_is_taken():
    """Each command waits for its reply; the size is told where it is asked for."""
    status, heard = send(mail("d@e.f", "g@h.i"), OK, OK, OK, GO_AHEAD, OK)

    assert status == os.EX_OK
    assert heard == [
        b"EHLO client.test\r\n",
        b"MAIL FROM:<a@b.c> SIZE=7\r\n",
        b"RCPT TO:<d@e.f>\r\n",
        b"RCPT TO:<g@h.i>\r\n",
        b"DATA\r\n",
        LINE,
        b"QUIT\r\n",
    ]


def test_parameters():
    """8-bit content is announced; what the caller wants for DSN is passed on."""
    _, heard = send(mail(eight_bit=True, mail=" RET=HDRS ENVID=x", rcpt=" NOTIFY=NEVER"), OK, OK, GO_AHEAD, OK)

    assert heard[1:3] == [
        b"MAIL FROM:<a@b.c> SIZE=7 BODY=8BITMIME RET=HDRS ENVID=x\r\n",
        b"RCPT TO:<d@e.f> NOTIFY=NEVER\r\n",
    ]


def test_a_server_without_ehlo():
    """HELO, and no parameter that it would not know."""
    greeting = (GREETING[0], b"502 no\r\n", OK)
    _, heard = send(mail(eight_bit=True), OK, OK, GO_AHEAD, OK, greeting=greeting)

    assert heard[1:3] == [b"HELO client.test\r\n", b"MAIL FROM:<a@b.c>\r\n"]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"550 5.1.1 no such user\r\n", os.EX_NOUSER),
        (b"553 5.1.3 bad address\r\n", os.EX_NOUSER),
        (b"550 5.7.1 not allowed\r\n", os.EX_NOPERM),
        (b"530 log in first\r\n", os.EX_NOPERM),
        (b"552 5.3.4 too large\r\n", os.EX_DATAERR),
        (b"554 5.6.0 bad content\r\n", os.EX_DATAERR),
        (b"554 5.5.0 no\r\n", os.EX_UNAVAILABLE),
        (b"550 no\r\n", os.EX_UNAVAILABLE),
        (b"451 4.3.0 later\r\n", os.EX_TEMPFAIL),
        (b"421 4.7.0 later\r\n", os.EX_TEMPFAIL),
        (b"450 5.1.1 both\r\n", os.EX_TEMPFAIL),
    ],
)
@pytest.mark.parametrize("before", [(), (OK,), (OK, OK), (OK, OK, GO_AHEAD)], ids=["MAIL", "RCPT", "DATA", "dot"])
def test_a_refusal_becomes_a_status(before, reply, status):
    """At whatever command; the reply is in the text."""
    got, text = refused(mail(), *before, reply)

    assert got == status
    assert reply.decode().strip() in text


@pytest.mark.parametrize(
    ("greeting", "status"),
    [
        ((b"554 5.7.1 not in this listener's networks\r\n",), os.EX_NOPERM),
        ((b"421 4.7.0 too many\r\n",), os.EX_TEMPFAIL),
        ((HANG_UP,), os.EX_TEMPFAIL),
        ((b"HTTP/1.1 400 Bad Request\r\n",), os.EX_TEMPFAIL),
        ((b"2" * 100_000,), os.EX_TEMPFAIL),
        ((GREETING[0], b"550 5.7.1 no\r\n"), os.EX_NOPERM),
    ],
)
def test_a_greeting_that_is_no_welcome(greeting, status):
    """Whatever listens there."""
    assert refused(mail(), greeting=greeting)[0] == status


def test_recipients_refused_for_good_do_not_keep_the_others_from_their_mail(capfd):
    """They are named; the first of them decides on the status."""
    status, heard = send(
        mail("x@y.z", "d@e.f", "w@y.z"), OK, b"550 5.1.1 no\r\n", OK, b"550 5.7.1 no\r\n", GO_AHEAD, OK
    )

    assert status == os.EX_NOUSER
    assert LINE in heard
    said = capfd.readouterr().err
    assert "sendmail: x@y.z was refused by the relay at 127.0.0.1:" in said
    assert "550 5.1.1 no. The others are served" in said
    assert "w@y.z" in said


def test_not_now_for_one_recipient_keeps_the_message_from_all():
    """So that all may be tried again."""
    status, text = refused(mail("d@e.f", "x@y.z"), OK, OK, b"451 4.3.0 later\r\n")

    assert status == os.EX_TEMPFAIL
    assert "x@y.z was refused" in text


def test_all_recipients_refused(capfd):
    """The first one's reply is the answer, the others are told too."""
    status, text = refused(mail("x@y.z", "w@y.z"), OK, b"550 5.1.1 no\r\n", b"550 5.1.1 neither\r\n")

    assert status == os.EX_NOUSER
    assert "x@y.z was refused" in text
    assert "w@y.z was refused as well: 550 5.1.1 neither" in capfd.readouterr().err


def test_too_many_recipients_go_in_several_transactions():
    """RFC 5321, section 4.5.3.1.10: what is above the limit waits for the next one."""
    too_many = b"452 4.5.3 too many\r\n"
    status, heard = send(mail("d@e.f", "g@h.i"), OK, OK, too_many, GO_AHEAD, OK, OK, OK, GO_AHEAD, OK)

    assert status == os.EX_OK
    assert [line for line in heard if line.startswith((b"RCPT", b"A:"))] == [
        b"RCPT TO:<d@e.f>\r\n",
        b"RCPT TO:<g@h.i>\r\n",
        LINE,
        b"RCPT TO:<g@h.i>\r\n",
        LINE,
    ]


def test_a_second_transaction_that_fails_says_whom_the_first_one_served():
    """Trying all again would make second copies."""
    status, text = refused(mail("d@e.f", "g@h.i"), OK, OK, b"452 4.5.3 many\r\n", GO_AHEAD, OK, b"451 4.3.0 later\r\n")

    assert status == os.EX_TEMPFAIL
    assert "The first 1 recipients are served, those behind them are not" in text


def test_one_recipient_that_is_too_many_is_a_refusal():
    """No transaction could be smaller."""
    assert refused(mail(), OK, b"452 4.5.3 too many\r\n")[0] == os.EX_TEMPFAIL


def test_a_relay_that_is_gone_before_the_dot():
    """Nothing was sent."""
    status, text = refused(mail(), OK, OK, HANG_UP)

    assert status == os.EX_TEMPFAIL
    assert text.endswith("Nothing was sent")


def test_a_relay_that_is_gone_after_the_dot():
    """Nobody knows."""
    status, text = refused(mail(), OK, OK, GO_AHEAD, HANG_UP)

    assert status == os.EX_TEMPFAIL
    assert "may have been delivered" in text


def _reset(place_of_death: int) -> tuple[int, str]:
    """What is said when the connection is reset instead of the n-th reply."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with connection, connection.makefile("rb") as lines:
                for reply in (*GREETING, OK, OK, GO_AHEAD)[:place_of_death]:
                    connection.sendall(reply)
                    while (line := lines.readline()) == LINE:
                        pass  # the content, up to its dot
                    assert line

        thread = threading.Thread(target=run)
        thread.start()
        with pytest.raises(Failure) as caught:
            hand_over(mail(), Place("127.0.0.1", listener.getsockname()[1], "", "the test"))
        thread.join()
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("place_of_death", range(6))
def test_a_reset_at_any_command(place_of_death):
    """Not now; and only behind the dot is there any doubt."""
    status, text = _reset(place_of_death)

    assert status == os.EX_TEMPFAIL
    assert text.endswith("Nothing was sent") == (place_of_death < 5)


def test_a_relay_that_is_silent_after_the_dot(monkeypatch):
    """The same, after a while."""
    monkeypatch.setattr(client_module, "FINAL_SECONDS", 0.05)
    status, text = refused(mail(), OK, OK, GO_AHEAD, b"250-half a re")

    assert status == os.EX_TEMPFAIL
    assert "did not answer in time. The message may have been delivered" in text


def _cut_off(*words: bytes) -> tuple[int, str]:
    """What is said when the relay resets the connection within a long message, perhaps with a last word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for reply in (*GREETING, OK, OK, GO_AHEAD):
                    connection.sendall(reply)
                    lines.readline()
                for word in words:
                    connection.sendall(word)

        thread = threading.Thread(target=run)
        thread.start()
        place = Place("127.0.0.1", listener.getsockname()[1], "", "the test")
        with pytest.raises(Failure) as caught:
            hand_over(mail(), place, lines=1_000_000)
        thread.join()
    return caught.value.status, str(caught.value)


def test_a_relay_that_dies_within_the_message():
    """Without its dot it is no message."""
    status, text = _cut_off()

    assert status == os.EX_TEMPFAIL
    assert "in the midst of the message" in text
    assert "Nothing was sent" in text


def test_a_relay_that_gives_its_reason_before_it_hangs_up():
    """The reason counts."""
    status, text = _cut_off(b"552 5.3.4 too large\r\n")

    assert status == os.EX_DATAERR
    assert "the message was refused" in text
    assert "552 5.3.4 too large" in text


def test_what_the_relay_shows_is_printable(capfd):
    """No reply of whoever listens there steers the terminal."""
    _, text = refused(mail(), b"550 5.1.1 \x1b[2J\xff no\r\n")

    assert text.isprintable()
    assert "5.1.1 ?[2J" in text


def test_a_place_where_nobody_listens(tmp_path):
    """It says where it looked and why there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for place, shown in (
            (Place("127.0.0.1", port, "", "the test"), f"127.0.0.1:{port} (the test): Connection refused"),
            (Place("", 0, str(tmp_path / "sock"), "the test"), f"unix:{tmp_path}/sock (the test): No such file"),
        ):
            with pytest.raises(Failure) as caught:
                Client(place, verbose=False)
            assert caught.value.status == os.EX_TEMPFAIL
            assert shown in str(caught.value)


def test_a_unix_socket(tmp_path):
    """The same dialogue."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        answering = Server(listener, (*GREETING, OK, OK, GO_AHEAD, OK))
        thread = threading.Thread(target=answering.run)
        thread.start()
        status = hand_over(mail(), Place("", 0, path, "the test"))
        thread.join()

    assert status == os.EX_OK
    assert LINE in answering.heard


def test_verbose_shows_every_reply(capfd):
    """On stderr."""
    with server(*GREETING, OK, OK, GO_AHEAD, OK) as (_, place):
        hand_over(mail(), place, verbose=True)

    assert "sendmail: the final dot: 250 2.0.0 ok" in capfd.readouterr().err


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_localhost_needs_no_name_server(monkeypatch, family, address):
    """It is 127.0.0.1 and ::1, as for the relay, also in a chroot without /etc/hosts."""
    asked = socket.getaddrinfo

    def no_names(host, *rest):
        if not set(host) <= set("0123456789.:"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return asked(host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with client_module.connect(Place("localhost", port, "", "here")) as connection:
            peer = connection.getpeername()
        with pytest.raises(Failure, match="Temporary failure in name resolution"):
            client_module.connect(Place("relay.test", port, "", "here"))

    assert peer[:2] == (address, port)
    with pytest.raises(Failure, match=r"localhost:\d+ .*: Connection refused"):
        client_module.connect(Place("localhost", port, "", "here"))
