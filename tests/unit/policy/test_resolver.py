"""What a stored promise means today."""

import pytest

from relay.config import Config
from relay.core.login import Assignment, Terms
from relay.core.ports import Bearer
from relay.core.secret import Secret
from relay.core.spooled import Lane
from relay.policy.credentials import Credentials
from relay.policy.identity import Identities
from relay.policy.resolver import PolicyResolver

SHOP = Assignment("shop", "billing", 7)
KEYS = {"default": {"api_key": "key of default"}, "billing": {"api_key": "key of billing"}}
TENANTS = {"name": "tenants", "match": {"login": "tenant-{subaccount}"}, "password": "secret", "credential": "billing"}


def shop(**keys: object) -> dict[str, object]:
    return {"name": "shop", "credential": "billing", "subaccount": 7, **keys}


def resolver(*identities: dict[str, object], credentials: object = KEYS, **delivery: object) -> PolicyResolver:
    config = Config.model_validate({"credentials": credentials, "identities": list(identities), "delivery": delivery})
    return PolicyResolver.from_config(config, Identities.from_config(config), Credentials.from_config(config))


def resolved(of: PolicyResolver, assignment: Assignment) -> Bearer:
    bearer = of.resolve(assignment)
    assert isinstance(bearer, Bearer), bearer
    return bearer


def reason(of: PolicyResolver, assignment: Assignment) -> str:
    """Why it waits for the operator."""
    held = of.resolve(assignment)
    assert isinstance(held, str)
    return held


def test_an_unchanged_mapping_resolves_to_todays_key() -> None:
    """The promise is kept by name, and the secret is looked up."""
    config = Config.model_validate({"credentials": KEYS, "identities": [shop()]})
    credentials = Credentials.from_config(config)
    of = PolicyResolver.from_config(config, Identities.from_config(config), credentials)
    before = resolved(of, SHOP)
    credentials.change_key("billing", Secret("new key"))
    after = resolved(of, SHOP)

    assert before.assignment == after.assignment == SHOP
    assert before.login.username == after.login.username == "SMTP_Injection:X-MSYS-SUBACCOUNT=7"
    assert (before.login.key, after.login.key) == (Secret("key of billing"), Secret("new key"))


def test_an_identity_that_is_gone_holds_its_mail() -> None:
    """The reason names it, and the way out."""
    of = resolver(shop(name="other"))

    assert reason(of, SHOP) == "there is no identity shop any more: configure it, then queue release"
    assert of.renew(SHOP) == reason(of, SHOP)


def test_a_credential_that_is_gone_holds_its_mail() -> None:
    """Renewing cannot help either, as the identity still names it."""
    of = resolver(shop(), credentials={"default": {"api_key": "k"}})

    assert reason(of, SHOP) == "there is no credential billing any more: configure it, then queue release"
    assert of.renew(SHOP) == reason(of, SHOP)
    assert of.login_of(Lane.of(SHOP)) is None


@pytest.mark.parametrize(
    ("changed", "now"),
    [
        ({"credential": "default"}, "subaccount 7 of credential default"),
        ({"subaccount": 8}, "subaccount 8 of credential billing"),
        ({"subaccount": None}, "the primary account of credential billing"),
    ],
)
def test_another_mapping_holds_the_mail_until_it_is_released(changed: dict[str, object], now: str) -> None:
    """Nobody's mail changes its account in silence; the operator who releases it takes the new mapping."""
    of = resolver(shop(**changed))

    assert reason(of, SHOP) == (
        f"identity shop sends as {now} now, and this message was accepted for subaccount 7 of credential billing:"
        " queue release sends it under the new mapping"
    )
    renewed = of.renew(SHOP)
    assert isinstance(renewed, Assignment)
    assert renewed != SHOP
    assert resolved(of, renewed).assignment == renewed


def test_a_captured_subaccount_stays_what_it_was() -> None:
    """It came from the application's login, which is not asked again."""
    of = resolver(TENANTS)
    tenant = Assignment("tenants", "billing", 4711)

    assert resolved(of, tenant).login.username == "SMTP_Injection:X-MSYS-SUBACCOUNT=4711"
    assert of.renew(tenant) == tenant


def test_a_captured_subaccount_moves_with_its_identity_to_another_credential() -> None:
    """Once the operator says so."""
    of = resolver(TENANTS | {"credential": "default"})

    assert "sends as subaccount 4711 of credential default now" in reason(of, Assignment("tenants", "billing", 4711))
    assert of.renew(Assignment("tenants", "billing", 4711)) == Assignment("tenants", "default", 4711)


def test_an_identity_that_no_longer_captures_holds_its_tenants_mail() -> None:
    """What was one tenant's must not become the primary account's unseen."""
    of = resolver({"name": "tenants", "credential": "billing"})

    assert "the primary account" in reason(of, Assignment("tenants", "billing", 4711))


def test_mail_of_the_implied_identity_resolves_while_none_is_configured() -> None:
    """Its name is default; when identities are configured and none has that name, its mail is held."""
    implied = Assignment("default", "default", None)

    assert resolved(resolver(), implied).login.username == "SMTP_Injection"
    assert "no identity default" in reason(resolver(shop()), implied)


def test_each_identity_has_its_own_terms_or_the_general_ones() -> None:
    """They are looked up too: what changes counts for mail that is stored already."""
    of = resolver(
        shop(delivery="queue", cut_through_deadline="20s", max_age="1h"),
        {"name": "default"},
        cut_through_deadline="3s",
        max_age="2d",
    )

    assert resolved(of, SHOP).terms == Terms(queue=True, deadline=20, max_age=3600)
    assert of.terms_of("default") == Terms(queue=False, deadline=3, max_age=172_800)
    assert of.terms_of("gone") == Terms(queue=False, deadline=3, max_age=172_800)


def test_a_lane_has_the_login_of_its_credential_and_subaccount() -> None:
    """That is what circuits speak about."""
    of = resolver(shop())

    assert of.login_of(Lane.of(SHOP)) == resolved(of, SHOP).login
    primary = of.login_of(Lane("billing", None))
    assert primary is not None
    assert primary.username == "SMTP_Injection"


def test_no_reason_holds_a_secret() -> None:
    """Reasons are shown and logged."""
    for of in (resolver(shop(name="other")), resolver(shop(subaccount=8)), resolver(shop(), credentials={})):
        assert "key of" not in reason(of, SHOP)
