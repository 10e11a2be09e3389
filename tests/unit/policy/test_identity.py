"""Whose mail is it: the rules of identities one by one, and the logins that follow from them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import Config
from relay.core import reply
from relay.core.envelope import Address, ReversePath
from relay.core.login import MAX_SUBACCOUNT, PASSTHROUGH, Assignment, Login, Target
from relay.core.secret import Secret
from relay.policy.credentials import Credentials
from relay.policy.identity import Client, Considered, Decision, Identities, sender_allowed

PASSWORD = "correct horse"
NULL = ReversePath(None)


def path(text: str) -> ReversePath:
    return ReversePath(Address.parse(text))


def configure(*identities, **rest) -> Config:
    return Config.model_validate({"identities": list(identities), **rest})


def rules(*identities) -> Identities:
    return Identities.from_config(configure(*identities))


def client(listener="local", address="127.0.0.1", **rest) -> Client:
    return Client(listener, ipaddress.ip_address(address) if address else None, **rest)


def logged_in(identities: Identities, login: str, **rest) -> Client:
    """A session that has proved whatever the right password of this login proves."""
    return client(login=login, proved=frozenset(identities.passwords(login)), **rest)


def chosen(identities: Identities, who: Client, reverse_path: ReversePath = NULL) -> Assignment | None:
    """The assignment, or None for the one refusal there is."""
    decision = identities.choose(who, reverse_path)
    if isinstance(decision, Decision):
        return decision.assignment
    assert decision == reply.NO_IDENTITY
    return None


FIVE = (
    {"name": "billing", "match": {"login": "billing"}, "password": PASSWORD, "credential": "billing"},
    {"name": "shop", "match": {"login": "shop"}, "password": "other", "credential": "shop", "subaccount": 7},
    {"name": "tenants", "match": {"login": "tenant-{subaccount}"}, "password": "third", "credential": "tenants"},
    {"name": "news", "match": {"mail_from": "*@news.example.com"}, "credential": "news", "subaccount": 9},
    {"name": "default", "match": {}},
)
KEYS = {name: {"api_key": f"key of {name}"} for name in ("billing", "shop", "tenants", "news", "default")}


@pytest.mark.parametrize(
    ("login", "mail_from", "identity", "user_name"),
    [
        ("billing", "a@example.com", "billing", "SMTP_Injection"),
        ("shop", "a@example.com", "shop", "SMTP_Injection:X-MSYS-SUBACCOUNT=7"),
        ("tenant-123", "a@example.com", "tenants", "SMTP_Injection:X-MSYS-SUBACCOUNT=123"),
        ("tenant-124", "a@news.example.com", "tenants", "SMTP_Injection:X-MSYS-SUBACCOUNT=124"),
        (None, "a@news.example.com", "news", "SMTP_Injection:X-MSYS-SUBACCOUNT=9"),
        (None, "a@example.com", "default", "SMTP_Injection"),
    ],
)
def test_each_application_gets_its_own_login(login, mail_from, identity, user_name):
    """Two logins, a pattern for tenants, a reverse-path rule and the default: each its own user name and key."""
    config = configure(*FIVE, credentials=KEYS)
    identities, credentials = Identities.from_config(config), Credentials.from_config(config)
    who = client() if login is None else logged_in(identities, login)

    decision = identities.choose(who, path(mail_from))

    assert isinstance(decision, Decision)
    assert decision.assignment.identity == identity
    upstream = credentials.login_for(decision.assignment)
    assert upstream.username == user_name
    assert upstream.key == Secret(f"key of {identity}")
    assert upstream.credential == identity


# -- which rule -------------------------------------------------------------------------------------------------------


def test_without_identities_there_is_one():
    """Nothing configured: everything is the identity default, with the default key and no subaccount."""
    assert chosen(rules(), client()) == Assignment("default", "default", None)


def test_the_first_match_wins():
    """The order of the configuration decides, not how much a rule demands."""
    identities = rules({"name": "first", "match": {}}, {"name": "second", "match": {"listener": "local"}})

    assert chosen(identities, client()) == Assignment("first", "default", None)


CONDITIONS = {
    "listener": ("local", {"listener": "other"}, "the listener is not local"),
    "network": ("10.0.0.0/8", {"address": "192.0.2.1"}, "the client's address is not in 10.0.0.0/8"),
    "uid": (33, {"uid": 34}, "the client's user id is not 33"),
    "mail_from": ("*@a.example", None, "the reverse-path is not *@a.example"),
}
MATCHING = {"listener": "local", "address": "10.1.2.3", "uid": 33}


@pytest.mark.parametrize("failing", CONDITIONS)
def test_every_given_condition_must_hold(failing):
    """One that does not is enough, and it is the one the explanation names."""
    identities = rules({"name": "all", "match": {key: value for key, (value, _, _) in CONDITIONS.items()}})
    _, change, words = CONDITIONS[failing]

    assert chosen(identities, client(**MATCHING), path("x@a.example")) == Assignment("all", "default", None)

    who = client(**MATCHING | (change or {}))
    sender = path("x@b.example") if failing == "mail_from" else path("x@a.example")
    assert chosen(identities, who, sender) is None
    assert identities.consider(who, sender) == (Considered("all", words),)


def test_a_rule_may_be_for_several_users():
    """Any of them; and the explanation names them all."""
    identities = rules({"name": "batch", "match": {"uid": [33, 0]}})

    for uid in (33, 0):
        assert chosen(identities, client(address=None, uid=uid)) is not None
    assert chosen(identities, client()) is None
    assert identities.consider(client(address=None, uid=34), NULL) == (
        Considered("batch", "the client's user id is not 33 or 0"),
    )


def test_a_rule_for_a_network_does_not_speak_of_unix_sockets():
    """A client without an address is in no network, and an IPv6 client is in no IPv4 network."""
    identities = rules({"name": "v4", "match": {"network": "0.0.0.0/0"}})

    assert chosen(identities, client()) is not None
    assert chosen(identities, client(address=None, uid=33)) is None
    assert chosen(identities, client(address="::1")) is None


@pytest.mark.parametrize(("match", "matches"), [({}, True), ({"mail_from": "<>"}, True), ({"mail_from": "*"}, False)])
def test_the_null_reverse_path(match, matches):
    """It matches a rule that does not ask, or one that asks for it."""
    assert (chosen(rules({"name": "rule", "match": match}), client()) is not None) is matches


def test_no_rule_no_mail():
    """With identities configured and none matching, MAIL is refused."""
    assert chosen(rules({"name": "news", "match": {"mail_from": "*@news.example"}}), client(), path("a@b.c")) is None


# -- logins -----------------------------------------------------------------------------------------------------------


def test_a_session_that_has_logged_in_never_falls_through():
    """Its own rule does not match, the default would: the mail is refused all the same."""
    identities = rules(
        {"name": "billing", "match": {"login": "billing", "mail_from": "*@b.example"}, "password": PASSWORD},
        {"name": "default", "match": {}},
    )
    who = logged_in(identities, "billing")

    assert chosen(identities, who, path("x@b.example")) == Assignment("billing", "default", None)
    assert chosen(identities, who, path("x@c.example")) is None
    assert chosen(identities, client(), path("x@c.example")) == Assignment("default", "default", None)


def test_a_rule_with_a_login_wants_that_login():
    """Neither nobody nor somebody else gets its mapping."""
    identities = rules(*FIVE[:2])

    assert chosen(identities, client()) is None
    assert [step.failed for step in identities.consider(client(), NULL)] == [
        "login billing is wanted, and nobody has logged in",
        "login shop is wanted, and nobody has logged in",
    ]
    assert [str(step) for step in identities.consider(logged_in(identities, "shop"), NULL)] == [
        "billing: the login is not billing",
        "shop: matches",
    ]


def test_a_login_matches_only_where_its_password_was_proved():
    """Two patterns may cover one login with two passwords; the one that was not proved does not count."""
    identities = rules(
        {"name": "special", "match": {"login": "app-1"}, "password": "one"},
        {"name": "apps", "match": {"login": "app-*"}, "password": "two"},
    )
    assert set(identities.passwords("app-1")) == {"special", "apps"}
    who = client(login="app-1", proved=frozenset({"apps"}))

    assert chosen(identities, who) == Assignment("apps", "default", None)
    assert identities.consider(who, NULL)[0].failed == "its password has not been proved"


def test_without_identities_nobody_can_have_logged_in():
    """A login that no identity knows sends nothing, not even as the default."""
    assert chosen(rules(), client(login="billing")) is None


def test_one_login_may_have_several_rules():
    """The reverse-path decides between the identities of one login."""
    identities = rules(
        {"name": "a", "match": {"login": "app", "mail_from": "*@a.example"}, "password": PASSWORD},
        {"name": "b", "match": {"login": "app"}, "password": PASSWORD, "subaccount": 2},
    )
    who = logged_in(identities, "app")

    assert chosen(identities, who, path("x@a.example")) == Assignment("a", "default", None)
    assert chosen(identities, who, path("x@c.example")) == Assignment("b", "default", 2)


@given(st.one_of(st.integers(-5, 2**34).map(str), st.text("0123456789+-. ", max_size=12)))
def test_captured_subaccounts(number):
    """A number from 1 to 2³¹-1 without leading zeros is one; anything else is another login, which has no password."""
    identities = rules({"name": "tenants", "match": {"login": "tenant-{subaccount}"}, "password": PASSWORD})
    login = f"tenant-{number}"
    valid = number.isdigit() and str(int(number)) == number and 1 <= int(number) <= MAX_SUBACCOUNT

    assert set(identities.passwords(login)) == ({"tenants"} if valid else set())
    expected = Assignment("tenants", "default", int(number)) if valid else None
    assert chosen(identities, client(login=login, proved=frozenset({"tenants"}))) == expected


def test_passwords_of_a_login():
    """Each identity the login can mean has its stored password; rules without a login or a password have none."""
    identities = rules(
        *FIVE, {"name": "passthrough", "match": {"login": "SMTP_Injection"}}, {"name": "any", "match": {}}
    )

    assert identities.passwords("tenant-5") == {"tenants": Secret("third")}
    assert identities.passwords("SMTP_Injection") == {}
    assert identities.passwords("") == {}


# -- what the decision says -------------------------------------------------------------------------------------------


def test_the_explanation_goes_as_far_as_the_match():
    """Every rule in order, each with its first failure, the matching one last."""
    identities = rules(*FIVE, {"name": "never", "match": {}})

    assert [str(step) for step in identities.consider(client(), path("a@example.com"))] == [
        "billing: login billing is wanted, and nobody has logged in",
        "shop: login shop is wanted, and nobody has logged in",
        "tenants: login tenant-{subaccount} is wanted, and nobody has logged in",
        "news: the reverse-path is not *@news.example.com",
        "default: matches",
    ]


def test_a_decision_carries_the_limits_of_its_identity():
    """Senders and the number of recipients are the matching rule's."""
    rule = {"name": "a", "match": {}, "senders": ["*@a.example"], "limits": {"max_recipients": 5}}
    decision = rules(rule).choose(client(), NULL)

    assert isinstance(decision, Decision)
    assert decision.max_recipients == 5
    assert sender_allowed(decision, Address.parse("x@A.example"))
    assert not sender_allowed(decision, Address.parse("x@b.example"))


def test_an_identity_without_senders_may_send_as_anybody():
    """The list is a restriction, and there is none unless it is given."""
    decision = rules().choose(client(), NULL)

    assert isinstance(decision, Decision)
    assert sender_allowed(decision, Address.parse("x@b.example"))


# -- passthrough ------------------------------------------------------------------------------------------------------


def passthrough(user_name: str) -> Client:
    return client(login=user_name, passthrough=True)


def test_passthrough_takes_name_and_limits_from_a_rule_and_nothing_else():
    """Neither the rule's credential nor its subaccount touch a key that the application brought."""
    identities = rules(
        {"name": "own", "match": {}, "credential": "billing", "subaccount": 7, "limits": {"max_recipients": 3}}
    )
    decision = identities.choose(passthrough("SMTP_Injection:X-MSYS-SUBACCOUNT=12"), NULL)

    assert isinstance(decision, Decision)
    assert decision.assignment == Assignment("own", PASSTHROUGH, 12)
    assert decision.max_recipients == 3


def test_passthrough_user_names_are_logins_to_the_rules():
    """A rule may ask for the normalised user name; no password of ours is proved for it."""
    identities = rules(
        {"name": "sub", "match": {"login": "SMTP_Injection:X-MSYS-SUBACCOUNT={subaccount}"}, "subaccount": None},
        {"name": "main", "match": {"login": "SMTP_Injection"}},
    )

    assert chosen(identities, passthrough("SMTP_Injection")) == Assignment("main", PASSTHROUGH, None)
    assert chosen(identities, passthrough("SMTP_Injection:X-MSYS-SUBACCOUNT=5")) == Assignment("sub", PASSTHROUGH, 5)
    assert chosen(identities, passthrough("acme")) is None


def test_passthrough_without_identities():
    """The default identity takes it, with the application's own key."""
    assert chosen(rules(), passthrough("SMTP_Injection")) == Assignment("default", PASSTHROUGH, None)


KEY = Secret("key")
GENERAL = Target("smtp.sparkpostmail.com", (587, 2525))


@pytest.mark.parametrize(
    ("user_name", "normalised"),
    [
        ("SMTP_Injection", "SMTP_Injection"),
        ("smtp_injection", "SMTP_Injection"),
        ("SMTP_Injection:X-MSYS-SUBACCOUNT=5", "SMTP_Injection:X-MSYS-SUBACCOUNT=5"),
        ("smtp_injection:x-msys-subaccount=5", "SMTP_Injection:X-MSYS-SUBACCOUNT=5"),
        ("SMTP_Injection+5", "SMTP_Injection:X-MSYS-SUBACCOUNT=5"),
        ("shop+5", "SMTP_Injection:X-MSYS-SUBACCOUNT=5"),
        ("5", "SMTP_Injection:X-MSYS-SUBACCOUNT=5"),
        (f"{MAX_SUBACCOUNT}", f"SMTP_Injection:X-MSYS-SUBACCOUNT={MAX_SUBACCOUNT}"),
    ],
)
def test_passthrough_user_names_are_normalised(user_name, normalised):
    """However an application writes it, SparkPost sees its own form."""
    login = Credentials.from_config(configure()).passthrough_login(user_name, KEY)

    assert login == Login(GENERAL, normalised, KEY, PASSTHROUGH)


@pytest.mark.parametrize(
    "user_name",
    [
        "",
        "billing",
        "+5",
        "0",
        "05",
        "-1",
        str(MAX_SUBACCOUNT + 1),
        "SMTP_Injection+",
        "SMTP_Injection+x",
        "SMTP_Injection:X-MSYS-SUBACCOUNT=",
        "SMTP_Injection:X-MSYS-SUBACCOUNT=5 ",
        "SMTP_Injection:X-MSYS-SUBACCOUNT=5\r\n",
        "SMTP_Injection:X-OTHER=5",
        "\u0665",
    ],
)
def test_other_user_names_are_not_sparkposts(user_name):
    """Nothing is guessed: SparkPost is not asked about them."""
    assert Credentials.from_config(configure()).passthrough_login(user_name, KEY) is None


def test_an_empty_key_is_none():
    """There is nothing to ask SparkPost about."""
    assert Credentials.from_config(configure()).passthrough_login("SMTP_Injection", Secret("")) is None


def test_passthrough_with_a_user_name_of_ones_own():
    """Where the service has another user name, applications may write that or SparkPost's usual one."""
    credentials = Credentials.from_config(configure(upstream={"host": "smtp.example.com", "username": "4711"}))

    names = {
        text: login.username
        for text in ("4711", "smtp_injection", "4711+5", "SMTP_Injection+5", "12")
        if (login := credentials.passthrough_login(text, KEY)) is not None
    }
    assert names == {
        "4711": "4711",
        "smtp_injection": "4711",
        "4711+5": "4711:X-MSYS-SUBACCOUNT=5",
        "SMTP_Injection+5": "4711:X-MSYS-SUBACCOUNT=5",
        "12": "4711:X-MSYS-SUBACCOUNT=12",
    }


# -- credentials ------------------------------------------------------------------------------------------------------


def test_a_credential_may_live_elsewhere():
    """Host, ports and user name are the credential's own where it has them, else the general ones."""
    credentials = Credentials.from_config(
        configure(
            upstream={"ports": [2525]},
            credentials={
                "default": {"api_key": "k1"},
                "europe": {"api_key": "k2", "upstream": {"host": "smtp.eu.sparkpostmail.com"}},
                "acme": {"api_key": "k3", "upstream": {"host": "acme.example", "ports": [587], "username": "acme"}},
            },
        )
    )

    assert credentials.login_for(Assignment("x", "default", None)) == Login(
        Target("smtp.sparkpostmail.com", (2525,)), "SMTP_Injection", Secret("k1"), "default"
    )
    assert credentials.login_for(Assignment("x", "europe", 3)) == Login(
        Target("smtp.eu.sparkpostmail.com", (2525,)), "SMTP_Injection:X-MSYS-SUBACCOUNT=3", Secret("k2"), "europe"
    )
    assert credentials.login_for(Assignment("x", "acme", 4)) == Login(
        Target("acme.example", (587,)), "acme:X-MSYS-SUBACCOUNT=4", Secret("k3"), "acme"
    )


def test_no_key_is_ever_shown():
    """Neither the login nor anything that holds it prints the key."""
    credentials = Credentials.from_config(configure(credentials={"default": {"api_key": "s3cret-key"}}))
    login = credentials.login_for(Assignment("x", "default", None))

    assert "s3cret-key" not in f"{login} {login!r} {vars(credentials)!r}"
