"""The X-MSYS-API header: what is read in one, and that none is written which SparkPost would refuse."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core import smtp_api
from relay.core.headers import field_values
from relay.core.smtp_api import SmtpApiError
from relay.sandbox import msys

TEXT = st.text(max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "campaign_id": st.text(max_size=16),
        "metadata": st.dictionaries(TEXT, JSON, max_size=5),
        "tags": st.lists(TEXT, max_size=12),
        "bcc": st.lists(st.emails(), max_size=5),
        "options": st.fixed_dictionaries({}, optional={"open_tracking": st.booleans(), "ip_pool": TEXT}),
    },
)


@given(DOCUMENTS)
@example({"tags": ["  two  spaces  ", 'a "quoted\\" one', "ends in \\", "\r\n\t", "\u2028 ü 💌"] * 9})
@example({"metadata": {"long": "x" * 900, "words": "a b " * 200}})
def test_what_is_written_is_read_as_it_was(document):
    """By SparkPost, who puts a space for each fold, and by the relay; and no line is longer than lines may be."""
    written = smtp_api.field(document)

    (value,) = field_values(written, b"X-MSYS-API")
    assert written.endswith(b"\r\n")
    assert max(map(len, written.split(b"\r\n"))) <= 998
    assert all(line[:1] == b" " and line.strip() for line in written.split(b"\r\n")[1:-1])
    assert json.loads(msys.unfold(value)) == document
    assert msys.objection(value) is None
    assert smtp_api.read(value) == document


def test_lines_are_short_where_they_can_be():
    """78 octets, unless a text is longer by itself."""
    lines = smtp_api.field({"tags": ["tag"] * 60, "metadata": {"x": "y" * 200}}).split(b"\r\n")

    assert [len(line) for line in lines if len(line) > 78] == [len('  "' + "y" * 200 + '"}}') - 1]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"", "JSON parsing error in X-MSYS-API: "),
        (b'{"tags": [', "JSON parsing error in X-MSYS-API: "),
        (b'{"campaign_id": "\xff"}', "JSON parsing error in X-MSYS-API: "),
        (b'{"metadata": {"x": NaN}}', "JSON parsing error in X-MSYS-API: NaN is no number in JSON"),
        (b'{"metadata": ' + b"[" * 60_000, "JSON parsing error in X-MSYS-API: nested too deeply"),
        (b'{"metadata": {"x": -1e999}}', "JSON parsing error in X-MSYS-API: -1e999 is no number in JSON"),
        (b'{"metadata": {"x": ' + b"[" * 33 + b"]" * 33 + b"}}", "X-MSYS-API may be nested 32 deep"),
        (b'{"options": [' + b"[" * 900 + b"]" * 901 + b"}", "X-MSYS-API 'options' must be of type 'json object'"),
        (b"[]", "X-MSYS-API must be of type 'json object'"),
        (b'{"metadata": []}', "X-MSYS-API 'metadata' must be of type 'json object'"),
        (b'{"tags": "a"}', "X-MSYS-API 'tags' must be of type 'json array'"),
        (b'{"tags": [1]}', "X-MSYS-API 'tags' must be an array of strings"),
        (b'{"campaign_id": null}', "X-MSYS-API 'campaign_id' must be of type 'string'"),
        (b'{"options": {"transactional": "true"}}', "X-MSYS-API 'options.transactional' must be of type 'boolean'"),
        (b'{"campaign_id": "%s"}' % (b"\xc3\xbc" * 33), "smtpapi_campaign_id context is limited to 64 bytes"),
        (b'{"x": "%s"}' % (b"x" * 131_072), "X-MSYS-API is limited to 131072 octets"),
    ],
)
def test_what_sparkpost_would_refuse_is_not_read(value, complaint):
    """In its own words, where they are known."""
    with pytest.raises(SmtpApiError) as refused:
        smtp_api.read(value)

    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"tags": ["x" * 1000]}, "longer than a line can be"),
        ({"metadata": {"x": 1e999}}, "a number is too large"),
    ],
)
def test_what_no_header_can_say_is_not_written(document, complaint):
    """A text that would have to be folded within, and a number that JSON has not."""
    with pytest.raises(SmtpApiError, match=complaint):
        smtp_api.field(document)


def test_fields_that_sparkpost_does_not_know_are_left_out():
    """It ignores them, and so nothing is changed."""
    value = b' {"substitution_data": {"a": 1}, "tags": ["a"], "options": {"sandbox": true, "inline_css": true}}'

    assert smtp_api.read(value) == {"tags": ["a"], "options": {"inline_css": True}}


@pytest.mark.parametrize("innermost", ["[]", "{}"])
def test_how_deep_it_may_be_nested(innermost):
    """Empty or not, the innermost counts, and so does the header's own object."""
    deep = "[" * (smtp_api.MAX_DEPTH - 3) + innermost + "]" * (smtp_api.MAX_DEPTH - 3)

    assert smtp_api.read(f'{{"metadata": {{"x": {deep}}}}}'.encode())
    with pytest.raises(SmtpApiError, match="nested 32 deep"):
        smtp_api.read(f'{{"metadata": {{"x": [{deep}]}}}}'.encode())
