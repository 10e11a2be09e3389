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
    """No reply means later, or after the dot that nobody knows; never a bounce and never a delivery."""
    outcome = classify(Failure(phase, kind, detail))

    assert isinstance(outcome, Ambiguous if phase is Phase.DOT else Deferred)


@given(st.sampled_from(Phase), st.integers(200, 599), st.text())
def test_classify_is_total(phase, code, text):
    """Every reply has an outcome; only 250 to the dot delivers; a login's fault never bounces a message."""
    outcome = classify(fact(phase, code, text))

    assert isinstance(outcome, Delivered) == (phase is Phase.DOT and code == 250)
    if isinstance(outcome, Bounced):
        assert code >= 500
        assert phase in {Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT}
        assert outcome.scope in {Scope.MESSAGE, Scope.RECIPIENT}
