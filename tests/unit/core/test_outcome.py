"""The meaning of replies and failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.outcome import (
    Ambiguous,
    Answer,
    Bounced,
    Cause,
    Deferred,
    Delivered,
    Failure,
    FailureKind,
    HttpAnswer,
    Phase,
    Scope,
    classify,
)
from relay.core.reply import Reply


def fact(phase: Phase, code: int, text: str) -> Answer:
    return Answer(phase, Reply.parse(code, [text]))


@pytest.mark.parametrize(
    ("phase", "code", "text", "kind", "scope", "cause"),
    [
        (Phase.DOT, 250, "2.0.0 OK 95/6F-30607-EA5D4555", Delivered, Scope.MESSAGE, None),
        (Phase.BANNER, 554, "5.3.2 no", Deferred, Scope.ENDPOINT, None),
        (Phase.BANNER, 421, "4.3.2 later", Deferred, Scope.ENDPOINT, None),
        (Phase.EHLO, 550, "no", Deferred, Scope.ENDPOINT, None),
        (Phase.AUTH, 535, "5.7.8 Sorry.", Deferred, Scope.LOGIN, Cause.LOGIN_REFUSED),
        (Phase.AUTH, 454, "4.7.0 later", Deferred, Scope.ENDPOINT, None),
        (Phase.MAIL, 421, "4.4.5 concurrency", Deferred, Scope.ENDPOINT, None),
        (Phase.MAIL, 501, "5.5.2 syntax error MAIL FROM", Bounced, Scope.MESSAGE, None),
        (Phase.MAIL, 530, "5.7.0 authentication required", Deferred, Scope.LOGIN, Cause.LOGIN_REFUSED),
        (Phase.RCPT, 550, "5.7.1 relaying denied", Deferred, Scope.LOGIN, Cause.LOGIN_REFUSED),
        (Phase.RCPT, 550, "5.1.1 unknown", Bounced, Scope.RECIPIENT, None),
        (Phase.RCPT, 451, "4.3.0 later", Deferred, Scope.RECIPIENT, None),
        (Phase.RCPT, 452, "4.5.3 too many", Deferred, Scope.RECIPIENT, Cause.RECIPIENT_LIMIT),
        (Phase.RCPT, 552, "too many", Deferred, Scope.RECIPIENT, Cause.RECIPIENT_LIMIT),
        (Phase.RCPT, 452, "4.3.1 disk full", Deferred, Scope.RECIPIENT, None),
        (Phase.RCPT, 503, "5.5.1 need MAIL", Deferred, Scope.ENDPOINT, None),
        (Phase.DATA, 503, "5.5.1 DATA without RCPT TO", Deferred, Scope.ENDPOINT, None),
        (Phase.DOT, 550, "5.7.1 Unconfigured Sending Domain <a.b>", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN),
        (
            Phase.DOT,
            550,
            "5.7.1 Unconfigured Sending Domain <sparkpostbox.com>",
            Bounced,
            Scope.MESSAGE,
            Cause.SANDBOX_DOMAIN,
        ),
        (Phase.DOT, 550, "5.6.0 JSON parsing error in X-MSYS-API", Bounced, Scope.MESSAGE, Cause.MSYS_API),
        (Phase.DOT, 550, "5.7.1 Exceed Sending Limit (daily)", Deferred, Scope.CREDENTIAL, Cause.QUOTA),
        (Phase.DOT, 451, "4.3.0 transaction failed", Deferred, Scope.MESSAGE, None),
        (Phase.DOT, 421, "4.3.3 [internal] smtpapi unable to generate", Deferred, Scope.ENDPOINT, None),
        (Phase.DOT, 552, "5.3.4 message size limit exceeded", Bounced, Scope.MESSAGE, None),
    ],
)
def test_answers(phase, code, text, kind, scope, cause):
    """The table in the module, row by row."""
    outcome = classify(fact(phase, code, text))

    assert (type(outcome), outcome.scope, outcome.cause) == (kind, scope, cause)


@given(st.sampled_from(Phase), st.sampled_from(FailureKind), st.text())
def test_a_failure_of_transport_is_never_permanent(phase, kind, detail):
    """No reply means later, or after the last octet that nobody knows; never a bounce and never a delivery."""
    outcome = classify(Failure(phase, kind, detail))

    assert isinstance(outcome, Ambiguous if phase in {Phase.DOT, Phase.RESPONSE} else Deferred)


@given(st.sampled_from(Phase), st.integers(200, 599), st.text())
def test_classify_is_total(phase, code, text):
    """Every reply has an outcome; only 250 to the dot delivers; a login's fault never bounces a message."""
    outcome = classify(fact(phase, code, text))

    assert isinstance(outcome, Delivered) == (phase is Phase.DOT and code == 250)
    if isinstance(outcome, Bounced):
        assert code >= 500
        assert phase in {Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT}
        assert outcome.scope in {Scope.MESSAGE, Scope.RECIPIENT}


_DOMAIN = (Cause.UNCONFIGURED_DOMAIN, 550)
_SANDBOX = (Cause.SANDBOX_DOMAIN, 550)
_QUOTA = (Deferred, Scope.CREDENTIAL, Cause.QUOTA, 451)
SIZE = "invalid data format/type: The estimated message size is above the 20 MB message size limit"


@pytest.mark.parametrize(
    ("status", "code", "text", "kind", "scope", "cause", "reply"),
    [
        (401, None, "Unauthorized.", Deferred, Scope.LOGIN, Cause.LOGIN_REFUSED, 535),
        (401, "1303", "Unauthorized.", Deferred, Scope.LOGIN, Cause.LOGIN_REFUSED, 535),
        (403, "1100", "permission denied", Deferred, Scope.CREDENTIAL, Cause.NO_HTTP_GRANT, 451),
        (403, None, "", Deferred, Scope.CREDENTIAL, Cause.NO_HTTP_GRANT, 451),
        (400, "7001", "Unconfigured Sending Domain <a.b>", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN, 550),
        (400, "7001", "Blocked Sending Domain <a.b>", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN, 550),
        (400, "7001", "Compliance Pending for Sending Domain <a.b>", *(Bounced, Scope.MESSAGE), *_DOMAIN),
        (400, "7001", "No sending domain specified", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN, 550),
        (400, "7001", "Unconfigured Sending Domain <sparkpostbox.com>", *(Bounced, Scope.MESSAGE), *_SANDBOX),
        (400, "7000", "restricted domain", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN, 550),
        (400, "7004", "in use", Bounced, Scope.MESSAGE, Cause.UNCONFIGURED_DOMAIN, 550),
        (400, "1100", "invalid or unverified DKIM key id", Bounced, Scope.MESSAGE, Cause.MSYS_API, 550),
        (400, "1901", "failed to generate", Deferred, Scope.MESSAGE, None, 451),
        (400, "1902", "generation rejected", Bounced, Scope.RECIPIENT, None, 550),
        (400, "2008", "no local part in sender address", Bounced, Scope.MESSAGE, None, 550),
        (400, "5002", "at least one valid recipient is required", Bounced, Scope.RECIPIENT, None, 550),
        (400, "9999", "Account suspended", Bounced, Scope.MESSAGE, Cause.SUSPENDED, 554),
        (400, None, "<html>Bad Request</html>", Deferred, Scope.ENDPOINT, None, 554),
        (422, "1300", SIZE, Bounced, Scope.MESSAGE, Cause.TOO_LARGE, 552),
        (422, "1300", "IP Pool 'x' does not exist", Bounced, Scope.MESSAGE, Cause.MSYS_API, 550),
        (422, "1300", "metadata must be a JSON object", Bounced, Scope.MESSAGE, None, 554),
        (422, "1300", "Problems parsing request as JSON", Deferred, Scope.ENDPOINT, None, 554),
        (422, "1301", "invalid field combination", Deferred, Scope.ENDPOINT, None, 554),
        (422, "1400", "required field is missing", Bounced, Scope.MESSAGE, None, 554),
        (422, "2002", "substitution data", Bounced, Scope.MESSAGE, Cause.MSYS_API, 550),
        (422, "2007", "metadata too large", Bounced, Scope.MESSAGE, Cause.MSYS_API, 550),
        *((422, code, "", Deferred, Scope.MESSAGE, Cause.SMTP_ONLY, 451) for code in ("3000", "3001", "3002")),
        *((422, code, "", Deferred, Scope.MESSAGE, Cause.SMTP_ONLY, 451) for code in ("3010", "3020")),
        (422, None, "", Deferred, Scope.ENDPOINT, None, 554),
        (413, None, "", Bounced, Scope.MESSAGE, Cause.TOO_LARGE, 552),
        (404, "1600", "", Deferred, Scope.ENDPOINT, None, 554),
        (405, "1102", "", Deferred, Scope.ENDPOINT, None, 554),
        (415, "1700", "", Deferred, Scope.ENDPOINT, None, 554),
        (409, None, "", Deferred, Scope.ENDPOINT, None, 451),
        (301, None, "", Deferred, Scope.ENDPOINT, None, 554),
        *((420, code, "Exceed Sending Limit (x)", *_QUOTA) for code in ("2101", "2102", "2103", "2105", None)),
        (400, "1234", "Exceed Sending Limit (daily)", *_QUOTA),
        (429, None, "", Deferred, Scope.CREDENTIAL, Cause.RATE_LIMIT, 451),
        (500, "1500", "", Deferred, Scope.ENDPOINT, None, 451),
        (503, "1900", "Unable to contact authorization service.", Deferred, Scope.ENDPOINT, None, 451),
        (502, None, "", Ambiguous, Scope.MESSAGE, None, 451),
        (504, None, "", Ambiguous, Scope.MESSAGE, None, 451),
        (202, None, "", Ambiguous, Scope.MESSAGE, None, 451),
    ],
)
def test_answers_over_https(status, code, text, kind, scope, cause, reply):
    """Every status and code of fact sheet 3.3, and the SMTP reply that says so."""
    fact = HttpAnswer.of(status, code=code, text=text)
    outcome = classify(fact)

    assert (type(outcome), outcome.scope, outcome.cause, fact.reply.code) == (kind, scope, cause, reply)


@pytest.mark.parametrize(
    ("accepted", "text", "kind", "scope", "cause"),
    [
        (True, "OK 11668787484950529", Delivered, Scope.MESSAGE, None),
        (False, "invalid recipient", Bounced, Scope.RECIPIENT, None),
        (False, "Exceed Sending Limit (daily)", Deferred, Scope.CREDENTIAL, Cause.QUOTA),
        (None, "", Ambiguous, Scope.MESSAGE, None),
    ],
)
def test_a_200_is_read_to_its_end(accepted, text, kind, scope, cause):
    """It may reject the recipient, and one that cannot be read proves nothing."""
    outcome = classify(HttpAnswer.of(200, code="2000" if accepted is False else None, text=text, accepted=accepted))

    assert (type(outcome), outcome.scope, outcome.cause) == (kind, scope, cause)


@given(
    st.integers(100, 999),
    st.none() | st.from_regex(r"\A[1-7][0-9]{3}\Z"),
    st.text() | st.sampled_from(["message size", "parsing", "ip pool"]),
    st.none() | st.booleans(),
)
def test_classify_is_total_over_https(status, code, text, accepted):
    """Only a 200 that says so delivers; the reply is of the outcome's class, but for what is our own fault."""
    fact = HttpAnswer.of(status, code=code, text=text, accepted=accepted)
    outcome = classify(fact)

    assert isinstance(outcome, Delivered) == (status == 200 and accepted is True)
    assert outcome.fact is fact
    if isinstance(outcome, Bounced):
        assert fact.reply.permanent
        assert code is not None or status in {200, 413}
    if isinstance(outcome, Deferred) and outcome.scope not in {Scope.ENDPOINT, Scope.LOGIN}:
        assert fact.reply.transient


def test_what_https_cannot_carry_waits_for_smtp():
    """It is no failure of the way, and a cause of its own."""
    outcome = classify(Failure(Phase.REQUEST, FailureKind.SMTP_ONLY, "archive recipients"))

    assert (type(outcome), outcome.scope, outcome.cause) == (Deferred, Scope.MESSAGE, Cause.SMTP_ONLY)
