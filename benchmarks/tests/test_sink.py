"""The sink asks what SparkPost asks, and counts what it is sent."""

import smtplib
import ssl
import time

import pytest

from benchmarks.certificates import Certificates
from benchmarks.instruments import Sink


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
