"""AUTH: the exchange line by line, passwords of the configuration, and keys of the applications' own."""

import asyncio
import base64
from collections.abc import Iterator

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import Config
from relay.core import reply
from relay.core.login import PASSTHROUGH, Login, Target
from relay.core.outcome import Answer, Failure, FailureKind, Outcome, Phase, classify
from relay.core.reply import Reply
from relay.core.secret import Secret
from relay.ingress import auth
from relay.ingress.auth import (
    Authenticated,
    AuthExchange,
    PassthroughAuthenticator,
    PasswordAuthenticator,
    Presented,
    hash_password,
)
from relay.policy.credentials import Credentials
from relay.policy.identity import Identities


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def nul(*parts: str) -> str:
    """Parts of a PLAIN message with NUL between them."""
    return b64("\0".join(parts))


def talk(*lines: str) -> Reply | Presented:
    """What the last of the lines gives; each before it must be challenged."""
    exchange = AuthExchange()
    result = exchange.begin(lines[0])
    for line in lines[1:]:
        assert isinstance(result, Reply)
        assert result.code == 334
        result = exchange.respond(line)
    return result


# -- the exchange -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [f"PLAIN {nul('', 'user', 'pass')}"],
        [f"plain {nul('', 'user', 'pass')}"],
        [f"  Plain   {nul('', 'user', 'pass')} "],
        ["PLAIN", b64("\0user\0pass")],
        [f"PLAIN {nul('user', 'user', 'pass')}"],
        ["LOGIN", b64("user"), b64("pass")],
        ["login", b64("user"), b64("pass")],
        [f"LOGIN {b64('user')}", b64("pass")],
        [f"LoGiN {b64('user').rstrip('=')}", f"{b64('pass').rstrip('=')} "],
    ],
)
def test_ways_to_log_in(lines):
    """PLAIN and LOGIN, in any case, with and without initial response, with and without base64 padding."""
    assert talk(*lines) == Presented("user", Secret("pass"))


def test_the_prompts():
    """LOGIN's prompts are the ones clients compare; PLAIN's challenge is empty, and its space is sent."""
    exchange = AuthExchange()

    assert exchange.begin("LOGIN") == Reply(334, None, b64("Username:"))
    assert exchange.respond(b64("user")) == Reply(334, None, b64("Password:"))
    plain = AuthExchange().begin("PLAIN")
    assert isinstance(plain, Reply)
    assert plain.wire() == b"334 \r\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([""], reply.AUTH_MECHANISM_UNKNOWN),
        (["CRAM-MD5"], reply.AUTH_MECHANISM_UNKNOWN),
        (["XOAUTH2 abcd"], reply.AUTH_MECHANISM_UNKNOWN),
        (["PLAIN", "*"], reply.AUTH_CANCELLED),
        (["LOGIN", "*"], reply.AUTH_CANCELLED),
        (["LOGIN", b64("user"), " * "], reply.AUTH_CANCELLED),
        (["PLAIN *"], reply.AUTH_MALFORMED),
        (["PLAIN", "!!!!"], reply.AUTH_MALFORMED),
        (["PLAIN", "abcde"], reply.AUTH_MALFORMED),
        (["PLAIN", "YQ==="], reply.AUTH_MALFORMED),
        (["PLAIN", "YQ==YQ=="], reply.AUTH_MALFORMED),
        (["PLAIN", "\xfc\xfc\xfc\xfc"], reply.AUTH_MALFORMED),
        ([f"LOGIN {b64('user')} {b64('pass')}"], reply.AUTH_MALFORMED),
        (["PLAIN ="], reply.AUTH_PLAIN_MALFORMED),
        (["PLAIN", ""], reply.AUTH_PLAIN_MALFORMED),
        ([f"PLAIN {nul('user', 'pass')}"], reply.AUTH_PLAIN_MALFORMED),
        ([f"PLAIN {nul('', 'user', 'pass', '')}"], reply.AUTH_PLAIN_MALFORMED),
        ([f"PLAIN {nul('', '', 'pass')}"], reply.AUTH_BAD_USER),
        ([f"PLAIN {nul('boss', 'user', 'pass')}"], reply.AUTH_FOR_ANOTHER),
        (["LOGIN ="], reply.AUTH_BAD_USER),
        (["LOGIN", ""], reply.AUTH_BAD_USER),
        (["LOGIN", b64("us\ner")], reply.AUTH_BAD_USER),
        (["LOGIN", b64("x" * (auth.MAX_USER + 1))], reply.AUTH_BAD_USER),
    ],
)
def test_exchanges_that_end_in_a_refusal(lines, expected):
    """Each way to go wrong has its reply."""
    assert talk(*lines) == expected


def test_names_and_passwords_in_any_encoding():
    """UTF-8 as the RFC has it; what is not UTF-8 is read as latin-1."""
    assert talk("LOGIN", b64("jürgen"), b64("pässword")) == Presented("jürgen", Secret("pässword"))
    assert talk("LOGIN", b64("jürgen".encode("latin-1")), b64(b"p\xe4ss")) == Presented("jürgen", Secret("päss"))


def test_long_secrets_pass():
    """Tokens of several thousand octets are passwords too."""
    assert talk(f"PLAIN {nul('', 'user', 'x' * 9000)}") == Presented("user", Secret("x" * 9000))


def test_what_was_presented_does_not_print_the_password():
    """From the moment it is decoded the password is a secret."""
    assert "hunter2" not in repr(talk(f"PLAIN {nul('', 'user', 'hunter2')}"))


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=3))
def test_any_lines_are_answered(argument, lines):
    """Whatever is said, the exchange asks on, ends with a permanent refusal, or has a user name to show."""
    exchange = AuthExchange()
    result = exchange.begin(argument)
    for line in lines:
        if not isinstance(result, Reply) or result.code != 334:
            break
        result = exchange.respond(line)

    assert result.user if isinstance(result, Presented) else result.code == 334 or result.permanent


# -- passwords of the configuration -----------------------------------------------------------------------------------


def identities(*rules: tuple[str, str, str]) -> Identities:
    """Identities of (name, login, password)."""
    return Identities.from_config(
        Config.model_validate(
            {"identities": [{"name": n, "match": {"login": login}, "password": p} for n, login, p in rules]}
        )
    )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords have been compared with, in order; the comparison is the real one."""
    hashes: list[str] = []
    real = auth._verify

    def counting(hashed: str, password: Secret) -> bool:
        hashes.append(hashed)
        return real(hashed, password)

    monkeypatch.setattr(auth, "_verify", counting)
    return hashes


@pytest.fixture
def opened() -> Iterator[list[PasswordAuthenticator]]:
    authenticators: list[PasswordAuthenticator] = []
    yield authenticators
    for authenticator in authenticators:
        authenticator.close()


@pytest.fixture
def authenticator(opened):
    """Makes an authenticator of (name, login, password) rules."""

    def make(*rules: tuple[str, str, str]) -> PasswordAuthenticator:
        opened.append(PasswordAuthenticator(identities(*rules)))
        return opened[-1]

    return make


HASH = hash_password("correct horse")


def test_hashes_are_argon2id_of_the_documented_cost():
    """19 MiB, two passes, one lane; each hash has its own salt."""
    parameters = argon2.extract_parameters(HASH)

    assert HASH.startswith("$argon2id$")
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)
    assert hash_password("correct horse") != HASH


@pytest.mark.parametrize("stored", [HASH, "correct horse"])
async def test_the_right_password_proves_the_identity(authenticator, stored):
    """Hashed or plain in the configuration, the answer is the same."""
    passwords = authenticator(("app", "app", stored))

    assert await passwords.authenticate("app", Secret("correct horse")) == Authenticated(
        reply.AUTH_OK, "app", frozenset({"app"})
    )
    assert await passwords.authenticate("app", Secret("wrong")) == Authenticated(reply.AUTH_FAILED)
    assert await passwords.authenticate("APP", Secret("correct horse")) == Authenticated(reply.AUTH_FAILED)


async def test_a_hash_is_not_a_password(authenticator):
    """Who has read the configuration cannot log in with what stands there."""
    assert await authenticator(("app", "app", HASH)).verify("app", Secret(HASH)) == frozenset()


@pytest.mark.parametrize("stored", [HASH, "correct horse"])
@pytest.mark.parametrize("user", ["app", "nobody"])
async def test_every_refusal_costs_one_computation(authenticator, computed, stored, user):
    """Unknown login or wrong password, hashed or plain: a stranger cannot tell them apart by their cost."""
    passwords = authenticator(("app", "app", stored))

    for _ in range(2):
        computed.clear()
        assert await passwords.verify(user, Secret("wrong")) == frozenset()

        assert len(computed) == 1
        parameters = argon2.extract_parameters(computed[0])
        assert (parameters.memory_cost, parameters.time_cost) == (19 * 1024, 2)


@pytest.mark.parametrize("stored", [HASH, "correct horse"])
async def test_success_is_remembered(authenticator, computed, stored):
    """The second time nothing is computed; another login with the same password pays for itself."""
    passwords = authenticator(("tenants", "tenant-{subaccount}", stored))

    assert await passwords.verify("tenant-1", Secret("correct horse")) == frozenset({"tenants"})
    assert await passwords.verify("tenant-1", Secret("correct horse")) == frozenset({"tenants"})
    assert len(computed) == 1
    assert await passwords.verify("tenant-2", Secret("correct horse")) == frozenset({"tenants"})
    assert len(computed) == 2


async def test_a_changed_password_is_not_remembered(authenticator):
    """What was proved of one stored password says nothing about another."""
    passwords = authenticator(("app", "app", HASH))
    assert await passwords.verify("app", Secret("correct horse"))

    passwords._identities = identities(("app", "app", hash_password("new password")))

    assert await passwords.verify("app", Secret("correct horse")) == frozenset()
    assert await passwords.verify("app", Secret("new password")) == frozenset({"app"})


async def test_memory_of_successes_is_bounded(authenticator, computed, monkeypatch):
    """The one that was not used for longest is forgotten, and only costs time again."""
    monkeypatch.setattr(auth, "REMEMBERED", 2)
    passwords = authenticator(("tenants", "t-{subaccount}", "x"))

    for login in ("t-1", "t-2", "t-1", "t-3"):
        assert await passwords.verify(login, Secret("x"))
    assert len(computed) == 3

    assert await passwords.verify("t-1", Secret("x"))
    assert len(computed) == 3
    assert await passwords.verify("t-2", Secret("x"))
    assert len(computed) == 4


async def test_one_stored_password_is_verified_once(authenticator, computed):
    """Two identities of one login share their password; one proof counts for both."""
    passwords = authenticator(("a", "app", HASH), ("b", "app", HASH), ("c", "other", "x"))

    assert await passwords.verify("app", Secret("correct horse")) == frozenset({"a", "b"})
    assert computed == [HASH]


async def test_overlapping_patterns_prove_what_the_password_proves(authenticator):
    """Only the identities whose own password it is."""
    passwords = authenticator(("one", "app-1", "first"), ("all", "app-*", "second"))

    assert await passwords.verify("app-1", Secret("second")) == frozenset({"all"})
    assert await passwords.verify("app-1", Secret("first")) == frozenset({"one"})


async def test_without_identities_every_login_fails(opened, computed):
    """And it costs what a wrong password costs."""
    opened.append(PasswordAuthenticator(Identities.from_config(Config())))

    assert await opened[0].verify("app", Secret("x")) == frozenset()
    assert len(computed) == 1


async def test_many_at_once(authenticator):
    """Verifications that wait for one of the two threads all come to their own answer."""
    passwords = authenticator(("app", "app", HASH))
    attempts = [Secret("correct horse"), Secret("wrong")] * 4

    proved = await asyncio.gather(*(passwords.verify("app", attempt) for attempt in attempts))

    assert proved == [frozenset({"app"}), frozenset()] * 4
    assert len([thread for thread in passwords._threads._threads if thread.is_alive()]) <= auth.AT_ONCE


async def test_secrets_are_not_kept_in_clear(authenticator):
    """The memory of successes holds neither password nor hash."""
    passwords = authenticator(("app", "app", "correct horse"))
    await passwords.verify("app", Secret("correct horse"))

    assert passwords._successes
    assert "correct horse" not in repr(vars(passwords))
    assert all(b"correct horse" not in entry and len(entry) == 32 for entry in passwords._successes)


# -- keys of the applications' own ------------------------------------------------------------------------------------


class Proof:
    """A SparkPost that says one thing, and remembers what it was asked."""

    def __init__(self, says: Outcome | None) -> None:
        self._says = says
        self.asked: list[tuple[Login, float]] = []

    async def prove(self, login: Login, *, patience: float, fresh: bool = False) -> Outcome | None:
        self.asked.append((login, patience))
        return self._says


def passthrough(proof: Proof) -> PassthroughAuthenticator:
    return PassthroughAuthenticator(Credentials.from_config(Config()), proof, patience=7)


async def test_a_good_key_becomes_the_clients_login():
    """The user name is normalised, the key is its own, and SparkPost was asked about just that."""
    proof = Proof(None)
    result = await passthrough(proof).authenticate("5", Secret("own key"))

    login = Login(
        Target("smtp.sparkpostmail.com", (587, 2525)),
        "SMTP_Injection:X-MSYS-SUBACCOUNT=5",
        Secret("own key"),
        PASSTHROUGH,
    )
    assert result == Authenticated(reply.AUTH_OK, login.username, frozenset(), login)
    assert proof.asked == [(login, 7)]
    assert "own key" not in repr(result)


async def test_a_key_that_sparkpost_refuses():
    """535 there is 535 here."""
    refused = classify(Answer(Phase.AUTH, Reply.parse(535, ["5.7.8 Sorry."])))

    assert await passthrough(Proof(refused)).authenticate("SMTP_Injection", Secret("x")) == Authenticated(
        reply.AUTH_FAILED
    )


@pytest.mark.parametrize(
    "fact",
    [
        Failure(Phase.CONNECT, FailureKind.REFUSED, "smtp.sparkpostmail.com:587: connection refused"),
        Answer(Phase.AUTH, Reply.parse(454, ["4.7.0 Temporary authentication failure"])),
    ],
)
async def test_a_key_that_nobody_could_check(fact):
    """Neither good nor bad: 454 with the cause, and the client is not logged in."""
    result = await passthrough(Proof(classify(fact))).authenticate("SMTP_Injection", Secret("x"))

    assert result == Authenticated(reply.auth_unavailable(str(fact)))
    assert result.answer.code == 454


@pytest.mark.parametrize(("user", "key"), [("billing", "x"), ("SMTP_Injection+0", "x"), ("SMTP_Injection", "")])
async def test_what_is_no_sparkpost_login_is_not_asked_about(user, key):
    """A strange user name or an empty key fails at once."""
    proof = Proof(None)

    assert await passthrough(proof).authenticate(user, Secret(key)) == Authenticated(reply.AUTH_FAILED)
    assert proof.asked == []
