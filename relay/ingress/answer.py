"""What the application hears of an attempt: outcomes in, one reply out. Pure.

The application gets SparkPost's own words where they are about its message or its recipients, and ours where the fault
is the relay's or the way's. Every answer carries the queue id, so that one search in the log leads to the rest.
"""

from collections.abc import Mapping
from typing import Final

from relay.core import reply
from relay.core.envelope import Recipient
from relay.core.login import PASSTHROUGH, Assignment
from relay.core.outcome import (
    Ambiguous,
    Answer,
    Bounced,
    Cause,
    Deferred,
    Delivered,
    Failure,
    FailureKind,
    Outcome,
    Scope,
)
from relay.core.ports import AttemptReport
from relay.core.reply import MAX_LINE, EnhancedCode, Reply

_HINTS: Final[Mapping[Cause, str]] = {
    Cause.UNCONFIGURED_DOMAIN: "the From domain must be a verified sending domain of this account or subaccount",
    Cause.SANDBOX_DOMAIN: "sparkpostbox.com cannot be used over SMTP, send from a verified sending domain",
    Cause.MSYS_API: "the X-MSYS-API header of the message is not valid",
    Cause.SUSPENDED: "the SparkPost account or subaccount is suspended",
    Cause.QUOTA: "the sending limit of the SparkPost plan is reached, try again later",
    Cause.TOO_LARGE: "SparkPost takes messages of at most 20 MB",
    Cause.NO_HTTP_GRANT: "for HTTPS the API key needs the permission Transmissions: Read/Write",
    Cause.SMTP_ONLY: "SparkPost cannot take this message over HTTPS, it has to wait for SMTP",
}


def answer(report: AttemptReport, queue_id: str, assignment: Assignment) -> Reply:
    """The reply to the final dot where nothing is spooled: 250 only if SparkPost took the message for every recipient.

    Otherwise (design, section 4) the message is refused as a whole: what may have been delivered first, then what may
    succeed later, then the first recipient that never will.
    """
    results = report.outcomes
    for kind in (Ambiguous, Deferred, Bounced):
        found = [pair for pair in results if isinstance(pair[1], kind) and not _withheld(pair[1])]
        if found:
            recipient, outcome = found[0]
            return _refusal(outcome, recipient if len(results) > 1 else None, queue_id, assignment)
    first = results[0][1]
    assert isinstance(first, Delivered)
    assert isinstance(first.fact, Answer)
    return _with_id(first.fact.reply, "", queue_id)


def answer_queued(report: AttemptReport, queue_id: str) -> Reply:
    """The reply to the final dot of a message that is in the spool with what an attempt came to."""
    refused = sum(isinstance(outcome, Bounced) for _, outcome in report.outcomes)
    if refused:
        return reply.partly_refused(queue_id, refused, len(report.outcomes))
    return reply.queued(queue_id)


def _withheld(outcome: Outcome) -> bool:
    return not isinstance(outcome.fact, Answer) and outcome.fact.kind is FailureKind.WITHHELD


def _refusal(outcome: Outcome, recipient: Recipient | None, queue_id: str, assignment: Assignment) -> Reply:
    match outcome:
        case Ambiguous():
            return reply.maybe_delivered(str(outcome.fact), queue_id)
        case Deferred(fact=Failure(kind=FailureKind.DEFECT)):
            return reply.message_not_sent(queue_id)
        case Deferred(scope=Scope.LOGIN):
            if assignment.credential == PASSTHROUGH:
                return reply.own_key_refused(str(outcome.fact), queue_id)
            return reply.login_refused(assignment.credential, str(outcome.fact), queue_id)
        case Deferred(scope=Scope.ENDPOINT, fact=Answer() as fact) if fact.reply.code not in {421, 454}:
            if fact.reply.transient:
                return reply.sparkpost_unreachable(str(fact), queue_id)
            return reply.relay_misconfigured(str(fact), queue_id)
        case Deferred(scope=Scope.ENDPOINT):
            return reply.sparkpost_unreachable(str(outcome.fact), queue_id)
        case Outcome(fact=Answer(reply=said)):
            return _with_id(
                _temporary(said) if isinstance(outcome, Deferred) else said, _about(outcome, recipient), queue_id
            )
        case _:
            return reply.sparkpost_unreachable(str(outcome.fact), queue_id)


def _temporary(said: Reply) -> Reply:
    """SparkPost's refusal as 4yz, where its code is permanent but its meaning is not (quota; 552 for 452)."""
    if said.transient:
        return said
    enhanced = said.enhanced or EnhancedCode(5, 0, 0)
    return Reply(451, EnhancedCode(4, enhanced.subject, enhanced.detail), said.text)


def _about(outcome: Outcome, recipient: Recipient | None) -> str:
    words = []
    if recipient is not None and outcome.scope is Scope.RECIPIENT:
        words.append(f"<{recipient}>, nothing was sent")
    if outcome.cause is not None and outcome.cause in _HINTS:
        words.append(_HINTS[outcome.cause])
    return "; ".join(words)


def _with_id(said: Reply, remark: str, queue_id: str) -> Reply:
    """SparkPost's words, our remark and the queue id; if they do not fit on a line, SparkPost's words are cut."""
    tail = f" [{remark}]" if remark else ""
    tail += f" ({queue_id})"
    room = MAX_LINE - 2 - len(str(said.with_text(""))) - 1 - len(tail)
    text = said.text if len(said.text) <= room else said.text[: room - 3] + "..."
    return said.with_text(text + tail)
