"""A local SMTP relay for SparkPost.

Applications that can only say `MAIL FROM` connect to localhost; the relay decides which SparkPost identity each message
belongs to and forwards it over verified STARTTLS. Follow a message through the rooms in this order: `ingress` (how mail
enters), `policy` (whose it is, may it pass), `delivery` (one attempt), `upstream` (speaking to SparkPost). `core` holds
the nouns they share.
"""

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Does this program run compiled (hatch_build.py), or from its sources?"""
    from importlib.machinery import SourceFileLoader
    from importlib.util import find_spec

    dialogue = find_spec("relay.ingress.dialogue")
    return dialogue is not None and not isinstance(dialogue.loader, SourceFileLoader)
