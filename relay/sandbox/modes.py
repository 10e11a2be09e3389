"""Faults by port: what a port does differently from a healthy SparkPost, as a table.

A mode may answer a command in its own way (`at`), withhold extensions from the EHLO reply, show another certificate,
or be late with everything. The keys of `at` are verbs, and `BANNER` and `DOT` for the two replies that no verb asks
for; the answer at `AUTH` is the outcome of the whole exchange.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from relay.sandbox.answers import TLS_READY, Answer, Then
from relay.sandbox.certificates import Kind
from relay.sandbox.faults import DISCONNECT, ENDLESS, GIBBERISH, SILENCE


@dataclass(frozen=True, slots=True)
class Mode:
    """How a port differs from a healthy one; `delay` is in seconds, before each flight of replies."""

    meaning: str
    at: Mapping[str, Answer] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    certificate: Kind = Kind.GOOD
    delay: float = 0.0


def _closing_at(verb: str) -> Mode:
    return Mode(f"421 4.3.2 to {verb}, then closes", at={verb: Answer.line("421 4.3.2 Reconfiguration in progress")})


MODES: Final[Mapping[str, Mode]] = MappingProxyType(
    {
        "normal": Mode("healthy"),
        "silent": Mode("takes the connection and never speaks", at={"BANNER": SILENCE}),
        "drop": Mode("takes the connection and drops it at once", at={"BANNER": DISCONNECT}),
        "gibberish": Mode("greets with octets that are no reply", at={"BANNER": GIBBERISH}),
        "endless-banner": Mode("greets with a reply of many lines that never ends", at={"BANNER": ENDLESS}),
        "tempfail-banner": Mode(
            "greets with 421", at={"BANNER": Answer.line("421 4.3.2 Service not available, try again later")}
        ),
        "permfail-banner": Mode(
            "greets with 554", at={"BANNER": Answer(b"554 5.3.2 No SMTP service here\r\n", Then.CLOSE)}
        ),
        "slow-banner": Mode("greets after 5 s", at={"BANNER": Answer(delay=5.0)}),
        "slow": Mode("every flight of replies comes 1 s late, or as late as the port says", delay=1.0),
        "no-starttls": Mode("does not offer STARTTLS", withheld=frozenset({"STARTTLS"})),
        "refuse-starttls": Mode(
            "454 to STARTTLS", at={"STARTTLS": Answer.line("454 4.7.0 TLS not available due to temporary reason")}
        ),
        "handshake-drop": Mode(
            "drops at the ClientHello", at={"STARTTLS": Answer(TLS_READY.reply, Then.DROP_ON_INPUT)}
        ),
        "handshake-hang": Mode("never answers the ClientHello", at={"STARTTLS": Answer(TLS_READY.reply, Then.HANG)}),
        "wrong-name": Mode("shows a certificate for another name", certificate=Kind.WRONG_NAME),
        "expired": Mode("shows an expired certificate", certificate=Kind.EXPIRED),
        "untrusted": Mode("shows a certificate of an unknown CA", certificate=Kind.UNTRUSTED),
        "auth-454": Mode("454 to every login", at={"AUTH": Answer.line("454 4.7.0 Temporary authentication failure")}),
        "auth-535": Mode("535 to every login", at={"AUTH": Answer.line("535 5.7.8 Sorry.")}),
        "no-8bitmime": Mode("does not offer 8BITMIME", withheld=frozenset({"8BITMIME"})),
        "no-pipelining": Mode(
            "does not offer PIPELINING, and cuts off a client that pipelines", withheld=frozenset({"PIPELINING"})
        ),
    }
    | {
        f"421-at-{verb.lower()}": _closing_at(verb)
        for verb in ("EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT")
    }
)
