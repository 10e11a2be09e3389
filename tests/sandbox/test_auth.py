"""Who may send: mechanisms, user names, keys and subaccounts."""

import pytest

from relay.sandbox import LoginAttempt, key_digest


@pytest.mark.parametrize("way", ["LOGIN", "LOGIN initial", "PLAIN", "PLAIN initial"])
async def test_every_way_to_log_in(sandbox, connect, way):
    """LOGIN and PLAIN, with and without initial response, prove the same."""
    async with sandbox() as box, connect(box) as client:
        await client.starttls()

        assert await client.login(way=way) == "235 2.0.0 Authed. Go on."
    assert box.auth_attempts == [LoginAttempt("SMTP_Injection", way.split()[0], accepted=True)]


@pytest.mark.parametrize(
    ("user", "key", "subaccount"),
    [
        ("SMTP_Injection", "secret", None),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=7", "secret", 7),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=2147483647", "secret", 2147483647),
        ("SMTP_Injection", "subkey", 42),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=7", "subkey", 42),
    ],
)
async def test_subaccounts(sandbox, connect, user, key, subaccount):
    """The suffix names a subaccount of the primary key; a subaccount's own key is bound to it, whatever is said."""
    async with sandbox(api_keys={"secret": None, "subkey": 42}) as box, connect(box) as client:
        await client.starttls()
        await client.login(user, key)
        await client.mail()

    (message,) = box.accepted
    assert (message.auth_user, message.api_key, message.subaccount) == (user, key, subaccount)
    assert message.key_digest == key_digest(key)
    assert key not in repr(message)
    assert key not in repr(box)


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("SMTP_Injection", "wrong"),
        ("SMTP_Injection", "SECRET"),
        ("SMTP_Injection", ""),
        ("smtp_injection", "secret"),
        ("me@example.com", "secret"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=", "secret"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=0", "secret"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=-1", "secret"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=07", "secret"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=2147483648", "secret"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=abc", "secret"),
        ("SMTP_Injection:x-msys-subaccount=7", "secret"),
        ("SMTP_Injection+7", "secret"),
    ],
)
async def test_refused_logins(sandbox, connect, user, key):
    """Any other user name or key is 535, and whoever was refused cannot relay."""
    async with sandbox() as box, connect(box) as client:
        await client.starttls()
        refusal = await client.login(user, key)
        denial = await client.mail()

    assert refusal == "535 5.7.8 Sorry."
    assert denial == "550 5.7.1 relaying denied"
    assert box.auth_attempts == [LoginAttempt(user, "LOGIN", accepted=False)]


async def test_a_second_try(sandbox, connect):
    """A refused client may try again; an authenticated one may not."""
    async with sandbox() as box, connect(box) as client:
        await client.starttls()
        await client.login(key="wrong")

        assert (await client.login()).startswith("235 ")
        assert await client.say("AUTH LOGIN") == "503 5.5.1 already authenticated"
    assert [attempt.accepted for attempt in box.auth_attempts] == [False, True]


async def test_newer_texts(sandbox, connect):
    """A newer engine says the same in other words, with the same codes."""
    async with sandbox(newer_texts=True) as box, connect(box) as client:
        await client.starttls()

        assert await client.login(key="wrong") == "535 5.7.8 Authentication credentials invalid"
        assert await client.login() == "235 2.7.0 Authentication successful"


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        (["AUTH CRAM-MD5"], "504 5.5.4 unrecognized authentication type"),
        (["AUTH LOGIN", "*"], "501 5.7.0 authentication cancelled"),
        (["AUTH LOGIN", "no base64!"], "501 5.5.2 cannot decode the AUTH response"),
        (["AUTH PLAIN YQ=="], "501 5.5.2 cannot decode the AUTH response"),
        (["AUTH PLAIN /w=="], "501 5.5.2 cannot decode the AUTH response"),
        (["MAIL FROM:<>", "AUTH LOGIN"], "503 5.5.1 AUTH not permitted during a mail transaction"),
    ],
)
async def test_bad_exchanges(sandbox, connect, lines, reply):
    """An exchange that cannot be understood, or is cancelled, is refused and is no attempt."""
    async with sandbox() as box, connect(box) as client:
        await client.starttls()
        replies = [await client.say(line) for line in lines]

        assert replies[-1] == reply
        assert await client.say("NOOP") == "250 2.0.0 OK"
    assert box.auth_attempts == []


async def test_hello_comes_first(sandbox, connect):
    """Under TLS, too, AUTH wants an EHLO before it."""
    async with sandbox() as box, connect(box) as client:
        await client.reply()
        await client.say("EHLO x")
        await client.say("STARTTLS")
        await client.shake_hands()

        assert (await client.say("AUTH LOGIN")).startswith("550 5.5.1 ")


async def test_mechanisms_in_any_case(sandbox, connect):
    """Verbs and mechanisms are not case-sensitive."""
    async with sandbox() as box, connect(box) as client:
        await client.starttls()

        assert await client.say("auth login") == "334 VXNlcm5hbWU6"


async def test_a_key_is_made_when_none_is_given(sandbox, connect):
    """A sandbox without keys makes one, which works and is different each time."""
    async with sandbox(api_keys={}) as box, connect(box) as client:
        await client.starttls()
        (key,) = box.api_keys

        assert (await client.login(key=key)).startswith("235 ")
        assert key not in sandbox(api_keys={}).api_keys


async def test_another_user_name(sandbox, connect):
    """Accounts on Enterprise hosts have a user name of their own."""
    async with sandbox(username="acme") as box, connect(box) as client:
        await client.starttls()

        assert (await client.login("SMTP_Injection")).startswith("535 ")
        assert (await client.login("acme")).startswith("235 ")
