"""AUTH: the exchange with the client (RFC 4954), and the two ways of finding out whether what it presents is true.

`AuthExchange` is sans-IO: lines in, replies out, until a user name and a password are presented. What is done with
them is the listener's choice: `PasswordAuthenticator` compares with the configured identities,
`PassthroughAuthenticator` asks SparkPost whether the password is an API key. A password is a `Secret` from the moment
it has been decoded.

How long a refusal takes tells a stranger nothing: an unknown login and a wrong password cost one argon2 computation
each, and so does a password that stands in the configuration unhashed. Only the right password can be answered sooner.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from relay.core import reply
from relay.core.login import Login
from relay.core.outcome import Cause
from relay.core.ports import LoginProof
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.policy.credentials import Credentials
from relay.policy.identity import Identities

MAX_USER: Final = 320  # characters; a login is often a mail address, and none is longer
PATIENCE: Final = 20.0  # seconds an application waits for SparkPost's word on its key; many give up at 30
AT_ONCE: Final = 2  # verifications; each takes 19 MiB and most of a core
REMEMBERED: Final = 1024  # successes; a relay has fewer logins, and tenants beyond it pay with time only

_ARGON2: Final = "$argon2"
# OWASP's smallest recommendation for argon2id: 19 MiB, two passes, one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def hash_password(password: str) -> str:
    """The argon2id hash of a password, as the configuration takes it."""
    return _HASHER.hash(password)


# -- the exchange -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Presented:
    """The end of an exchange: what the client says it is, and its evidence."""

    user: str
    password: Secret


class _Awaited(Enum):
    """What the client's next line must bring, with the challenge that asks for it.

    The prompts of LOGIN were never standardised; some clients compare them with these, letter by letter.
    """

    PLAIN = ""
    USER = "Username:"
    PASSWORD = "Password:"  # noqa: S105 - a prompt

    @property
    def challenge(self) -> Reply:
        return reply.auth_challenge(base64.b64encode(self.value.encode()).decode())


_MECHANISMS: Final = {"PLAIN": _Awaited.PLAIN, "LOGIN": _Awaited.USER}


class AuthExchange:
    """One AUTH command and the lines that follow it.

    `begin` and `respond` give the reply to send: 334 asks for another line, any other code ends the exchange without a
    login; or they give what was presented, which ends it too. `tolerated`: not written as it should be.
    """

    def __init__(self) -> None:
        self._awaited = _Awaited.PLAIN
        self._user = ""
        self.tolerated = False

    def begin(self, argument: str) -> Reply | Presented:
        """`argument` is everything behind the verb: the mechanism in any case, perhaps an initial response."""
        mechanism, _, initial = argument.strip(" \t").partition(" ")
        awaited = _MECHANISMS.get(mechanism.upper())
        if awaited is None:
            return reply.AUTH_MECHANISM_UNKNOWN
        self.tolerated = mechanism not in _MECHANISMS or argument.startswith((" ", "\t"))
        self._awaited = awaited
        if not initial:
            return awaited.challenge
        return self._take("" if initial == "=" else initial)  # RFC 4954 §4: "=" is an empty initial response

    def respond(self, line: str) -> Reply | Presented:
        """The client's answer to a challenge, without its line end."""
        return reply.AUTH_CANCELLED if line.strip(" \t") == "*" else self._take(line)

    def _take(self, encoded: str) -> Reply | Presented:
        bare = encoded.strip(" \t")
        octets = _decode(bare)
        if octets is None:
            return reply.AUTH_MALFORMED
        self.tolerated |= bare != encoded or len(bare) % 4 != 0
        match self._awaited:
            case _Awaited.PLAIN:
                return _plain(octets)
            case _Awaited.USER:
                self._user = _text(octets)
                self._awaited = _Awaited.PASSWORD
                return self._awaited.challenge if is_user(self._user) else reply.AUTH_BAD_USER
            case _Awaited.PASSWORD:
                return Presented(self._user, Secret(_text(octets)))


def _plain(octets: bytes) -> Reply | Presented:
    """RFC 4616: `[authzid] NUL authcid NUL password`. Nobody may act for anybody else."""
    parts = octets.split(b"\0")
    if len(parts) != 3:
        return reply.AUTH_PLAIN_MALFORMED
    authorised, user, password = map(_text, parts)
    if not is_user(user):
        return reply.AUTH_BAD_USER
    if authorised not in {"", user}:
        return reply.AUTH_FOR_ANOTHER
    return Presented(user, Secret(password))


def _decode(encoded: str) -> bytes | None:
    """Base64, None if it is none. Missing padding is forgiven: without it there is still one way to read the rest."""
    padding = "" if encoded.endswith("=") else "=" * (-len(encoded) % 4)
    try:
        return base64.b64decode(encoded + padding, validate=True)
    except ValueError:
        return None


def _text(octets: bytes) -> str:
    """UTF-8 as RFC 4616 wants it; what is not UTF-8 comes from a client of the latin-1 age."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def is_user(user: str) -> bool:
    """True for what AUTH takes as a user name."""
    return 0 < len(user) <= MAX_USER and user.isprintable()


# -- whether it is true -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authenticated:
    """What an authenticator found: the reply, and if it is positive who the client is now.

    `proved` names the identities whose password was right; `passthrough` is the client's own login at SparkPost.
    """

    answer: Reply
    login: str | None = None
    proved: frozenset[str] = frozenset()
    passthrough: Login | None = None


class PasswordAuthenticator:
    """Logins of the configuration. Argon2 runs in threads of its own, so that the loop never waits for it."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        self._dummy = hash_password(secrets.token_hex())
        self._cache_key = secrets.token_bytes(32)
        self._successes: OrderedDict[bytes, None] = OrderedDict()

    async def authenticate(self, user: str, password: Secret) -> Authenticated:
        proved = await self.verify(user, password)
        return Authenticated(reply.AUTH_OK, user, proved) if proved else Authenticated(reply.AUTH_FAILED)

    async def verify(self, user: str, password: Secret) -> frozenset[str]:
        """The names of the identities whose login and password these are; none if the login failed."""
        stored = self._identities.passwords(user)
        right = set()
        for candidate in set(stored.values()):
            if await self._matches(user, password, candidate):
                right.add(candidate)
        if not stored:
            await self._compute(self._dummy, password)
        return frozenset(name for name, candidate in stored.items() if candidate in right)

    async def _matches(self, user: str, password: Secret, stored: Secret) -> bool:
        """True if the password is the stored one. Only success is remembered, so that guessing never gets cheaper."""
        entry = self._entry(user, password, stored)
        if entry in self._successes:
            self._successes.move_to_end(entry)
            return True
        hashed = stored.reveal().startswith(_ARGON2)
        computed = await self._compute(stored.reveal() if hashed else self._dummy, password)
        success = computed if hashed else stored == password
        if success:
            self._successes[entry] = None
            if len(self._successes) > REMEMBERED:
                self._successes.popitem(last=False)
        return success

    def _entry(self, user: str, password: Secret, stored: Secret) -> bytes:
        """What a success is remembered by. It tells nothing without this process's own key, and a changed password or
        hash is another entry; each part has a fixed length, so no two of them can be shifted into each other.
        """
        parts = hashlib.sha256(user.encode()).digest() + password.digest() + stored.digest()
        return hmac.digest(self._cache_key, parts, "sha256")

    async def _compute(self, hashed: str, password: Secret) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _verify, hashed, password)

    def close(self) -> None:
        """End the threads; verifications under way come to their end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(hashed: str, password: Secret) -> bool:
    try:
        return _HASHER.verify(hashed, password.reveal())
    except VerifyMismatchError:
        return False


class PassthroughAuthenticator:
    """API keys of the applications' own: SparkPost alone knows whether they are good, so it is asked."""

    def __init__(self, credentials: Credentials, proof: LoginProof, *, patience: float = PATIENCE) -> None:
        self._credentials = credentials
        self._proof = proof
        self._patience = patience

    async def authenticate(self, user: str, password: Secret) -> Authenticated:
        """SparkPost's 535 is ours; whatever else it says or fails to say leaves the key neither good nor bad (454)."""
        login = self._credentials.passthrough_login(user, password)
        if login is None:
            return Authenticated(reply.AUTH_FAILED)
        outcome = await self._proof.prove(login, patience=self._patience)
        if outcome is None:
            return Authenticated(reply.AUTH_OK, login.username, passthrough=login)
        if outcome.cause is Cause.LOGIN_REFUSED:
            return Authenticated(reply.AUTH_FAILED)
        return Authenticated(reply.auth_unavailable(str(outcome.fact)))
