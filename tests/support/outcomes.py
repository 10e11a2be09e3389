"""Facts of the dialogue with SparkPost and what they mean, for tests that need one of each kind."""

from relay.core.outcome import Answer, Failure, FailureKind, Outcome, Phase, classify
from relay.core.reply import Reply

REPLIES = (
    (250, "2.0.0 OK 95/6F-30607-EA5D4555"),
    (251, "2.1.5 will forward"),
    (354, "go"),
    (421, "4.4.2 closing"),
    (450, "4.2.1 busy mailbox"),
    (451, "4.7.1 [internal] Exceed Sending Limit (daily)"),
    (452, "4.5.3 too many recipients"),
    (454, "4.7.0 temporary authentication failure"),
    (500, "5.5.2 unrecognised"),
    (503, "5.5.1 bad sequence"),
    (530, "5.7.0 authentication required"),
    (535, "5.7.8 authentication failed"),
    (550, "5.7.1 relaying denied"),
    (550, "5.7.1 Unconfigured Sending Domain <example.com>"),
    (550, "5.7.1 Exceed Sending Limit (hourly)"),
    (552, "5.5.3 too many recipients"),
    (554, "5.6.0 no"),
)


def said(phase: Phase, code: int, text: str) -> Outcome:
    """What SparkPost's answer in a phase means; `text` may begin with an enhanced code."""
    return classify(Answer(phase, Reply.parse(code, [text])))


def broke(phase: Phase, kind: FailureKind = FailureKind.LOST, detail: str = "closed by the peer") -> Outcome:
    """What it means that no answer came in a phase."""
    return classify(Failure(phase, kind, detail))


EVERY_OUTCOME = (
    *(said(phase, code, text) for phase in Phase for code, text in REPLIES),
    *(broke(phase, kind) for phase in Phase for kind in FailureKind),
)

DELIVERED = said(Phase.DOT, *REPLIES[0])
DEFERRED = said(Phase.RCPT, 450, "4.2.1 busy mailbox")
BOUNCED = said(Phase.RCPT, 550, "5.1.1 no such user")
AMBIGUOUS = broke(Phase.DOT)
REFUSED = said(Phase.AUTH, 535, "5.7.8 Sorry.")
QUOTA = said(Phase.MAIL, 451, "4.7.1 Exceed Sending Limit (daily)")
BUSY = said(Phase.AUTH, 454, "4.7.0 try later")
UNREACHABLE = broke(Phase.CONNECT, FailureKind.REFUSED, "port 587: connection refused")
WORN_LEASE = broke(Phase.DATA, FailureKind.LEASE, "the claim ran out")
