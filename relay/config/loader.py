"""Loading: find the file, lay the environment over it, resolve secrets, validate, check. All problems come at once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final

from relay.config import check, environment, secrets, validation
from relay.config.document import Document, parse
from relay.config.keys import is_secret
from relay.config.model import Config
from relay.config.pipes import read_patiently
from relay.config.problems import ConfigError, Origin, Path, Problem
from relay.core.secret import Secret

CONFIG_VARIABLE: Final = "RELAY_CONFIG"
USUAL_PLACE: Final = "/etc/sparkpost-relay/relay.yaml"
ENVIRONMENT: Final = "environment"
LARGEST: Final = 50_000_000  # octets


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    `warnings` are what is allowed and unwise, one line each; `source` is the file or "environment"; `origins` says
    where each value that is no default was written; `references` are the names of secrets, which may be printed.
    """

    config: Config
    warnings: list[str]
    source: str
    origins: Mapping[Path, Origin]
    references: Mapping[Path, Mapping[str, str]]


def load(path: str | None = None, environ: Mapping[str, str] = os.environ, *, secrets_needed: bool = True) -> Loaded:
    """The configuration from defaults, a file and the environment; raises ConfigError with every problem there is.

    Without `secrets_needed`, a secret that cannot be had here is empty, and no problem: an operator's command wants to
    know where the spool is, and systemd shows the secrets to the service alone.
    """
    source = path or environ.get(CONFIG_VARIABLE) or (USUAL_PLACE if _may_exist(USUAL_PLACE) else None)
    document = _read(source) if source else Document({}, {(): Origin(ENVIRONMENT)})
    problems = list(document.problems)
    for problem in problems:
        document.prune(problem.path)
    problems += dict.fromkeys(environment.overlay(document, environ))  # each once: a mapping is laid key by key
    validation.drop_empty(document)
    problems += validation.refuse_not_yet(document)
    resolved = secrets.resolve(document, environ, streams=secrets_needed)
    for problem in resolved.problems:
        if secrets_needed:
            document.prune(problem.path)
        else:
            document.replace(problem.path, Secret(""))
    problems += resolved.problems
    if not secrets_needed:
        _default_key(document)
    config, invalid = validation.validate(document)
    known = {problem.path for problem in problems}
    problems += (problem for problem in invalid if problem.path not in known)  # an unreadable secret is missing as well
    warnings = resolved.warnings + _clear_secrets(document, resolved.literals, source)
    for finding in check.check(config, [problem.path for problem in problems]):
        problem = Problem(document.origin(finding.path), finding.path, finding.text)
        (problems if finding.fatal else warnings).append(problem)
    if not secrets_needed:
        problems = [problem for problem in problems if not is_secret(problem.path)]
    if problems:
        raise ConfigError(problems)
    return Loaded(
        config, [str(problem) for problem in warnings], source or ENVIRONMENT, document.origins, resolved.references
    )


def _may_exist(place: str) -> bool:
    """True also for what is in a directory that may not be looked into: it is not to be passed over in silence."""
    try:
        return FilePath(place).exists()
    except PermissionError:
        return True


def _read(source: str) -> Document:
    """The document of a file; raises ConfigError where it is none."""
    try:
        octets = read_patiently(FilePath(source), LARGEST)
    except TimeoutError:
        raise ConfigError([Problem(Origin(source), (), "cannot be read: nobody writes into this pipe")]) from None
    except OSError as error:
        text = (
            f"cannot be read: {error.strerror}. The file is named by --config, else ${CONFIG_VARIABLE}, else it is "
            f"{USUAL_PLACE}; without any, the environment alone is used"
        )
        raise ConfigError([Problem(Origin(source), (), text)]) from None
    if len(octets) > LARGEST:
        text = f"cannot be read: it is longer than any configuration ({LARGEST // 1_000_000} MB)"
        raise ConfigError([Problem(Origin(source), (), text)])
    document = parse(octets, lambda line: Origin(source, line))
    if document.values is None:
        document.values = {}
    if not isinstance(document.values, dict):
        text = "this is not a configuration: `key: value` lines are expected, such as `hostname: relay.example.com`"
        raise ConfigError([*document.problems, Problem(document.origin(()), (), text)])
    return document


def _default_key(document: Document) -> None:
    """The key that the service may have from its environment stands there, if only as an empty one."""
    credentials = document.values.setdefault("credentials", {}) if isinstance(document.values, dict) else None
    if isinstance(credentials, dict):
        credential = credentials.setdefault("default", {})
        if isinstance(credential, dict):
            credential.setdefault("api_key", Secret(""))


def _clear_secrets(document: Document, literals: list[Path], source: str | None) -> list[Problem]:
    """A file with secrets in clear should not be for everybody's eyes."""
    written = [path for path in literals if document.origin(path).source == source]
    if source is None or not written or not secrets.world_readable(source):
        return []
    text = f"a secret in clear, in a file that every user of this host can read: chmod o= {source}"
    return [Problem(document.origin(written[0]), written[0], text)]
