"""Rules about the way to SparkPost: what it documents, and how it is verified."""

from collections.abc import Iterator
from typing import Final

from relay.config.certificates import examine_authorities
from relay.config.model import Config
from relay.config.problems import Path
from relay.config.rules.finding import Finding, Rules, from_flaw, warning

SPARKPOST_CONNECTIONS: Final = 10  # fact sheet 1.3
SPARKPOST_MESSAGES: Final = 100  # per connection, fact sheet 1.3
SPARKPOST_IDLE: Final = 60.0  # seconds, fact sheet 1.3
IMPLICIT_TLS_PORT: Final = 465


def upstream(config: Config) -> Iterator[Finding]:
    """What SparkPost documents, and the authorities to verify it by."""
    settings = config.upstream
    if settings.tls.ca_file is not None:
        flaw = examine_authorities(settings.tls.ca_file)
        if flaw is not None:
            yield from_flaw(("upstream", "tls"), flaw)
    if settings.connections > SPARKPOST_CONNECTIONS:
        text = f"SparkPost documents {SPARKPOST_CONNECTIONS} connections at once; more needs their consent"
        yield warning(("upstream", "connections"), text)
    if settings.messages_per_connection > SPARKPOST_MESSAGES:
        text = f"SparkPost asks for a new connection after {SPARKPOST_MESSAGES} messages"
        yield warning(("upstream", "messages_per_connection"), text)
    if settings.idle_timeout >= SPARKPOST_IDLE:
        text = f"SparkPost closes a connection after {SPARKPOST_IDLE:.0f}s without a command: stay below, as 50s does"
        yield warning(("upstream", "idle_timeout"), text)
    targets: list[tuple[Path, tuple[int, ...]]] = [(("upstream", "ports"), settings.ports)]
    targets += [
        (("credentials", name, "upstream", "ports"), credential.upstream.ports or ())
        for name, credential in config.credentials.items()
    ]
    for path, ports in targets:
        if len(set(ports)) < len(ports):
            yield Finding(path, "a port is given twice: each is tried once")
        if IMPLICIT_TLS_PORT in ports:
            yield warning(
                path, "SparkPost has no implicit TLS on 465, and the relay speaks STARTTLS: 587 and 2525 are its ports"
            )


def https(config: Config) -> Iterator[Finding]:
    """Mail goes by HTTPS to the account that it would go to by SMTP."""
    general = config.upstream
    if not general.http.enabled:
        return
    if "host" in general.model_fields_set and "url" not in general.http.model_fields_set:
        default = type(general).model_fields["host"].default
        if general.host != default:
            text = (
                f"upstream.host is {general.host}, and this is the API of {default}: name the one of the same account"
            )
            yield warning(("upstream", "http", "url"), text)
    for name, credential in config.credentials.items():
        if credential.upstream.host not in (None, general.host) and credential.upstream.http.url is None:
            text = "this credential has a host of its own: without the API of its account, its mail never goes by HTTPS"
            yield warning(("credentials", name, "upstream", "http", "url"), text)


RULES: Final[Rules] = (
    (upstream, frozenset({"upstream"})),
    (https, frozenset({"upstream", "credentials"})),
)
