"""The sink asks what SparkPost asks, and counts what it is sent."""

import smtplib
import socket
import ssl
import time

import pytest

from benchmarks.certificates import Certificates
from benchmarks.instruments import KeyCounters, Sink
from benchmarks.line import Line


def numbered(serial: int, body: str = "hello\r\n") -> str:
    """A message that the sink can tell from others."""
    return f"Received: from somewhere\r\nX-Bench-Serial: {serial:08d}\r\nSubject: test\r\n\r\n{body}"


def log_in(sink: Sink, issued: Certificates) -> smtplib.SMTP:
    """A client after verified STARTTLS and AUTH LOGIN."""
    client = smtplib.SMTP("localhost", sink.port, local_hostname="client.example", timeout=10)
    client.starttls(context=ssl.create_default_context(cafile=str(issued.ca)))
    client.login("SMTP_Injection", "any key")
    return client


def test_mail_before_tls_and_login_is_refused(sink: Sink, issued: Certificates) -> None:
    """Neither MAIL nor AUTH in the clear, nor MAIL before AUTH under TLS."""
    with smtplib.SMTP("localhost", sink.port, timeout=10) as client:
        client.ehlo()
        clear = (client.has_extn("auth"), client.docmd("MAIL", "FROM:<a@b.example>"), client.docmd("AUTH", "LOGIN"))
        client.starttls(context=ssl.create_default_context(cafile=str(issued.ca)))
        client.ehlo()
        tls = (client.has_extn("starttls"), client.docmd("MAIL", "FROM:<a@b.example>"))

        assert (clear[0], clear[1][0], clear[2][0]) == (False, 530, 530)
        assert (tls[0], tls[1][0]) == (False, 530)
    assert sink.read().refusals == 3


def test_it_counts_messages_octets_and_round_trips(sink: Sink, issued: Certificates) -> None:
    """Two messages on one connection: every counter is exactly what the dialogue was."""
    with log_in(sink, issued) as client:
        before = sink.read()
        for serial in (1, 2):
            client.sendmail("a@b.example", ["c@d.example"], numbered(serial))
        after = sink.read()

    assert (after.messages, after.distinct, after.connections, after.handshakes, after.auths) == (2, 2, 1, 1, 1)
    assert after.octets == 2 * len(numbered(1))
    assert after.flights - before.flights == 8  # MAIL, RCPT, DATA, content
    assert after.mail_flights - before.mail_flights == 8
    assert before.mail_flights == 0  # the dial and the login are not mail
    assert after.commands - before.commands == 6
    assert before.at < after.last_message_at < after.at


def test_a_duplicate_is_not_taken_for_another_message(sink: Sink, issued: Certificates) -> None:
    """The same serial number twice is two messages, one of them distinct."""
    with log_in(sink, issued) as client:
        for serial in (5, 5, 6):
            client.sendmail("a@b.example", ["c@d.example"], numbered(serial))

    counters = sink.read()
    assert (counters.messages, counters.distinct) == (3, 2)


@pytest.mark.parametrize(
    "body", ["", "\r\n", "..\r\n", "..stuffed\r\nline.\r\n", "\r\n" * 40_000, "x" * 200_000 + "\r\n"]
)
def test_only_a_lone_dot_ends_the_content(sink: Sink, issued: Certificates, body: str) -> None:
    """Whatever the content, and however its octets arrive, the message ends where it ends."""
    content = body.encode() + b".\r\n"
    with log_in(sink, issued) as client:
        for pieces in ([content], [content[:-4], content[-4:]], [bytes([octet]) for octet in content]):
            if len(pieces) > 1000:
                continue  # octet by octet only where that is quick
            for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
                client.docmd(line)
            before = sink.read()
            for piece in pieces:
                client.send(piece)

            assert client.getreply()[0] == 250
            assert sink.read().octets - before.octets == len(body)


def test_pipelined_commands_are_one_round_trip(sink: Sink, issued: Certificates) -> None:
    """Content followed by the next transaction's commands is answered in order, in one flight."""
    with log_in(sink, issued) as client:
        client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        replies = [client.getreply()[0] for _ in range(3)]
        before = sink.read()
        client.send(b"hello\r\n.\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        replies += [client.getreply()[0] for _ in range(4)]
        flights = sink.read().flights - before.flights
        client.send(b".\r\n")
        replies.append(client.getreply()[0])

    assert replies == [250, 250, 354, 250, 250, 250, 354, 250]
    assert flights == 1


def test_commands_without_number_are_all_answered(sink: Sink, issued: Certificates) -> None:
    """A flight whose replies do not fit into the output buffer is answered in several goes."""
    with log_in(sink, issued) as client:
        client.send(b"NOOP\r\n" * 5000)

        assert {client.getreply()[0] for _ in range(5000)} == {250}


def test_the_reply_delay_is_paid_once_per_flight(issued: Certificates) -> None:
    """Three pipelined commands wait together, not one after the other."""
    with Sink(issued, reply_delay_ms=100) as sink, log_in(sink, issued) as client:
        begun = time.monotonic()
        client.send(b"NOOP\r\nNOOP\r\nNOOP\r\n")
        for _ in range(3):
            client.getreply()

        assert 0.1 <= time.monotonic() - begun < 0.3


def test_a_goodbye_is_no_round_trip_of_mail(sink: Sink, issued: Certificates) -> None:
    """QUIT is a flight; together with a final dot it counts as mail."""
    with log_in(sink, issued) as client:
        before = sink.read()
    after = sink.read()
    assert (after.flights - before.flights, after.mail_flights) == (1, 0)

    client = log_in(sink, issued)
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"):
        client.docmd(line)
    client.send(b"hello\r\n.\r\nQUIT\r\n")
    assert [client.getreply()[0] for _ in range(2)] == [250, 221]
    client.close()
    assert sink.read().mail_flights == 4


def test_a_flight_in_pieces_is_one_round_trip(issued: Certificates) -> None:
    """Who says how far away it is may let its octets arrive as they like."""
    with Sink(issued, line=Far()) as sink, log_in(sink, issued) as client:
        time.sleep(0.06)
        before = sink.read()
        for line in (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n"):
            client.send(line)
            client.getreply()

        assert sink.read().flights - before.flights == 1


class Far(Line):
    """Says that it is 100 ms long, and is not."""

    rtt_ms = 100.0


def test_keys_have_an_account_each(issued: Certificates) -> None:
    """Logins and messages by key, and the one that is to be refused is."""
    with Sink(issued, refused_key="a revoked key") as sink:
        with log_in(sink, issued) as client:
            client.sendmail("a@b.example", ["c@d.example"], numbered(1))
        with smtplib.SMTP("localhost", sink.port, timeout=10) as client:
            client.starttls(context=ssl.create_default_context(cafile=str(issued.ca)))
            with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
                client.login("SMTP_Injection", "a revoked key")
        counters = sink.read()

    assert counters.of_key("any key") == KeyCounters(logins=1, refused=0, messages=1)
    assert counters.of_key("a revoked key") == KeyCounters(logins=1, refused=1, messages=0)
    assert counters.of_key("a key that nobody used") == KeyCounters()


def test_a_blocked_port_resets_and_says_nothing(issued: Certificates) -> None:
    """The other port goes on; opened again, the first one greets."""
    with Sink(issued, port_count=2) as sink, log_in(sink, issued) as client:
        sink.block_or_open()
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
            client.noop()
        with socket.create_connection(("127.0.0.1", sink.port), timeout=0.2) as mute, pytest.raises(TimeoutError):
            mute.recv(4)
        assert greeting(sink.ports[1]) == b"220 "
        sink.block_or_open()
        assert greeting(sink.port) == b"220 "


def greeting(port: int) -> bytes:
    """The first octets of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        return client.recv(4)
