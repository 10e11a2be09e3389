"""Rules about the rest: bounces, limits, the admin server."""

from collections.abc import Iterator
from typing import Final

from relay.config.model import Config
from relay.config.rules.finding import Finding, Rules, warning

SPARKPOST_SIZE: Final = 20_000_000  # octets, fact sheet 1.3


def bounces(config: Config) -> Iterator[Finding]:
    """Who is to be told of failures is told only if there is an address to tell it from."""
    settings = config.delivery.bounces
    if settings.from_ is None and "to" in settings.model_fields_set:
        text = "nobody is told, as delivery.bounces.from is not set: give it an address on a verified sending domain"
        yield warning(("delivery", "bounces", "to"), text)


def limits(config: Config) -> Iterator[Finding]:
    """What SparkPost would refuse anyway."""
    if config.limits.message_size > SPARKPOST_SIZE:
        yield warning(("limits", "message_size"), "SparkPost takes 20MB at most; what is larger will be refused there")


def admin_token(config: Config) -> Iterator[Finding]:
    """The admin server speaks no TLS."""
    admin = config.admin
    if admin.token is not None and admin.address is not None and not admin.address.loopback:
        text = f"it crosses the network in clear, as other hosts can reach {admin.address}: only where that is trusted"
        yield warning(("admin", "token"), text)


RULES: Final[Rules] = (
    (bounces, frozenset({"delivery"})),
    (limits, frozenset({"limits"})),
    (admin_token, frozenset({"admin"})),
)
