"""Keys in files may change while the relay runs: noticed within a second, and read anew.

A file that cannot be read, or holds no secret, leaves the key as it was: it may be halfway through being replaced. A
pipe (`/dev/fd/63` of a shell, what `sops exec-file` makes) gives its key once, at the start, and is not read again:
that would stop the relay for as long as nobody writes to it.
"""

import os
from collections.abc import Callable, Mapping

from relay.config.problems import Path
from relay.config.secrets import SecretError, is_stream, read_reference, reference_file
from relay.core.secret import Secret

Signature = tuple[int, int, int, int] | None


class KeyFiles:
    """The files that hold API keys.

    `changed` is told the credential's name and the key its file has now; it may be the one it had. `unreadable` is told
    the credential's name and what is wrong with its file.
    """

    def __init__(
        self,
        references: Mapping[Path, Mapping[str, str]],
        environ: Mapping[str, str],
        changed: Callable[[str, Secret], None],
        unreadable: Callable[[str, str], None],
    ) -> None:
        """`references`: how each secret of the configuration was given."""
        self._environ = environ
        self._changed = changed
        self._unreadable = unreadable
        self._files = {
            str(path[1]): (reference, file)
            for path, reference in references.items()
            if path[0] == "credentials" and path[2:] == ("api_key",)
            if (file := reference_file(reference, environ)) is not None
        }
        self._seen: dict[str, Signature] = {}

    def look(self) -> None:
        """Read what has changed since the last look.

        The first look reads every file: one may have changed since the configuration was loaded.
        """
        for name, (reference, file) in self._files.items():
            signature = signature_of(file)  # before the file is read, so that a change meanwhile is seen next time
            if name in self._seen and signature == self._seen[name]:
                continue
            self._seen[name] = signature
            if is_stream(file):
                continue
            try:
                key = read_reference(reference, self._environ)
            except SecretError as error:
                self._unreadable(name, str(error))
            else:
                self._changed(name, key)


def signature_of(file: str) -> Signature:
    """What is another one as soon as the file is another one, or has changed; None if it is not there."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    # The time of the change, too: tools that copy a file with its times set the other one back.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
