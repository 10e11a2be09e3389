"""A file that is there as a whole or not at all, whatever the disk does meanwhile."""

import os
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
FOR_ALL: Final = 0o644
USUAL: Final = 0o666  # less the umask, as of any file


def write_whole(path: Path, octets: bytes, *, mode: int = USUAL) -> None:
    """The name appears only when the octets are there, and nobody whom `mode` keeps out reads them for a moment.

    Raises OSError, and then nothing is left of it.
    """
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(octets)
        os.replace(draft, path)
    except OSError:  # a full disk: what is there of it would keep it full
        draft.unlink(missing_ok=True)
        raise
