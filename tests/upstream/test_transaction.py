"""A transaction as a table: what is said, what is heard, what comes of it. No sockets, no loop."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.envelope import Address, Envelope, Recipient, ReversePath
from relay.core.message import Content, MemoryBody
from relay.core.outcome import Ambiguous, Answer, Failure, FailureKind, classify
from relay.core.reply import Reply
from relay.upstream.transaction import Features, Move, Transaction

ENVELOPE = Envelope(ReversePath(Address("a", "example.com")))
CONTENT = Content(b"Subject: x\r\n", MemoryBody(b"\r\nhello\r\n"), 10, eight_bit=False)
NAMES = "bcd"


def transaction(recipients: int = 1, *, whole: bool = False, pipelining: bool = True, **features: bool) -> Transaction:
    to = [Recipient(Address(name, "example.net")) for name in NAMES[:recipients]]
    offered = Features(pipelining, features.get("eight_bit", False), features.get("size", False))
    return Transaction(ENVELOPE, to, CONTENT, offered, whole=whole)


def reply(code: int) -> Reply:
    return Reply.parse(code, [f"{code // 100}.0.0 said" if code // 100 in (2, 4, 5) else "said"])


def dialogue(one: Transaction, *codes: int) -> list[Move]:
    """Begin, and hear replies of these codes, with another flight wherever it wants to speak; its moves."""
    one.say()
    moves = []
    for code in codes:
        moves.append(one.hear(reply(code)))
        if moves[-1] is Move.SPEAK:
            one.say()
    return moves


def told(one: Transaction) -> list[str]:
    """Each fact in short: the code, or the kind of failure, and the phase."""
    return [
        f"{fact.reply.code if isinstance(fact, Answer) else fact.kind.value} {fact.phase.value}" if fact else "nothing"
        for fact in one.facts
    ]


@pytest.mark.parametrize(
    ("options", "flights"),
    [
        ({}, [["MAIL", "RCPT b", "DATA"]]),
        ({"recipients": 2}, [["MAIL", "RCPT b", "RCPT c", "DATA"]]),
        ({"recipients": 1, "whole": True}, [["MAIL", "RCPT b", "DATA"]]),
        ({"recipients": 2, "whole": True}, [["MAIL", "RCPT b", "RCPT c"], ["DATA"]]),
        ({"recipients": 2, "pipelining": False}, [["MAIL"], ["RCPT b"], ["RCPT c"], ["DATA"]]),
    ],
)
def test_the_flights(options, flights):
    """What leaves together, as long as everything is accepted."""
    one = transaction(**options)
    said = []
    move = Move.SPEAK
    while move is Move.SPEAK:
        commands = one.say()
        said.append([line.split(":<")[0].split(" ")[0] + _who(line) for line in commands])
        for line in commands:
            move = one.hear(reply(354 if line == "DATA" else 250))

    assert said == flights
    assert move is Move.CONTENT
    assert one.hear_dot(reply(250)) is Move.DONE
    assert set(told(one)) == {"250 dot"}


def _who(line: str) -> str:
    return f" {line[9]}" if line.startswith("RCPT") else ""


L, S, C, DECLINE, RESET, DONE, ABORT = (
    Move.LISTEN, Move.SPEAK, Move.CONTENT, Move.DECLINE, Move.RESET, Move.DONE, Move.ABORT
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "codes", "moves", "facts"),
    [
        # one recipient, one flight
        ({}, [250, 250, 354], [L, L, C], ["nothing"]),
        ({}, [250, 251, 354], [L, L, C], ["nothing"]),
        ({}, [550, 503, 503, 250], [L, L, RESET, DONE], ["550 mail"]),
        ({}, [451, 503, 503, 250], [L, L, RESET, DONE], ["451 mail"]),
        ({}, [550, 250, 503, 250], [L, L, RESET, DONE], ["550 mail"]),
        ({}, [550, 503, 354], [L, L, ABORT], ["550 mail"]),
        ({}, [550, 250, 354], [L, L, ABORT], ["550 mail"]),
        ({}, [250, 550, 503, 250], [L, L, RESET, DONE], ["550 rcpt"]),
        ({}, [250, 550, 354, 554], [L, L, DECLINE, DONE], ["550 rcpt"]),
        ({}, [250, 452, 354, 451], [L, L, DECLINE, DONE], ["452 rcpt"]),
        ({}, [250, 550, 354, 250], [L, L, DECLINE, ABORT], ["550 rcpt"]),
        ({}, [250, 550, 354, 421], [L, L, DECLINE, ABORT], ["550 rcpt"]),
        ({}, [250, 550, 503, 500], [L, L, RESET, ABORT], ["550 rcpt"]),
        ({}, [250, 250, 451, 250], [L, L, RESET, DONE], ["451 data"]),
        ({}, [250, 250, 554, 421], [L, L, RESET, ABORT], ["554 data"]),
        # 421 ends it anywhere
        ({}, [421], [ABORT], ["421 mail"]),
        ({}, [250, 421], [L, ABORT], ["421 rcpt"]),
        ({}, [250, 250, 421], [L, L, ABORT], ["421 data"]),
        ({}, [550, 421], [L, ABORT], ["550 mail"]),
        # so does a class that the command does not admit
        ({}, [251], [ABORT], ["protocol mail"]),
        ({}, [354], [ABORT], ["protocol mail"]),
        ({}, [250, 252], [L, ABORT], ["protocol rcpt"]),
        ({}, [250, 354], [L, ABORT], ["protocol rcpt"]),
        ({}, [250, 250, 250], [L, L, ABORT], ["protocol data"]),
        ({}, [550, 354], [L, ABORT], ["550 mail"]),
        # each for himself
        ({"recipients": 3}, [250, 250, 550, 452, 354], [L, L, L, L, C], ["nothing", "550 rcpt", "452 rcpt"]),
        ({"recipients": 2}, [250, 550, 450, 354, 554], [L, L, L, DECLINE, DONE], ["550 rcpt", "450 rcpt"]),
        ({"recipients": 2}, [250, 550, 250, 451, 250], [L, L, L, RESET, DONE], ["550 rcpt", "451 data"]),
        ({"recipients": 2}, [250, 550, 421], [L, L, ABORT], ["550 rcpt", "421 rcpt"]),
        ({"recipients": 2}, [250, 550, 250, 250], [L, L, L, ABORT], ["550 rcpt", "protocol data"]),
        # all or none
        ({"recipients": 2, "whole": True}, [250, 250, 250, 354], [L, L, S, C], ["nothing", "nothing"]),
        ({"recipients": 2, "whole": True}, [250, 250, 550, 250], [L, L, RESET, DONE], ["withheld rcpt", "550 rcpt"]),
        ({"recipients": 2, "whole": True}, [250, 250, 250, 451, 250], [L, L, S, RESET, DONE], ["451 data"] * 2),
        ({"recipients": 2, "whole": True}, [550, 503, 503, 250], [L, L, RESET, DONE], ["550 mail"] * 2),
        # one command at a time
        ({"pipelining": False}, [550, 250], [RESET, DONE], ["550 mail"]),
        ({"pipelining": False}, [250, 550, 250], [S, RESET, DONE], ["550 rcpt"]),
        ({"pipelining": False, "recipients": 2}, [250, 550, 250, 354], [S, S, S, C], ["550 rcpt", "nothing"]),
    ],
)
def test_what_comes_of_replies(options, codes, moves, facts):
    """Every rule of the design for flights, row by row."""
    one = transaction(**options)

    assert dialogue(one, *codes) == moves
    assert told(one) == facts
    last = (moves[-1], codes[-1])
    assert one.confused is (last[0] is ABORT and last[1] < 400)


@pytest.mark.parametrize(
    ("code", "move", "confused"),
    [
        (250, DONE, False),
        (451, DONE, False),
        (550, DONE, False),
        (421, ABORT, False),
        (251, ABORT, True),
        (354, ABORT, True),
        (220, ABORT, True),
    ],
)
def test_the_reply_to_the_dot(code, move, confused):
    """It is for those of whom nothing is known yet; a class that a dot does not admit leaves them in doubt."""
    one = transaction(2)
    dialogue(one, 250, 550, 250, 354)

    assert one.hear_dot(reply(code)) is move
    assert told(one) == ["550 rcpt", f"{code} dot"]
    assert one.confused is confused
    assert isinstance(classify(one.facts[1]), Ambiguous) is confused


@pytest.mark.parametrize("heard", range(4))
def test_who_has_been_given_up_on_is_never_sent_an_empty_message(heard):
    """It was ended from outside with its commands already said: the 354 that comes is not declined by a dot, as its
    recipients were accepted.
    """
    one = transaction(2)
    one.say()
    moves = [one.hear(reply(code)) for code in (250, 250, 250)[:heard]]
    one.conclude(Failure(one.phase, FailureKind.LOST, "another message on the connection takes long"))
    moves += [one.hear(reply(code)) for code in (250, 250, 250, 354)[heard:]]

    assert moves == [L, L, L, ABORT]


def test_size_and_body_are_said_where_they_are_offered():
    """8-bit content is declared, and what it weighs."""
    content = Content(b"Subject: x\r\n", MemoryBody(b"\r\n\xe9\r\n"), 10, eight_bit=True)
    to = [Recipient(Address("b", "example.net"))]
    offered = Transaction(ENVELOPE, to, content, Features(True, True, True), whole=False)
    bare = Transaction(ENVELOPE, to, content, Features(True, False, False), whole=False)

    assert offered.say()[0] == "MAIL FROM:<a@example.com> BODY=8BITMIME SIZE=17"
    assert bare.say()[0] == "MAIL FROM:<a@example.com>"


CODES = [220, 250, 251, 354, 421, 451, 452, 503, 550]


@settings(max_examples=400)
@given(
    recipients=st.integers(1, 3),
    whole=st.booleans(),
    pipelining=st.booleans(),
    codes=st.lists(st.sampled_from(CODES), min_size=14, max_size=14),
)
def test_whatever_is_said_it_ends_and_everybody_has_a_fact(recipients, whole, pipelining, codes):
    """Content leaves only for somebody who was accepted behind an accepted MAIL and a 354; a lone dot only where all
    were refused; with all or none, for all or nobody.
    """
    one = transaction(recipients, whole=whole, pipelining=pipelining)
    said = one.say()
    heard: list[tuple[str, int]] = []
    waiting = list(said)
    for code in itertools.chain(codes):
        heard.append((waiting.pop(0)[:4], code))
        move = one.hear(reply(code))
        if move is Move.SPEAK:
            waiting += one.say()
        elif move in (Move.DECLINE, Move.RESET):
            heard.append(("end", 0))
            waiting.append("left")
        elif move in (Move.CONTENT, Move.DONE, Move.ABORT):
            break
    accepted = [code in (250, 251) for verb, code in heard if verb == "RCPT"]
    if move is Move.CONTENT:
        assert ("MAIL", 250) in heard
        assert ("DATA", 354) in heard
        assert [fact is None for fact in one.facts] == accepted
        assert any(accepted)
        assert all(accepted) or not whole
        move = one.hear_dot(reply(250))
    elif ("DATA", 354) in heard and ("end", 0) in heard:
        assert ("MAIL", 250) in heard
        assert not any(accepted)

    assert move in (Move.DONE, Move.ABORT)
    assert None not in one.facts
