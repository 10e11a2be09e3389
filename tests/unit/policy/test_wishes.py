"""What SparkPost is asked to do with a message: the identity's part, the application's, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import SparkPostOptions
from relay.core import smtp_api
from relay.core.headers import field_values
from relay.core.reply import Reply
from relay.policy.wishes import Wishes, asked_for

HEADER = b"From: a@example.com\r\n%sTo: b@example.net\r\n"
INVOICES = {
    "transactional": True,
    "campaign_id": "invoices",
    "tags": ["invoice", "erp"],
    "metadata": {"app": "erp", "site": 5},
    "ip_pool": "fast",
}


def wishes(**options) -> Wishes:
    return Wishes.compile(SparkPostOptions.model_validate(options))


def outcome(of: Wishes, *fields: bytes) -> dict | str | None:
    """What leaves: the document, None for no field, or the refusal."""
    asked = asked_for(of, "shop", HEADER % b"".join(fields))
    if isinstance(asked, Reply):
        return str(asked)
    return json.loads(field_values(asked, smtp_api.NAME)[0]) if asked else None


def field(document: object) -> bytes:
    return b"X-MSYS-API: " + json.dumps(document).encode() + b"\r\n"


def test_nobody_asks_for_anything():
    """Most mail: no header is made."""
    assert outcome(wishes()) is None


def test_the_identity_asks():
    """What is not set is not said."""
    assert outcome(wishes(**INVOICES)) == {
        "campaign_id": "invoices",
        "metadata": {"app": "erp", "site": 5},
        "tags": ["invoice", "erp"],
        "options": {"transactional": True, "ip_pool": "fast"},
    }
    assert outcome(wishes(open_tracking=False)) == {"options": {"open_tracking": False}}


def test_the_application_asks():
    """By default for what harms nobody; its header is written anew, once."""
    asked = {"campaign_id": "x", "tags": ["a"], "options": {"click_tracking": True, "inline_css": False}}

    assert outcome(wishes(), field(asked)) == asked
    assert outcome(wishes(), field({})) == {}
    assert outcome(wishes(), b'x-msys-api :\r\n {"campaign_id":"x",\r\n\t"campaign_id":"y"}\r\n') == {
        "campaign_id": "y"
    }
    assert outcome(wishes(), '{"tags":["ü"]}'.join(["X-MSYS-API:", "\r\n"]).encode()) == {"tags": ["ü"]}


def test_the_application_goes_before_the_identity():
    """Field by field; metadata are laid over the identity's, tags are added to them."""
    asked = {
        "campaign_id": "reminders",
        "tags": ["erp", "late"],
        "metadata": {"site": 7, "order": "1"},
        "options": {"transactional": False, "open_tracking": True},
    }

    assert outcome(wishes(**INVOICES), field(asked)) == {
        "campaign_id": "reminders",
        "metadata": {"app": "erp", "site": 7, "order": "1"},
        "tags": ["invoice", "erp", "late"],
        "options": {"transactional": False, "ip_pool": "fast", "open_tracking": True},
    }


@pytest.mark.parametrize("name", ["cc", "bcc", "archive"])
def test_copies_are_asked_for_only_where_they_may_be(name):
    """Not one of a thousand blind copies of somebody's contact form goes out. An empty list asks for none."""
    copies = {name: ["x@example.org"]}

    assert outcome(wishes(), field(copies)) == (
        f"550 5.7.1 identity shop does not let applications set {name} in X-MSYS-API: see its sparkpost.accept"
    )
    assert outcome(wishes(accept=[name]), field(copies)) == copies
    assert outcome(wishes(), field({name: []})) == {name: []}


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"options": {"ip_pool": "other"}}, "options.ip_pool"),
        ({"options": {"transactional": True, "skip_suppression": True}}, "options.skip_suppression"),
        ({"tags": [], "campaign_id": "x"}, "campaign_id"),
    ],
)
def test_what_is_not_listed_is_refused_by_name(asked, name):
    """Whatever else the header asks for."""
    accept = ["tags", "options.transactional"]

    assert outcome(wishes(accept=accept), field(asked)) == (
        f"550 5.7.1 identity shop does not let applications set {name} in X-MSYS-API: see its sparkpost.accept"
    )


@pytest.mark.parametrize(
    "hidden",
    [
        b'X-MSYS-API: {"tags":["a"],"options":{"ip_pool":"other"},"options":{}}\r\n',
        b'X-MSYS-API: {"options":{},"options":{"inline_css":true}}\r\n',
    ],
)
def test_a_name_that_is_there_twice_is_there_once_afterwards(hidden):
    """Readers that take the first and readers that take the last read the same."""
    asked = asked_for(wishes(), "shop", HEADER % hidden)

    assert isinstance(asked, bytes)
    assert asked.count(b'"options"') == 1
    assert b"other" not in asked


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ([b"X-MSYS-API: {\r\n"], "550 5.6.0 JSON parsing error in X-MSYS-API: "),
        ([b"X-MSYS-API: \r\n"], "550 5.6.0 JSON parsing error in X-MSYS-API: "),
        ([field({"metadata": []})], "550 5.6.0 X-MSYS-API 'metadata' must be of type 'json object'"),
        ([field({"tags": ["x" * 1000]})], "550 5.6.0 a text in X-MSYS-API is longer than a line can be"),
        ([field({}), b"x-msys-api: {}\r\n"], "550 5.6.0 the message has several X-MSYS-API headers"),
        ([b"X-MSYS-SUBACCOUNT: 5\r\n"], "550 5.7.1 identity shop does not let applications set X-MSYS-SUBACCOUNT: "),
        ([b"X-MSYS-API\x0b: {}\r\n"], "550 5.7.1 identity shop does not let applications set X-MSYS-API\x0b: "),
        ([b"X-MSYS-API \xa0 : {}\r\n"], "550 5.7.1 identity shop does not let applications set X-MSYS-API \xa0: "),
        ([b"X-Binding\x0c: fast\r\n"], "550 5.7.1 identity shop does not let applications set X-Binding\x0c: "),
        ([b"x-binding: fast\r\n"], "550 5.7.1 identity shop does not let applications set x-binding: "),
    ],
)
def test_what_cannot_be_passed_on_is_refused(fields, refusal):
    """The message is not sent without what it asks for."""
    said = outcome(wishes(**INVOICES), *fields)

    assert isinstance(said, str)
    assert said.startswith(refusal)


def test_a_binding_passes_where_it_may():
    """It is no part of X-MSYS-API, and stays as it is; no other header can be let through."""
    may = wishes(accept=["X-Binding"])

    assert outcome(may, b"X-BINDING: fast\r\n") is None
    assert outcome(may, b"X-MSYS-Binding: fast\r\n").startswith("550 5.7.1 ")


@given(st.binary(max_size=60), st.booleans())
def test_no_header_breaks_it(octets, own):
    """Whatever stands in the header is passed on as one good field, refused, or was not meant."""
    asked = asked_for(
        wishes(**INVOICES) if own else wishes(), "shop", b"X-MSYS-API:" + octets.replace(b"\n", b"") + b"\r\n"
    )

    if isinstance(asked, bytes):
        assert smtp_api.read(field_values(asked, smtp_api.NAME)[0]) is not None
    else:
        assert asked.wire().startswith(b"550 5.")
