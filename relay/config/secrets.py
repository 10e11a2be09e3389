"""Secrets: `{env: NAME}`, `{file: PATH}`, `{credential: NAME}` or plain text become `Secret`, and are never repeated.

No message here says what a value was, only what is wrong with it.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from relay.config.document import Document
from relay.config.keys import is_secret
from relay.config.pipes import read_patiently
from relay.config.problems import Path, Problem
from relay.core.secret import MASK, Secret

CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
_LARGEST: Final = 65_536
# Container runtimes mount secrets here readable for all, in a file system nobody else sees; no operator can mend that.
_RUNTIME_SECRETS: Final = FilePath("/run/secrets")
_FORMS: Final = "write text in quotes, {env: NAME}, {file: PATH} or {credential: NAME}"


class SecretError(ValueError):
    """A secret that cannot be had; the text says why and never what it was."""


@dataclass(slots=True)
class Resolved:
    """What became of the secrets: those given by reference, those in clear, what could not be had, what is unwise."""

    references: dict[Path, Mapping[str, str]] = field(default_factory=dict)
    literals: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def resolve(document: Document, environ: Mapping[str, str], *, streams: bool = True) -> Resolved:
    """Put a `Secret` in the place of every secret the document has; what cannot be resolved stays and is a problem.

    Without `streams` none is read from a pipe: that is for the relay, and who reads it first has taken it away.
    """
    resolved = Resolved()
    for path, value in document.walk():
        if not is_secret(path) or value is None:
            continue
        try:
            if not streams and isinstance(value, dict) and is_stream(reference_file(value, environ)):
                raise SecretError("a pipe is read by the relay alone")
            document.replace(path, read_reference(value, environ))
        except SecretError as error:
            resolved.problems.append(Problem(document.origin(path), path, str(error)))
            continue
        if isinstance(value, dict):
            resolved.references[path] = value
            resolved.warnings += (Problem(document.origin(path), path, text) for text in _unwise(value.get("file")))
        else:
            resolved.literals.append(path)
    return resolved


def reference_file(reference: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """The file behind a reference; None for a secret that is in none."""
    match reference:
        case {"file": str(name)}:
            return name
        case {"credential": str(name)}:
            return str(FilePath(environ.get(CREDENTIALS_DIRECTORY, ""), name))
        case _:
            return None


def is_stream(file: str | None) -> bool:
    """True for a pipe or a terminal: it gives what it has once, and reading it may last for ever."""
    try:
        mode = 0 if file is None else FilePath(file).stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def read_reference(value: Any, environ: Mapping[str, str]) -> Secret:
    """The secret that is written as `value`, in any of the ways there are; raises SecretError."""
    match value:
        case str():
            text = value
        case {"env": str(name), **rest} if not rest:
            text = _from_environment(name, environ)
        case {"file": str(name), **rest} if not rest:
            text = _from_file(FilePath(name))
        case {"credential": str(name), **rest} if not rest:
            text = _from_credential(name, environ)
        case dict():
            raise SecretError(f"not a way to name a secret: {_FORMS}")
        case _:
            raise SecretError(f"not text: {_FORMS}")
    if not text:
        raise SecretError("the secret is empty")
    if text == MASK:
        raise SecretError("this is the mask that is printed in place of a secret: give the secret itself")
    if not text.isprintable():
        raise SecretError("the secret has line ends or control characters in it: it must be one line")
    return Secret(text)


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise SecretError(f"the environment has no {name}: set it, or name another source")
    if not environ[name]:
        raise SecretError(f"{name} is empty")
    return environ[name]


def _from_file(path: FilePath) -> str:
    try:
        octets = read_patiently(path, _LARGEST)
    except TimeoutError:
        raise SecretError(f"{path} cannot be read: nobody writes into this pipe") from None
    except OSError as error:
        # A word without a slash may be the secret itself, where the name of its file belongs.
        shown = path if len(path.parts) > 1 else "the file that is named here"
        raise SecretError(f"{shown} cannot be read: {error.strerror}") from None
    if len(octets) > _LARGEST:
        raise SecretError(f"{path} is longer than any secret: name the file that holds the secret alone")
    try:
        text = octets.decode("utf-8-sig")  # Windows' editors put a mark in front that nobody sees
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not text in UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretError(f"{path} is empty")
    return text


def _from_credential(name: str, environ: Mapping[str, str]) -> str:
    directory = environ.get(CREDENTIALS_DIRECTORY)
    if not directory:
        raise SecretError(
            f"${CREDENTIALS_DIRECTORY} is not set: systemd sets it for a unit with LoadCredential={name}:PATH; in a"
            f" shell, set it to the directory in which {name} lies"
        )
    if "/" in name or name in ("", ".", ".."):
        raise SecretError("the name of a systemd credential is one word without slashes")
    return _from_file(FilePath(directory, name))


def _unwise(name: str | None) -> list[str]:
    """Why the file of a secret is not safe, if it is not."""
    if name is None or FilePath(name).is_relative_to(_RUNTIME_SECRETS) or not world_readable(name):
        return []
    return [f"{name} can be read by every user of this host: chmod o= {name}"]


def world_readable(name: str) -> bool:
    """True if every user of the host may read the file."""
    return bool(FilePath(name).stat().st_mode & stat.S_IROTH)
