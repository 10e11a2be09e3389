"""`-bs` when one of the three breaks off: the caller, the program between, or the relay."""

import os
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from relay.sendmail.bridge import bridge
from relay.sendmail.failure import Failure
from relay.sendmail.place import Place


def bridged(relay: Callable[[socket.socket], None], said: bytes, *, deaf: bool = False) -> tuple[int, bytes]:
    """The status and what the caller heard, who says this and perhaps has nobody who listens; raises Failure."""
    source, saying = os.pipe()
    hearing, sink = os.pipe()
    os.write(saying, said)
    if deaf:
        os.close(hearing)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                relay(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            status = bridge(Place("127.0.0.1", listener.getsockname()[1], "", "the test"), source, sink)
        finally:
            thread.join()
            for descriptor in (source, saying, sink):
                os.close(descriptor)
    with open(hearing, "rb") as heard:
        return status, heard.read()


def test_a_relay_that_hangs_up_ends_it():
    """Though the caller has not: its last words arrive."""

    def relay(connection: socket.socket) -> None:
        connection.recv(8, socket.MSG_WAITALL)
        connection.sendall(b"421 4.3.2 going down\r\n")

    assert bridged(relay, b"EHLO c\r\n") == (os.EX_OK, b"421 4.3.2 going down\r\n")


def test_a_relay_that_is_killed():
    """A reset is no goodbye."""

    def relay(connection: socket.socket) -> None:
        connection.recv(4)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with pytest.raises(Failure, match="broke off: Connection reset") as caught:
        bridged(relay, b"EHLO c\r\n")

    assert caught.value.status == os.EX_TEMPFAIL


def test_a_caller_that_does_not_listen_any_more():
    """There is nobody to talk for."""

    def relay(connection: socket.socket) -> None:
        connection.sendall(b"220 x\r\n")
        connection.recv(1)

    with pytest.raises(Failure, match="broke off: Broken pipe") as caught:
        bridged(relay, b"x", deaf=True)

    assert caught.value.status == os.EX_TEMPFAIL
