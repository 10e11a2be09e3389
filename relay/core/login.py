"""Under whose name a message travels: what is promised by name, and what is presented on the wire."""

from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from relay.core.secret import Secret

MAX_SUBACCOUNT: Final = 2**31 - 1
SUFFIX: Final = ":X-MSYS-SUBACCOUNT="  # between a user name and its subaccount (fact sheet 1.1)
PASSTHROUGH: Final = "passthrough"  # the label of a key that the application presents itself


class Assignment(NamedTuple):
    """Names only, no secret: the identity a message matched and the credential and subaccount that follow from it."""

    identity: str
    credential: str
    subaccount: int | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What an identity wants of its deliveries.

    `queue`: the application is answered as soon as its message is stored. Otherwise it waits for SparkPost, for at most
    `deadline` seconds. `max_age`: seconds after which a stored message is given up.
    """

    queue: bool
    deadline: float
    max_age: float


class Target(NamedTuple):
    """One SparkPost service: a host and its ports in order of preference."""

    host: str
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one port, as dialled."""

    host: str
    port: int
    address: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Login(NamedTuple):
    """The complete login of an upstream session. Sessions are shared within one login and never between two.

    Equality covers target, user name and key, so a rotated key is another login; `credential` is its label for people.
    """

    target: Target
    username: str
    key: Secret
    credential: str

    def __str__(self) -> str:
        return f"{self.username} ({self.credential}) at {self.target.host}"


def bare(login: Login) -> Login:
    """The login of the same key without a subaccount; it stands for the key."""
    base, suffix, _ = login.username.partition(SUFFIX)
    return login._replace(username=base) if suffix else login


def origin(url: str) -> str:
    """Where an API is, as logs, metrics and the ledger name it: `https://api.sparkpost.com` of `…/api/v1`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def username_for(base: str, subaccount: int | None) -> str:
    """The AUTH user name that acts for a subaccount (fact sheet 1.1): `SMTP_Injection:X-MSYS-SUBACCOUNT=123`."""
    return base if subaccount is None else f"{base}{SUFFIX}{subaccount}"


def subaccount_of(username: str) -> int | None:
    """The subaccount that an AUTH user name acts for; None for the account itself."""
    _, suffix, number = username.rpartition(SUFFIX)
    return parse_subaccount(number) if suffix else None


def parse_subaccount(text: str) -> int | None:
    """A subaccount number as written in a login: 1 … 2³¹-1 without leading zeros, else None."""
    if not (text.isascii() and text.isdigit()) or text.startswith("0") or len(text) > 10:
        return None
    number = int(text)
    return number if number <= MAX_SUBACCOUNT else None
