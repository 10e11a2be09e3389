"""What the commands share on the command line: the configuration they mean, and how they end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from relay.streams import tell

if TYPE_CHECKING:
    from relay.config import Config, Loaded

EX_UNAVAILABLE: Final = 69
EX_CONFIG: Final = 78

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Without it: $RELAY_CONFIG, else /etc/sparkpost-relay/relay.yaml, else the environment alone.",
    ),
]


def load_config(path: Path | None) -> "Loaded":
    """The configuration with its warnings on stderr, or every problem on stderr and exit 78."""
    from relay.config import ConfigError, load

    try:
        loaded = load(str(path) if path is not None else None)
    except ConfigError as error:
        fail(str(error), EX_CONFIG)
    for warning in loaded.warnings:
        tell(f"warning: {warning}")
    return loaded


def load_places(path: Path | None) -> "Config":
    """The configuration for a command that needs no secret, and may not be shown any."""
    from relay.config import ConfigError, load

    try:
        return load(str(path) if path is not None else None, secrets_needed=False).config
    except ConfigError as error:
        fail(str(error), EX_CONFIG)


def fail(text: str, status: int) -> NoReturn:
    tell(text)
    raise typer.Exit(status)
