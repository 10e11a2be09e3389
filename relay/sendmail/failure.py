"""How it ends: a status of sysexits(3) for the calling program, a line on stderr for people."""

import os


class Failure(Exception):
    """The message cannot be sent, or not now. `status` is one of `os.EX_…`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def complain(text: str) -> None:
    """Say it on stderr. Where nobody listens there (a closed descriptor, a broken pipe) the status has to do."""
    try:
        os.write(2, f"sendmail: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return
