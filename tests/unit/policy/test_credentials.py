"""What a credential's name stands for, before and after its key has changed."""

import pytest

from relay.config import Config
from relay.core.login import PASSTHROUGH, Login, Target
from relay.core.secret import Secret
from relay.policy import credentials as credentials_module
from relay.policy.credentials import Credentials

US = Target("smtp.sparkpostmail.com", (587, 2525))
EU = Target("smtp.eu.sparkpostmail.com", (2525,))


@pytest.fixture
def credentials() -> Credentials:
    own = {"host": EU.host, "ports": list(EU.ports), "username": "tenant"}
    return Credentials.from_config(
        Config.model_validate(
            {"credentials": {"default": {"api_key": "one"}, "europe": {"api_key": "two", "upstream": own}}}
        )
    )


def login(of: Credentials, name: str, subaccount: int | None = None) -> Login:
    found = of.login_of(name, subaccount)
    assert found is not None
    return found


def test_a_credential_says_where_and_as_whom_its_key_is_good(credentials: Credentials) -> None:
    """What it does not say itself is `upstream`'s."""
    assert login(credentials, "default", 7) == Login(US, "SMTP_Injection:X-MSYS-SUBACCOUNT=7", Secret("one"), "default")
    assert login(credentials, "europe") == Login(EU, "tenant", Secret("two"), "europe")
    assert credentials.login_of("gone", None) is None


def test_a_changed_key_makes_another_login(credentials: Credentials) -> None:
    """Of all subaccounts at once; the old ones are current no more, and other credentials stay."""
    old, other = login(credentials, "default", 7), login(credentials, "europe")

    assert credentials.change_key("default", Secret("three"))

    new = login(credentials, "default", 7)
    assert (new.key, new.username) == (Secret("three"), old.username)
    assert [credentials.current(one) for one in (old, new, other)] == [False, True, True]


def test_any_number_of_subaccounts_have_logins(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each its own, and the same whenever it is asked for, though not all of them are remembered."""
    monkeypatch.setattr(credentials_module, "REMEMBERED", 3)
    names = [login(credentials, "default", number).username for number in (1, 2, 3, 4, 1, 2)]

    assert names == [f"SMTP_Injection:X-MSYS-SUBACCOUNT={number}" for number in (1, 2, 3, 4, 1, 2)]
    assert login(credentials, "europe", 1).target == EU


def test_the_same_key_again_changes_nothing(credentials: Credentials) -> None:
    """A file may be touched, or written anew."""
    assert not credentials.change_key("default", Secret("one"))
    assert credentials.change_key("default", Secret("three"))
    assert not credentials.change_key("default", Secret("three"))


def test_a_login_of_a_credential_that_is_not_configured_is_not_current(credentials: Credentials) -> None:
    """Nor is one for another host."""
    known = login(credentials, "default")

    assert not credentials.current(known._replace(credential="gone"))
    assert not credentials.current(known._replace(target=EU))


def test_an_applications_own_key_is_always_current(credentials: Credentials) -> None:
    """Nothing here can change it."""
    own = credentials.passthrough_login("SMTP_Injection", Secret("theirs"))
    assert own is not None

    credentials.change_key("default", Secret("three"))

    assert own.credential == PASSTHROUGH
    assert credentials.current(own)


API = "https://api.sparkpost.com/api/v1"
EU_API = "https://api.eu.sparkpost.com/api/v1"


@pytest.mark.parametrize(
    ("upstream", "url"),
    [
        ({}, API),
        ({"http": {"url": EU_API}}, EU_API),
        ({"host": EU.host}, None),
        ({"host": EU.host, "http": {"url": f"{EU_API}/"}}, EU_API),
    ],
)
def test_the_api_is_that_of_the_same_account(upstream: dict[str, object], url: str | None) -> None:
    """A key is never shown to the API of another account: with a host of its own, it needs a URL of its own."""
    config = Config.model_validate({"credentials": {"default": {"api_key": "one", "upstream": upstream}}})
    credentials = Credentials.from_config(config)

    assert credentials.api_url(login(credentials, "default", 7)) == url


def test_the_api_of_an_applications_own_key(credentials: Credentials) -> None:
    """The configuration's."""
    own = credentials.passthrough_login("SMTP_Injection", Secret("theirs"))

    assert own is not None
    assert credentials.api_url(own) == API
