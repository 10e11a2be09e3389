"""A whole dialogue at once, without sockets: what a client says goes in, everything that came of it comes out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from relay.core import reply
from relay.core.reply import Reply
from relay.ingress.data import DataLimits
from relay.ingress.dialogue import Dialogue
from relay.ingress.memory import DataMemory, Share
from relay.ingress.steps import Authenticate, BeginTls, DialogueSettings, TakeMessage
from relay.ingress.transaction import EnvelopeLimits
from tests.support.decisions import decision

SETTINGS = DialogueSettings("relay.test", "optional", False, EnvelopeLimits(2000, 3), DataLimits(2000, 1200))


@dataclass
class Heard:
    """Everything that came of a dialogue."""

    said: bytes = b""
    messages: list[tuple[object, bytes, bytes, int, bool]] = field(default_factory=list)
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    tolerances: Counter[str] = field(default_factory=Counter)
    closed: bool = False
    starved: int = field(default=0, compare=False)

    def replied(self, verb: str, answer: Reply) -> None:
        self.replies.append((verb, answer))

    def tolerated(self, kind: str) -> None:
        self.tolerances[kind] += 1


def hold(
    octets: bytes | Sequence[bytes],
    sizes: Sequence[int],
    settings: DialogueSettings = SETTINGS,
    *,
    memory: int | None = None,
    plain_auth: bool = True,
) -> Heard:
    """Hold a dialogue whose octets come in pieces of these sizes, over and over.

    Several flights: each is sent once all before it has been answered, and TLS begins between two of them. What stands
    behind STARTTLS in its own flight is for the handshake, which it fails. `memory`: the limit for content, of which
    another message holds all until the dialogue has to wait.
    """
    heard = Heard()
    room = DataMemory(memory)
    dialogue = Dialogue(replace(settings, memory=room), lambda path: decision(), heard, plain_auth=plain_auth)
    dialogue.greet()
    for flight in [octets] if isinstance(octets, bytes) else octets:
        position = turn = 0
        while position < len(flight) and not dialogue.closed:
            size = sizes[turn % len(sizes)]
            dialogue.receive(flight[position : position + size])
            position, turn = position + size, turn + 1
            if not _work(dialogue, heard, room):
                if position < len(flight):
                    dialogue.abandon()
                else:
                    dialogue.upgraded()
                break
    heard.said, heard.closed = bytes(dialogue.out), dialogue.closed
    dialogue.abandon()
    assert room.held == 0, "memory was not given back"
    return heard


def _work(dialogue: Dialogue, heard: Heard, room: DataMemory) -> bool:
    """Let it go on as far as it can; False where TLS begins."""
    other = _everything(room)
    while True:
        match dialogue.advance():
            case Authenticate(user, password):
                good = (user, password.reveal()) == ("app", "correct horse")
                dialogue.authenticated(reply.AUTH_OK if good else reply.AUTH_FAILED, user if good else None)
            case TakeMessage(envelope, _, content):
                whole = b"".join(content.chunks())
                heard.messages.append((envelope, content.header, whole, content.longest_line, content.eight_bit))
                content.close()
                dialogue.accepted(reply.queued("0"))
            case BeginTls():
                other.release()
                return False
            case None if dialogue.starved and not dialogue.closed:
                heard.starved += 1
                served: list[None] = []
                dialogue.await_memory(partial(served.append, None))
                other.release()
                assert served, "it waits though there is room, or nobody else who could give any back"
            case None:
                other.release()
                return True


def _everything(room: DataMemory) -> Share:
    """Somebody else's message, as large as the limit."""
    share = room.share()
    if room._limit is not None:
        share.settle(room._limit)
    return share
