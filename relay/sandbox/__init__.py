"""A SparkPost that lives on localhost: the same dialogue, rules and texts, and faults on demand.

For trials, for the tests of the relay, and for the tests of the applications behind it. It uses nothing from the rest
of the relay, so that it can disagree with it. What is documented, what was observed and what is guessed about
SparkPost is said where it is used; the replies are matched by code and enhanced code, never by text.
"""

from relay.sandbox.api import HTTP_MODES
from relay.sandbox.faults import MAGIC
from relay.sandbox.modes import MODES
from relay.sandbox.ports import HttpPort, Port
from relay.sandbox.records import Accepted, Direction, Exchange, LoginAttempt, Session, key_digest
from relay.sandbox.rules import Rules
from relay.sandbox.server import Sandbox

__all__ = [
    "HTTP_MODES",
    "MAGIC",
    "MODES",
    "Accepted",
    "Direction",
    "Exchange",
    "HttpPort",
    "LoginAttempt",
    "Port",
    "Rules",
    "Sandbox",
    "Session",
    "key_digest",
]
