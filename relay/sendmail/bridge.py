"""`-bs`: the caller speaks SMTP on stdin and stdout; the octets go to the relay and come back, unread."""

import os
import select
import socket

from relay.sendmail.client import connect
from relay.sendmail.failure import Failure
from relay.sendmail.place import Place

_CHUNK = 1 << 16


def bridge(place: Place, source: int = 0, sink: int = 1) -> int:
    """Carry octets both ways until the relay closes. The end of stdin is passed on, so that the last reply comes.

    A caller that does not read stops nothing but its own replies, and the other way round: otherwise each side could
    wait for the other for ever. Whom the relay does not hear gets a 421, and EX_TEMPFAIL.
    """
    try:
        connection = connect(place)
    except Failure as failure:
        _tell(sink, f"421 4.4.1 {failure}"[:500].encode("ascii", "replace") + b"\r\n")
        raise
    connection.setblocking(False)
    with connection:
        try:
            _carry(connection, source, sink)
        except OSError as error:
            raise Failure(os.EX_TEMPFAIL, f"the dialogue with {place} broke off: {error.strerror or error}") from None
    return os.EX_OK


def _carry(connection: socket.socket, source: int, sink: int) -> None:
    to_relay, to_caller = b"", b""
    reading, hearing = True, True
    while hearing or to_caller:
        readers = [source] if reading and not to_relay else []
        readers += [connection.fileno()] if hearing and not to_caller else []
        writers = ([connection.fileno()] if to_relay else []) + ([sink] if to_caller else [])
        readable, writable, _ = select.select(readers, writers, [])
        if source in readable:
            to_relay = os.read(source, _CHUNK)
            if not to_relay:
                reading = False
                _end_of_input(connection)
        if connection.fileno() in readable:
            to_caller = connection.recv(_CHUNK)
            hearing = bool(to_caller)
        if connection.fileno() in writable:
            try:
                to_relay = to_relay[connection.send(to_relay) :]
            except OSError:  # it has hung up; what it said before that is still to be heard
                to_relay, reading = b"", False
        if sink in writable:
            # A pipe that can be written to takes at least so much without blocking (POSIX: PIPE_BUF).
            to_caller = to_caller[os.write(sink, to_caller[: select.PIPE_BUF]) :]


def _end_of_input(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # it has hung up already


def _tell(descriptor: int, octets: bytes) -> None:
    try:
        os.write(descriptor, octets)
    except OSError:
        return  # the status and stderr say it too
