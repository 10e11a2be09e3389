"""The dialogue is one of octets: how the network cuts them never makes a difference."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from relay.core import reply
from relay.core.envelope import Address, PathError, read_path, split_path
from relay.core.reply import Reply
from relay.ingress.data import DataLimits
from relay.ingress.dialogue import Dialogue
from relay.ingress.steps import Authenticate, BeginTls, DialogueSettings, TakeMessage
from relay.ingress.transaction import EnvelopeLimits
from tests.support.decisions import decision

SETTINGS = DialogueSettings("relay.test", "optional", False, EnvelopeLimits(2000, 3), DataLimits(2000, 1200))

COMMANDS = st.sampled_from(
    [
        b"EHLO client",
        b"helo client",
        b"EHLO",
        b"MAIL FROM:<a@example.com>",
        b"MAIL FROM:<a@example.com> BODY=8BITMIME SIZE=100",
        b"mail from: a@example.com",
        b"MAIL FROM:<>",
        b"RCPT TO:<b@example.net>",
        b"RCPT TO: <c@example.net> NOTIFY=NEVER",
        b"RCPT TO:<>",
        b"DATA",
        b"DATA now",
        b".",
        b"AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNl",
        b"AUTH PLAIN AGFwcAB3cm9uZw==",
        b"AUTH LOGIN",
        b"YXBw",
        b"Y29ycmVjdCBob3JzZQ==",
        b"*",
        b"NOOP",
        b"RSET",
        b"VRFY a",
        b"QUIT",
        b"GET / HTTP/1.1",
        b"\x16\x03\x01\x00\x05hello",
        b"",
        b"what?",
        b"x" * 5000,
        b"AUTH " + b"x" * 13_000,
    ]
)
CONTENT = st.lists(
    st.sampled_from(
        [b"Subject: x", b"", b"body", b".", b"..", b".a", b"\xe4", b"\0", b"a\rb", b"a\nb", b"x" * 999, b"x" * 1300]
    ),
    max_size=6,
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n"])


@st.composite
def dialogues(draw: st.DrawFn) -> bytes:
    """What a client says, commands and messages in any order; mostly with one kind of line end."""
    usual = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    octets = b""
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            octets += draw(COMMANDS) + (draw(ENDS) if draw(st.integers(0, 9)) == 0 else usual)
        else:
            envelope = [b"EHLO c", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.net>", b"DATA"]
            octets += usual.join([*envelope, *draw(CONTENT), b".", b""])
    return octets


@dataclass
class Heard:
    """Everything that came of a dialogue."""

    said: bytes = b""
    messages: list[tuple[object, bytes, bytes, int, bool]] = field(default_factory=list)
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    tolerances: Counter[str] = field(default_factory=Counter)
    closed: bool = False

    def replied(self, verb: str, answer: Reply) -> None:
        self.replies.append((verb, answer))

    def tolerated(self, kind: str) -> None:
        self.tolerances[kind] += 1


def hold(octets: bytes, sizes: list[int]) -> Heard:
    """Hold a dialogue whose octets come in pieces of these sizes, over and over."""
    heard = Heard()
    dialogue = Dialogue(SETTINGS, lambda path: decision(), heard, plain_auth=True)
    dialogue.greet()
    position = turn = 0
    while position < len(octets):
        size = sizes[turn % len(sizes)]
        dialogue.receive(octets[position : position + size])
        position, turn = position + size, turn + 1
        while (step := dialogue.advance()) is not None:
            match step:
                case Authenticate(user, password):
                    good = (user, password.reveal()) == ("app", "correct horse")
                    dialogue.authenticated(reply.AUTH_OK if good else reply.AUTH_FAILED, user if good else None)
                case TakeMessage(envelope, _, content):
                    whole = b"".join(content.chunks())
                    heard.messages.append((envelope, content.header, whole, content.longest_line, content.eight_bit))
                    content.close()
                    dialogue.accepted(reply.queued("0"))
                case BeginTls():
                    raise AssertionError("STARTTLS is not offered")
    heard.said, heard.closed = bytes(dialogue.out), dialogue.closed
    return heard


@given(octets=dialogues(), sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_how_octets_are_cut_makes_no_difference(octets, sizes):
    """Any pieces give the same replies, the same messages, the same tolerances and the same end."""
    assert hold(octets, sizes) == hold(octets, [len(octets)])


@given(octets=dialogues())
def test_octet_by_octet(octets):
    """The smallest pieces of all, too."""
    assert hold(octets, [1]) == hold(octets, [len(octets)])


@given(octets=dialogues())
def test_every_message_is_lines_ended_by_crlf_without_an_end_of_data_in_it(octets):
    """Whatever was said, nothing is taken that a later reader could see an end of data in."""
    for _, header, content, longest_line, _ in hold(octets, [len(octets)]).messages:
        assert content.startswith(header)
        assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
        assert longest_line == max(map(len, content.split(b"\r\n")))


PATHS = st.lists(
    st.sampled_from(
        ["<", ">", "@", "a", "example.com", ".", '"', " ", "\t", "a b", ":", "@x:", "SIZE=1", "[1.2.3.4]", "é", "-"]
    ),
    max_size=8,
).map("".join)


@given(argument=st.one_of(PATHS, PATHS.map(lambda text: f"<a@{text}"), st.text(max_size=12)))
def test_ordinary_paths_are_read_as_any_others(argument):
    """The short way to an address leads to where the long way does."""

    def short():
        path = read_path(argument)
        return path.address, path.rest

    def long():
        path = split_path(argument)
        return Address.parse(path.text) if path.text else None, path.rest

    assert _came_to(short) == _came_to(long)


def _came_to(way):
    try:
        return way()
    except PathError as error:
        return type(error), str(error)
