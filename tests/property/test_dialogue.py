"""The dialogue is one of octets: how the network cuts them never makes a difference."""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from relay.core.envelope import Address, PathError, read_path, split_path
from relay.core.mime import MAX_LINE
from tests.support.conversing import SETTINGS, hold

OPTIONAL, TLS, LOCKED, CLOSED = (
    SETTINGS,
    replace(SETTINGS, starttls=True),
    replace(SETTINGS, starttls=True, auth="required"),
    replace(SETTINGS, auth="none"),
)

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
        b"STARTTLS",
        b"STARTTLS now",
        b"AUTH PLAIN",
        b"AUTH PLAIN =",
        b"auth login YXBw",
        b"AUTH CRAM-MD5",
        b"AUTH",
        b"AGFwcABjb3JyZWN0IGhvcnNl",
        b"NO\0OP",
        b"MAIL FROM:<a\0@example.com>",
        b"RCPT TO:<b@example.net>\rDATA",
        b"\xff\xfe",
        b"x" * 4096,
        b"AUTH " + b"A" * 12_283,
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
# What servers have been made to take for the end of data, each before commands that must stay content.
SMUGGLED = st.sampled_from(
    [
        before + b"." + after
        for before in (b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r", b"\r\n\0", b"\0\r\n")
        for after in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n", b"\r\0\n", b"\r\n")
        if (before[-2:], after) != (b"\r\n", b"\r\n")
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n"])


@st.composite
def dialogues(draw: st.DrawFn) -> bytes:
    """What a client says, commands and messages in any order; mostly with one kind of line end."""
    usual = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    octets = b""
    if draw(st.booleans()):
        octets += b"EHLO c" + usual
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            octets += draw(COMMANDS) + (draw(ENDS) if draw(st.integers(0, 9)) == 0 else usual)
        else:
            envelope = [b"EHLO c", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.net>", b"DATA"]
            octets += usual.join([*envelope, *draw(CONTENT), b".", b""])
    return octets


WHOLE = [1 << 30]
SIZES = st.lists(st.integers(1, 3000), min_size=1, max_size=8)
OFFERS = st.sampled_from([OPTIONAL, OPTIONAL, LOCKED, CLOSED])


@given(octets=dialogues(), sizes=SIZES, offer=OFFERS)
def test_how_octets_are_cut_makes_no_difference(octets, sizes, offer):
    """Any pieces give the same replies, the same messages, the same tolerances and the same end."""
    assume(not offer.starttls or b"STARTTLS" not in octets)  # what follows it then is no part of the dialogue

    assert hold(octets, sizes, offer) == hold(octets, WHOLE, offer)


@given(octets=dialogues())
def test_octet_by_octet(octets):
    """The smallest pieces of all, too."""
    assert hold(octets, [1]) == hold(octets, WHOLE)


@given(before=dialogues(), after=dialogues(), sizes=SIZES, plain_auth=st.booleans())
def test_under_tls_cuts_make_no_difference_either(before, after, sizes, plain_auth):
    """Two flights with TLS between them, if what came before it allows that; and AUTH only where it may be."""
    assume(b"STARTTLS" not in before + after)
    flights = [before + b"STARTTLS\r\n", after]

    for offer in (TLS, LOCKED):
        assert hold(flights, sizes, offer, plain_auth=plain_auth) == hold(flights, WHOLE, offer, plain_auth=plain_auth)


@given(after=dialogues(), sizes=SIZES)
def test_what_is_sent_behind_starttls_in_clear_is_never_answered(after, sizes):
    """The last word is the 220, or a refusal and the end: however the two were cut (CVE-2011-0411)."""
    heard = hold([b"EHLO c\r\nSTARTTLS\r\n" + after, b"EHLO c\r\nNOOP\r\n"], sizes, TLS)

    assert heard.closed
    assert not heard.messages
    assert heard.said.splitlines()[-1].startswith((b"220 2.0.0", b"501 5.5.2 nothing may follow STARTTLS"))
    assert [verb for verb, _ in heard.replies] == ["EHLO", "STARTTLS"]


@given(octets=dialogues(), sizes=SIZES, memory=st.sampled_from([1, 20, 500, 3000]))
def test_waiting_for_memory_makes_no_difference(octets, sizes, memory):
    """Who is read from again once there is room hears and sends what he would have with all the memory of the world."""
    assert hold(octets, sizes, memory=memory) == hold(octets, WHOLE)


@given(end=SMUGGLED, sizes=SIZES, command=st.sampled_from([b"MAIL FROM:<evil@example.com>", b"QUIT"]))
def test_nothing_that_looks_like_an_end_of_data_is_one(end, sizes, command):
    """CRLF.CRLF and nothing else: what follows any other is content of the same message."""
    content = b"Subject: x\r\n\r\none" + end + command
    envelope = b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    heard = hold(envelope + content + b"\r\n.\r\nNOOP\r\n", sizes)

    assert [verb for verb, _ in heard.replies] == ["EHLO", "MAIL", "RCPT", "DATA", "DOT", "NOOP"]
    assert heard.tolerances.keys() <= {"bare-lf", "lone-cr", "nul", "helo-name"}
    assert command in heard.messages[0][2]


@given(octets=dialogues())
def test_every_message_is_lines_ended_by_crlf_without_an_end_of_data_in_it(octets):
    """Whatever was said, nothing is taken that a later reader could see an end of data in."""
    for _, header, content, longest_line, _ in hold(octets, WHOLE).messages:
        assert content.startswith(header)
        assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
        longest = max(map(len, content.split(b"\r\n")))
        assert longest_line == (longest if longest > MAX_LINE else 0)


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
