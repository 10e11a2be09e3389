"""The readers, and what must hold of each whatever it is given.

A check raises for a defect. How octets are cut is drawn from the octets themselves, so that an input alone repeats it.
"""

import json
import os
import zlib
from collections.abc import Hashable, Iterator
from dataclasses import replace
from random import Random

from relay.config import SparkPostOptions, listening
from relay.config import addresses as config
from relay.core import headers, smtp_api
from relay.core.envelope import (
    Address,
    Envelope,
    PathError,
    Recipient,
    ReversePath,
    parse_parameters,
    read_path,
    split_path,
)
from relay.core.message import Content, MemoryBody
from relay.core.mime import MAX_LINE
from relay.core.recode import recode
from relay.core.reply import MAX_LINE as LONGEST_REPLY
from relay.core.reply import Reply
from relay.core.tolerance import Tolerance
from relay.ingress.data import DataLimits, DataReader
from relay.ingress.proxy import SIGNATURE, HeaderReader, Proxied, ProxyError
from relay.ingress.unwrapping import LineEnd
from relay.policy.wishes import Wishes, asked_for
from relay.sandbox import msys
from relay.sendmail import message as sendmail
from relay.sendmail.failure import Failure
from relay.upstream.replies import Gibberish, ReplyReader
from relay.upstream.stuffing import stuffed
from relay.upstream.transaction import Features, Move, Transaction
from tests.fuzz import models, seeds
from tests.fuzz.engine import Target
from tests.support.conversing import SETTINGS, hold

WHOLE = [1 << 30]
LIMITS = DataLimits(message_size=5000, line_length=1200)
LOCKED = replace(SETTINGS, starttls=True, auth="required")


def cuts(octets: bytes) -> list[int]:
    """Sizes of pieces: single octets for what is short, else some few of all sizes."""
    random = Random(zlib.crc32(octets))
    if len(octets) < 200 and random.random() < 0.5:
        return [1]
    most = max(2, len(octets) // 8)
    return [1 + int(random.random() ** 3 * most) for _ in range(8)]


def pieces(octets: bytes, sizes: list[int]) -> Iterator[bytes]:
    position = turn = 0
    while position < len(octets):
        size = sizes[turn % len(sizes)]
        yield octets[position : position + size]
        position, turn = position + size, turn + 1


# -- what clients say -------------------------------------------------------------------------------------------------


def commands(octets: bytes) -> Hashable:
    """However it is cut, a dialogue goes the same way; each reply is one short line; content is lines with CRLF."""
    whole = hold(octets, WHOLE)
    assert hold(octets, cuts(octets), memory=300 if len(octets) % 4 == 0 else None) == whole, "cuts make a difference"
    flight = hold([b"EHLO c\r\nSTARTTLS\r\n" + octets, b"NOOP\r\n"], cuts(octets), LOCKED)
    assert len(flight.replies) == 2 + (not octets), "what came behind STARTTLS was answered"
    lines = whole.said.split(b"\r\n")
    assert lines.pop() == b"", "a reply has no end"
    for line in lines:
        assert len(line) <= LONGEST_REPLY - 2, "a reply is too long"
        assert line[:3].isdigit(), "a reply is none"
        assert line.decode("ascii").isprintable(), "a reply is not printable"
    for _, header, content, _, _ in whole.messages:
        assert content.startswith(header), "content has lost its header section"
        assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n"), "content has odd line ends"
    return tuple((verb, answer.code, answer.enhanced) for verb, answer in whole.replies[:12]), len(whole.messages)


def proxy_headers(octets: bytes) -> Hashable:
    """However it comes, a header says the same or is refused, and no octet behind it is touched."""
    outcomes = []
    for most in (1 << 16, 1 + len(octets) % 7, 1):
        reader, position, outcome = HeaderReader(), 0, None
        try:
            while outcome is None and position < len(octets):
                assert reader.wants > 0, "it waits for nothing"
                step = octets[position : position + min(reader.wants, most)]
                position += len(step)
                outcome = reader.feed(step)
            outcomes.append((outcome, position if outcome else 0))
        except ProxyError:
            outcomes.append(("none", 0))
    assert outcomes[0] == outcomes[1] == outcomes[2], "cuts make a difference"
    outcome, position = outcomes[0]
    if not isinstance(outcome, Proxied):
        return outcome
    assert octets.startswith((SIGNATURE, b"PROXY ")), "a header is none"
    return outcome.client and outcome.client[0].version, min(position, 64)


def paths(octets: bytes) -> Hashable:
    """An address is read the same on the short way as on the long one, and reads the same when it is written out."""
    argument = octets.decode("latin-1")
    try:
        path = read_path(argument)
    except PathError as error:
        try:
            Address.parse(split_path(argument).text)
        except PathError as again:
            assert (type(again), str(again)) == (type(error), str(error)), "the two ways disagree"
            return type(error), str(error)[-20:]
        raise AssertionError("the short way fails where the long one does not") from None
    parts = split_path(argument)
    assert path.rest == parts.rest, "the two ways disagree about the parameters"
    if path.address is None:
        assert parts.text == "", "the two ways disagree about the address"
    else:
        written = str(path.address)
        assert path.address == Address.parse(written) == Address.parse(parts.text), "an address changes in writing"
        assert read_path(f"<{written}>").address == path.address, "an address cannot be said again"
        assert written.isascii() and written.isprintable() and len(written) <= 320, "an address is not fit for the wire"
    parameters = parse_parameters(path.rest)
    if isinstance(parameters, Reply):
        assert parameters.wire().endswith(b"\r\n")
        return path.tolerances, parameters.code
    return path.tolerances, path.address is None, tuple(parameters)[:3]


def data(octets: bytes) -> Hashable:
    """Content, its end and its measures are those of the model, in sessions of either kind, however they are cut."""
    kinds = []
    for line_end in LineEnd:
        expected = models.data(octets, line_end.octets, without_nul=True)
        for sizes in (WHOLE, cuts(octets)):
            reader = DataReader(LIMITS, line_end)
            rest = b""
            ended = False
            for piece in pieces(octets, sizes):
                if ended:
                    rest += piece
                elif (behind := reader.feed(piece)) is not None:
                    rest, ended = behind, True
            assert ended == (expected is not None), "the end of data is elsewhere"
            if expected is not None:
                assert rest == expected.rest, "the end of data is elsewhere"
                kinds.append(_same(reader, expected))
            reader.discard()
    return tuple(kinds)


def _same(reader: DataReader, expected: models.Data) -> Hashable:
    too_much = len(expected.content) + expected.nuls > LIMITS.message_size or expected.longest_line > LIMITS.line_length
    kinds = {
        Tolerance.BARE_LF: expected.bare_lf,
        Tolerance.LONE_CR: expected.lone_cr,
        Tolerance.LONG_LINE: expected.longest_line > MAX_LINE,
        Tolerance.NUL: expected.nuls > 0,
        Tolerance.EIGHT_BIT: not expected.content.isascii(),
    }
    assert reader.tolerances == {kind for kind, shown in kinds.items() if shown}, "other things are forgiven"
    assert (reader.refusal is not None) == too_much, "it is refused for nothing, or not"
    if not too_much:
        content = reader.content()
        assert b"".join(content.chunks()) == expected.content, "the content is another"
        assert content.header == expected.header, "the header section ends elsewhere"
        measures = (content.size, content.longest_line, content.eight_bit)
        assert measures == (len(expected.content), expected.longest_line, not expected.content.isascii()), "measures"
    return too_much, expected.bare_lf, expected.lone_cr, min(len(expected.content), 3), bool(expected.rest)


def outbound(octets: bytes) -> Hashable:
    """What leaves is the content that came: no reader of any kind finds an end of data in it, or another line end."""
    lines = b"\r\n".join(octets.splitlines()) + b"\r\n" if octets else b""
    longest = max(map(len, lines.split(b"\r\n")))
    content = Content(b"", MemoryBody(lines), longest, not lines.isascii())
    for eight_bit_ok in (True, False):
        sent = b"".join(stuffed(content, eight_bit_ok=eight_bit_ok)) + b".\r\n"
        read = models.data(sent, b"\r\n")
        assert read is not None
        assert read.rest == b"", "the end of data is in the content"
        assert not (read.bare_lf or read.lone_cr), "odd line ends leave"
        assert read.longest_line <= MAX_LINE, "a line is too long to travel"
        if longest <= MAX_LINE and (eight_bit_ok or lines.isascii()):
            assert read.content == lines, "the content is another"
        else:
            cut = b"".join(recode(lambda: pieces(lines, cuts(lines)), eight_bit_ok=eight_bit_ok))
            assert cut == read.content, "cuts make a difference"
            assert eight_bit_ok or cut.isascii(), "8-bit content leaves where none may"
    return longest > MAX_LINE, lines.isascii(), min(lines.count(b"\r\n."), 3), lines.count(b"--") // 2 % 8


# -- what SparkPost says ----------------------------------------------------------------------------------------------


def replies(octets: bytes) -> Hashable:
    """The replies of the model, however they are cut; what is none ends it."""
    heard = []
    for sizes in (WHOLE, cuts(octets)):
        reader, found, bad = ReplyReader(), [], False
        try:
            for piece in pieces(octets, sizes):
                reader.feed(piece, found.append)
        except Gibberish:
            bad = True
        heard.append((found, bad))
    (found, bad), cut = heard
    expected, expected_bad = models.replies(octets)
    if max(map(len, octets.split(b"\n"))) > 8000 or len(octets) > 64_000:
        return "long", bad
    assert cut[1] == bad == expected_bad, "something is a reply for one and none for the other"
    assert cut[0] == found or bad, "cuts make a difference"
    assert bad or [code for code, _ in expected] == [reply.code for reply in found], "other replies"
    for reply in found:
        assert reply.wire().endswith(b"\r\n")
    return tuple((reply.code, reply.enhanced is None) for reply in found[:6]), bad


ENVELOPE = Envelope(
    ReversePath(Address("a", "example.com")), tuple(Recipient(Address("b", f"{n}.net")) for n in range(3))
)
EMPTY = Content(b"", MemoryBody(b""), 0, eight_bit=False)


def transactions(octets: bytes) -> Hashable:
    """Whatever is replied, a transaction comes to its end, knows of every recipient, and sends content only to 354."""
    flags = octets[:1] or b"\0"
    pipelining, whole = bool(flags[0] & 1), bool(flags[0] & 2)
    recipients = ENVELOPE.recipients[: 1 + flags[0] // 4 % 3]
    features = Features(pipelining=pipelining, eight_bit=True, size=True)
    transaction = Transaction(ENVELOPE, recipients, EMPTY, features, whole=whole)
    codes = [(250, 251, 354, 421, 450, 452, 500, 550, 220)[octet % 9] for octet in octets[1:]] + [421]
    waiting, moves = len(transaction.say()), []
    for code in codes:
        move = transaction.hear(Reply(code, None, ""))
        waiting -= 1
        moves.append(move)
        if move is Move.SPEAK:
            waiting += len(transaction.say())
            assert waiting, "it wants to speak and has nothing to say"
        elif move in (Move.RESET, Move.DECLINE):
            waiting = 1
        elif move is Move.CONTENT:
            assert code == 354, "content goes where none is wanted"
            assert None in transaction.facts, "content goes to nobody"
            transaction.hear_dot(Reply(250, None, ""))
            break
        elif move is not Move.LISTEN:
            break
        assert waiting, "it listens and nothing is to come"
    else:
        raise AssertionError("it has not come to its end")
    assert None not in transaction.facts, "of somebody nothing is known"
    return tuple(moves), transaction.confused


# -- headers ----------------------------------------------------------------------------------------------------------


def header_sections(octets: bytes) -> Hashable:
    """Fields that are taken out are gone, and nothing else is; addresses are addresses."""
    header = b"\r\n".join(octets.replace(b"\r\n\r\n", b"\r\n").splitlines()) + b"\r\n"
    blind = headers.without_blind_copies(header)
    assert not headers.has_field(blind, b"bcc"), "a Bcc is left"
    assert not headers.has_field(blind, b"resent-bcc"), "a Resent-Bcc is left"
    if blind != header:
        assert headers.has_field(header, b"bcc") or headers.has_field(header, b"resent-bcc"), "what is no Bcc is gone"
        kept = iter(header.splitlines(keepends=True))
        assert all(line in kept for line in blind.splitlines(keepends=True)), "other lines have changed"
    plain = headers.without_sparkpost_fields(header)
    assert not headers.has_field(plain, b"x-binding"), "a field for SparkPost is left"
    assert headers.without_sparkpost_fields(plain) == plain, "a field for SparkPost is left"
    found = headers.from_addresses(header)
    values = headers.field_values(header, b"from")
    for address in found or ():
        assert str(address).encode() == b"@".join((address.local.encode(), address.domain.encode()))
        assert Address.parse(str(address)) == address, "an address changes in writing"
    assert found is None or len(values) == 1, "one of several From fields was chosen"
    return found is None, len(found or ()), blind == header, plain == header, min(headers.count_received(header), 2)


ERP = Wishes.compile(SparkPostOptions(campaign_id="erp", tags=("a b", "c"), metadata={"n": 1}, transactional=True))


def wishes(octets: bytes) -> Hashable:
    """An application's X-MSYS-API leaves as one field that SparkPost can read and that asks for what it may, or not."""
    header = b"X-MSYS-API:" + b"\r\n ".join(octets.splitlines() or [b""]) + b"\r\n"
    asked = asked_for(ERP, "erp", header)
    if isinstance(asked, Reply):
        assert asked.code == 550, "another refusal"
        return str(asked)[:40]
    assert max(map(len, asked.split(b"\r\n"))) <= MAX_LINE, "a line is too long to travel"
    [value] = headers.field_values(asked, smtp_api.NAME)
    assert msys.objection(value) is None, "SparkPost would refuse it"
    document = json.loads(msys.unfold(value))
    assert document == smtp_api.read(value), "two readers read two things"
    options = {f"options.{name}" for name in document["options"]}
    assert options | (document.keys() - {"options", *smtp_api.COPIES}) <= ERP.accept, "it asks for what it may not"
    assert not any(document.get(name) for name in smtp_api.COPIES), "it asks for copies"
    return tuple(document), len(document["tags"]), len(options)


def sendmail_messages(octets: bytes) -> Hashable:
    """However stdin comes, the message is the same, its lines are those of the model, and Bcc is gone."""
    outcomes = []
    for sizes in (WHOLE, cuts(octets)):
        header, content = sendmail.assemble(pieces(octets, sizes), dot_ends=False)
        with content:
            outcomes.append((bytes(header), b"".join(content.blocks()), content.size, content.eight_bit))
    assert outcomes[0] == outcomes[1], "cuts make a difference"
    raw, body, size, _ = outcomes[0]
    read = models.data(body + b".\r\n", b"\r\n")
    assert read is not None
    assert read.rest == b"", "the end of data is in the content"
    assert len(read.content) == size, "the size is another"
    lines = models.unix_lines(octets)
    assert (raw + read.content.replace(b"\r\n", b"\n")).replace(b"\n", b"") in _without_odd_lines(lines), "lost octets"
    try:
        recipients = header.recipients()
    except Failure as failure:
        assert failure.status == os.EX_DATAERR, "another status"
        return "unreadable", len(raw) > 0
    for address in recipients:
        assert address.isascii() and address.isprintable(), "an address is not fit for the wire"
    header.remove_blind_copies()
    assert not headers.has_field(bytes(header).replace(b"\n", b"\r\n"), b"bcc"), "a Bcc is left"
    header.complete(author="a@example.com", full_name=octets[:20].decode("latin-1"), domain="example.com")
    assert bytes(header).endswith(b"\n"), "the last field has no end"
    return min(len(recipients), 4), raw == b"", body == b""


def _without_odd_lines(lines: bytes) -> list[bytes]:
    """The message without line ends; and without the lines of a mailbox file before it."""
    lines = lines if lines.endswith(b"\n") else lines + b"\n"
    versions = [lines]
    while lines.startswith((b"From ", b">From ")) and b"\n" in lines:
        lines = lines.partition(b"\n")[2]
        versions.append(lines)
    return [version.replace(b"\n", b"") for version in versions]


def settings(octets: bytes) -> Hashable:
    """A value is understood, and then its own spelling is too, or it is refused with a reason."""
    text = octets.decode("latin-1")
    kinds = []
    for parse in (
        listening.parse_listener_address,
        config.parse_network,
        config.parse_domain,
        config.parse_host,
        config.parse_api_url,
        config.parse_ehlo_name,
        config.parse_mail_pattern,
        config.parse_mail_address,
        config.parse_login_pattern,
    ):
        try:
            value = parse(text)
        except ValueError as error:
            assert str(error), "no reason"
            kinds.append(str(error)[-25:])
        else:
            assert parse(str(value)) == value, "its own spelling means something else"
            kinds.append("")
    return tuple(kinds)


TARGETS = [
    Target("commands", commands, seeds.dialogues(), [*seeds.COMMANDS, *seeds.LINE_ENDS], share=16, longest=8192),
    Target(
        "paths",
        paths,
        [b"<a@example.com> SIZE=1", b' "a b"@[1.2.3.4]', b"<@x,@y:b@c.d>", b"a@b"],
        seeds.PATHS,
        share=25,
    ),
    Target("data", data, [octets + b".\r\n" for octets in seeds.messages()], seeds.LINE_ENDS, share=18, longest=8192),
    Target("replies", replies, [b"250-a\r\n250 2.1.0 b\r\n", b"354\r\n"], seeds.REPLIES, share=14),
    Target(
        "transactions",
        transactions,
        [b"\0" * 6, b"\3\0\0\0\2"],
        [b"\0", b"\2", b"\3", b"\4", b"\7"],
        share=7,
        longest=40,
    ),
    Target("headers", header_sections, seeds.messages(), [*seeds.FIELDS, *seeds.PATHS], share=7),
    Target("wishes", wishes, seeds.WISHES, seeds.JSON, share=5),
    Target("sendmail", sendmail_messages, seeds.messages(), [*seeds.FIELDS, *seeds.PATHS, *seeds.LINE_ENDS], share=6),
    Target(
        "outbound",
        outbound,
        seeds.messages(),
        [*seeds.LINE_ENDS, b"\xe4", b"x" * 999, b"boundary=", b"--b"],
        share=3,
        longest=2500,
    ),
    Target("proxy", proxy_headers, seeds.PROXIED, seeds.PROXY, share=4, longest=600),
    Target("settings", settings, [b"localhost:2525", b"*@example.com"], seeds.SETTINGS, share=4),
]
