"""Whose mail it is: what `explain` says is what happens, each identity under its own user name and key."""

import asyncio
import base64
import smtplib

import pytest

from relay.explain import explain
from tests.support.running import configuration, port_of, relay_to, sandbox_with

KEYS = {name: f"{name}-key-0123456789abcdef" for name in ("default", "billing", "crm", "tenants", "shop")}
IDENTITIES = [
    {
        "name": "billing",
        "match": {"login": "billing"},
        "password": "billing-password",
        "credential": "billing",
        "subaccount": 7,
    },
    {"name": "crm", "match": {"login": "crm"}, "password": "crm-password", "credential": "crm"},
    {
        "name": "tenants",
        "match": {"login": "tenant-{subaccount}"},
        "password": "tenant-password",
        "credential": "tenants",
    },
    {"name": "shop", "match": {"mail_from": "*@shop.example"}, "credential": "shop", "subaccount": 9},
    {"name": "default", "match": {}},
]
SECTIONS = {"credentials": {name: {"api_key": key} for name, key in KEYS.items()}, "identities": IDENTITIES}
CASES = [
    ("billing", "billing-password", "a@example.com", "SMTP_Injection:X-MSYS-SUBACCOUNT=7", "billing"),
    ("crm", "crm-password", "a@example.com", "SMTP_Injection", "crm"),
    ("tenant-42", "tenant-password", "a@example.com", "SMTP_Injection:X-MSYS-SUBACCOUNT=42", "tenants"),
    (None, None, "a@shop.example", "SMTP_Injection:X-MSYS-SUBACCOUNT=9", "shop"),
    (None, None, "a@example.com", "SMTP_Injection", "default"),
]


def send(port: int, mail_from: str, login: str | None = None, password: str | None = None) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        if login is not None:
            client.login(login, password)
        client.sendmail(mail_from, "rcpt@example.net", f"From: {mail_from}\r\nTo: rcpt@example.net\r\n\r\nx\r\n")


async def test_five_identities_reach_sparkpost_under_five_names(tmp_path):
    """Two logins, a pattern, a reverse-path rule and the default: five AUTH identities, as explain says of each."""
    async with sandbox_with(tmp_path, api_keys=dict.fromkeys(KEYS.values())) as sandbox:
        config = configuration(sandbox, **SECTIONS)
        async with relay_to(sandbox, **SECTIONS) as relay:
            for login, password, mail_from, username, credential in CASES:
                await asyncio.to_thread(send, port_of(relay), mail_from, login, password)
                accepted = sandbox.accepted[-1]

                assert (accepted.auth_user, accepted.api_key) == (username, KEYS[credential])
                text, passes = explain(
                    config, login=login, mail_from=mail_from, client="127.0.0.1", listener=None, header_from=None
                )
                assert passes
                assert username in text
                assert f"credential  {credential}\n" in text

    assert len({(one.auth_user, one.api_key) for one in sandbox.accepted}) == 5


def answer_to_auth(port: int, plain: str) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.ehlo()
        return client.docmd("AUTH PLAIN", base64.b64encode(plain.encode()).decode())


@pytest.mark.parametrize("login", ["a\tz", "a\u202ez", "a" * 320 + "z"])
async def test_a_login_that_auth_does_not_take_is_not_explained_as_one_that_passes(tmp_path, login):
    """Though the identity's pattern knows it."""
    identities = [{"name": "any", "match": {"login": "*z"}, "password": "any-password"}]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, identities=identities) as relay:
        text, passes = explain(
            configuration(sandbox, identities=identities),
            login=login,
            mail_from="a@example.com",
            client=None,
            listener=None,
            header_from=None,
        )
        code, said = await asyncio.to_thread(answer_to_auth, port_of(relay), f"\0{login}\0any-password")

    assert not passes
    assert text.endswith(f"refused     at AUTH: {code} {said.decode()}")


async def test_a_login_never_falls_through_to_a_rule_without_login(tmp_path):
    """A session that has proved who it is gets only what that login is given."""
    identities = [
        {"name": "shop", "match": {"login": "shop", "mail_from": "*@shop.example"}, "password": "shop-password"},
        {"name": "default", "match": {}},
    ]
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, identities=identities) as relay:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            await asyncio.to_thread(send, port_of(relay), "a@elsewhere.example", "shop", "shop-password")

        assert refused.value.smtp_code == 550
        assert refused.value.smtp_error.startswith(b"5.7.1 ")
        await asyncio.to_thread(send, port_of(relay), "a@elsewhere.example")

    assert len(sandbox.accepted) == 1


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("billing", "wrong"),
        ("nobody", "billing-password"),
        ("tenant-0", "tenant-password"),
        ("tenant-2147483648", "tenant-password"),
    ],
)
async def test_a_wrong_login_is_535(tmp_path, login, password):
    """An unknown login, a wrong password and a subaccount that cannot be are all refused, though AUTH is optional."""
    async with (
        sandbox_with(tmp_path, api_keys=dict.fromkeys(KEYS.values())) as sandbox,
        relay_to(sandbox, **SECTIONS) as relay,
    ):
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            await asyncio.to_thread(send, port_of(relay), "a@example.com", login, password)

    assert refused.value.smtp_code == 535
    assert sandbox.accepted == []


PASSTHROUGH = [{"name": "pass", "address": "127.0.0.1:0", "auth": "passthrough"}]


@pytest.mark.parametrize(
    ("user", "presented"),
    [
        ("SMTP_Injection", "SMTP_Injection"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=12", "SMTP_Injection:X-MSYS-SUBACCOUNT=12"),
        ("SMTP_Injection+12", "SMTP_Injection:X-MSYS-SUBACCOUNT=12"),
        ("shop+12", "SMTP_Injection:X-MSYS-SUBACCOUNT=12"),
        ("12", "SMTP_Injection:X-MSYS-SUBACCOUNT=12"),
    ],
)
async def test_passthrough_presents_the_applications_own_key(tmp_path, user, presented):
    """The relay needs no key of its own; the user name is rewritten and SparkPost decides."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=PASSTHROUGH, credentials={}) as relay:
        await asyncio.to_thread(send, port_of(relay, "pass"), "a@example.com", user, next(iter(sandbox.api_keys)))

    assert [one.auth_user for one in sandbox.accepted] == [presented]


async def test_passthrough_535_is_sparkposts(tmp_path):
    """A key that SparkPost refuses is refused at AUTH, before any mail."""
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, listeners=PASSTHROUGH, credentials={}) as relay:
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            await asyncio.to_thread(send, port_of(relay, "pass"), "a@example.com", "SMTP_Injection", "no-such-key")

    assert refused.value.smtp_code == 535


async def test_a_passthrough_key_that_is_revoked_is_the_sessions_own(tmp_path):
    """The application hears that it is its key, and no credential of the relay's."""

    def twice(port: int, key: str) -> list[tuple[int, bytes]]:
        answers = []
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.login("SMTP_Injection", key)
            for _ in range(2):
                client.mail("a@example.com")
                client.rcpt("b@example.net")
                answers.append(client.data(b"From: a@example.com\r\n\r\nx\r\n"))
                sandbox.api_keys.clear()
        return answers

    sections = {"listeners": PASSTHROUGH, "credentials": {}, "upstream": {"messages_per_connection": 1}}
    async with sandbox_with(tmp_path) as sandbox, relay_to(sandbox, **sections) as relay:
        taken, refused = await asyncio.to_thread(twice, port_of(relay, "pass"), next(iter(sandbox.api_keys)))

    assert taken[0] == 250
    assert refused[0] == 451
    assert refused[1].startswith(b"4.3.5 SparkPost refused the API key that the application logged in with: 535 5.7.8")


async def test_passthrough_without_sparkpost_is_454(tmp_path):
    """Nobody can say whether the key is good: try again later."""
    async with sandbox_with(tmp_path) as sandbox:
        sections = {"listeners": PASSTHROUGH, "credentials": {}, "upstream": {"ports": [1]}}
        async with relay_to(sandbox, **sections) as relay:
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                await asyncio.to_thread(send, port_of(relay, "pass"), "a@example.com", "SMTP_Injection", "some-key")

    assert refused.value.smtp_code == 454
