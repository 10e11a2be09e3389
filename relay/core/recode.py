"""Re-encodes what could not travel as it is, so that a reader sees the same text; every other octet leaves as it came.

Two things cannot travel: lines over 998 octets (RFC 5322 §2.1.1), which SparkPost refuses, and 8-bit octets where the
next hop does not offer 8BITMIME (RFC 6152 §3). Both are mended entity by entity of the MIME structure (RFC 2045, 2046):

    entity                                  what is done where it offends
    text/*, or no Content-Type              quoted-printable
    any other type                          base64
    already quoted-printable                soft line breaks are added, 8-bit octets encoded
    already base64                          wrapped at 76, 8-bit octets dropped
    message/rfc822, multipart/*             what is inside; their own 8bit or binary becomes 7bit
    other message/*, other encodings,       lines are folded (CRLF and a space), which a reader may see
      preamble and epilogue                 8-bit octets become "?"
    header lines                            folded at white space, else behind a comma, else anywhere
    8-bit in header lines                   encoded words (RFC 2047); in parameters as RFC 2231 has it; "?" in addresses
    8-bit in boundaries                     "?", where they are declared and where they stand: they are no text

Two passes over the same content: the first finds out which entities offend, the second writes. Content is a series of
lines ended by CRLF; only one piece of it, and the header section of one entity, are held at a time.
"""

import binascii
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from relay.core.mime import IDENTITY, MAX_LINE, NO_LINE, Entity, Kind, Part, has_long_line, split_field, unfold, walk

_TURN: Final = 64 * 1024  # octets
_BASE64_LINE: Final = 57  # octets that make a line of 76

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_QP_UNIT = re.compile(rb"=[0-9A-Fa-f]{2}|.", re.DOTALL)
_WORD = re.compile(rb"[ \t]+|[^ \t]+")
# A backslash takes the next octet along outside of quotes too: so only one quote can be looked for in vain.
_WORD_OF_MAILBOXES = re.compile(rb'[ \t]+|"(?:[^"\\]|\\.)*+"|<[^<>]*>|[,:;]|(?:[^ \t",:;<\\]|\\.)++|.', re.DOTALL)
_MAILBOXES = re.compile(
    rb"(?:Resent-)?(?:From|Sender|To|Cc|Bcc|Reply-To)|Return-(?:Path|Receipt-To)|Errors-To|Disposition-Notification-To",
    re.IGNORECASE,
)
_WITH_PARAMETERS = re.compile(rb"Content-(?:Type|Disposition)", re.IGNORECASE)
_PARAMETER = re.compile(rb""";([ \t]*)([^\s=;"*]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]+)""", re.DOTALL)
_NOT_EXTENDED = re.compile(rb"[^A-Za-z0-9._-]")  # narrower than RFC 2231 §7, and taken by all

Open = Callable[[], Iterable[bytes]]


def must_recode(longest_line: int, *, eight_bit: bool, eight_bit_ok: bool) -> bool:
    """True if content of these measures cannot travel as it is."""
    return longest_line > MAX_LINE or (eight_bit and not eight_bit_ok)


def recode(open_chunks: Open, *, eight_bit_ok: bool) -> Iterator[bytes]:
    """The content, able to travel. `open_chunks` gives its octets from the start, each time it is called.

    The first pass takes its time before anything leaves: an empty piece now and then says that others may have a turn.
    """
    facts: list[Entity] = []
    looked_at = 0
    for part, entity, octets in walk(open_chunks()):
        if not facts or facts[-1] is not entity:
            facts.append(entity)
        if part is Part.BODY:
            entity.note(octets)
            looked_at += len(octets)
            if looked_at >= _TURN:
                looked_at = 0
                yield b""
    yield from filter(None, _rewritten(open_chunks(), iter(facts), eight_bit_ok=eight_bit_ok))


def _rewritten(chunks: Iterable[bytes], facts: Iterator[Entity], *, eight_bit_ok: bool) -> Iterator[bytes]:
    """The second pass: `facts` are the entities in their order, with what the first has found in them."""
    current: Entity | None = None
    encoder = _Encoder()
    known = Entity(top=True)
    for part, entity, octets in walk(chunks):
        if entity is not current:
            yield encoder.end()
            current, known = entity, next(facts)
            encoder = _encoder(known, eight_bit_ok=eight_bit_ok)
        match part:
            case Part.EMPTY:
                yield _header(entity, known, encoder, eight_bit_ok=eight_bit_ok)
                if octets is not NO_LINE:
                    yield b"\r\n"
            case Part.BODY:
                yield encoder.lines(octets)
            case Part.BETWEEN:
                yield (octets if eight_bit_ok else _without_eight_bit(octets)) + b"\r\n"
            case Part.HEADER:
                continue
    yield encoder.end()


# -- what becomes of an entity ----------------------------------------------------------------------------------------


class _Encoder:
    """Writes the body of one entity as it is; subclasses change lines. `end` gives what is held back."""

    encoding: bytes | None = None  # the new Content-Transfer-Encoding, where it changes

    def lines(self, octets: bytes) -> bytes:
        """Whole lines, each with its CRLF."""
        return octets

    def end(self) -> bytes:
        return b""


class _ByLine(_Encoder, ABC):
    """Changes only lines that offend."""

    def __init__(self, *, eight_bit_ok: bool = False) -> None:
        self._eight_bit_ok = eight_bit_ok

    def lines(self, octets: bytes) -> bytes:
        if (self._eight_bit_ok or octets.isascii()) and not has_long_line(octets):
            return octets
        return b"".join(map(self.line, octets[:-2].split(b"\r\n")))

    @abstractmethod
    def line(self, line: bytes) -> bytes:
        """A line that may offend, without its CRLF; what stands in its place, with it."""


class _QuotedPrintable(_Encoder):
    encoding = b"quoted-printable"

    def lines(self, octets: bytes) -> bytes:
        return b"".join(map(self._line, octets[:-2].split(b"\r\n")))

    @staticmethod
    def _line(line: bytes) -> bytes:
        return binascii.b2a_qp(line, istext=True).replace(b"=\n", b"=\r\n") + b"\r\n"


class _SoftBreaks(_ByLine):
    """Already quoted-printable: only what offends is touched."""

    def line(self, line: bytes) -> bytes:
        if len(line) <= MAX_LINE and line.isascii():
            return line + b"\r\n"
        rows = [b""]
        for unit in _QP_UNIT.findall(line):
            if not unit.isascii():
                unit = b"=%02X" % unit[0]
            if len(rows[-1]) + len(unit) > 75:
                rows.append(b"")
            rows[-1] += unit
        return b"=\r\n".join(rows) + b"\r\n"


class _Base64(_Encoder):
    """The lines with their CRLF between them; the last one belongs to the boundary (RFC 2046 §5.1.1)."""

    encoding = b"base64"

    def __init__(self) -> None:
        self._held = bytearray()
        self._begun = False

    def lines(self, octets: bytes) -> bytes:
        self._held += b"\r\n" + octets[:-2] if self._begun else octets[:-2]
        self._begun = True
        whole = len(self._held) // _BASE64_LINE * _BASE64_LINE
        rows, self._held = self._held[:whole], self._held[whole:]
        return self._rows(rows)

    def end(self) -> bytes:
        return self._rows(self._held)

    @staticmethod
    def _rows(octets: bytearray) -> bytes:
        steps = range(0, len(octets), _BASE64_LINE)
        return b"".join(binascii.b2a_base64(octets[at : at + _BASE64_LINE], newline=False) + b"\r\n" for at in steps)


class _Wrapped(_ByLine):
    """Already base64: over-long lines become lines of 76. Octets outside ASCII mean nothing in it (RFC 2045 §6.8)."""

    def line(self, line: bytes) -> bytes:
        if not line.isascii():
            line = _NOT_ASCII.sub(b"", line)
        if len(line) <= MAX_LINE:
            return line + b"\r\n"
        return b"".join(line[at : at + 76] + b"\r\n" for at in range(0, len(line), 76))


class _Folded(_ByLine):
    """The last resort, where no encoding may be declared."""

    def line(self, line: bytes) -> bytes:
        return fold(line if self._eight_bit_ok else _without_eight_bit(line)) + b"\r\n"


def _encoder(entity: Entity, *, eight_bit_ok: bool) -> _Encoder:
    """What this entity needs, by what the first pass found."""
    if not must_recode(MAX_LINE + entity.long, eight_bit=entity.eight_bit, eight_bit_ok=eight_bit_ok):
        return _Encoder()
    match entity.kind, entity.encoding:
        case Kind.LEAF, encoding if encoding in IDENTITY:
            return _QuotedPrintable() if entity.type.startswith(b"text/") else _Base64()
        case Kind.LEAF, b"quoted-printable":
            return _SoftBreaks()
        case Kind.LEAF, b"base64":
            return _Wrapped()
        case _:
            return _Folded(eight_bit_ok=eight_bit_ok)


def fold(line: bytes) -> bytes:
    """A line in pieces of at most 998 octets: broken before white space if there is any, else by CRLF and a space.

    Those come behind a comma if there is one: in a list of addresses that has no space anywhere else is within one.
    """
    pieces = []
    while len(line) > MAX_LINE:
        at = max(line.rfind(b" ", 1, MAX_LINE), line.rfind(b"\t", 1, MAX_LINE))
        if at > 0 and line[:at].strip():
            pieces.append(line[:at])
            line = line[at:]
        elif line[: MAX_LINE - 1].strip():
            end = line.rfind(b",", 1, MAX_LINE - 1) + 1 or MAX_LINE - 1
            pieces.append(line[:end])
            line = b" " + line[end:]
        else:
            line = b" " + line.lstrip()  # a line of white space would read as an empty one, which ends a header section
    return b"\r\n".join([*pieces, line] if line.strip() else pieces or [line])


# -- header sections --------------------------------------------------------------------------------------------------


def _header(entity: Entity, facts: Entity, encoder: _Encoder, *, eight_bit_ok: bool) -> bytes:
    """The header section with its encoding declared anew where it changes, and no line that cannot travel."""
    encoding = encoder.encoding
    if (
        encoding is None
        and facts.kind is Kind.CONTAINER
        and not eight_bit_ok
        and facts.encoding in {b"8bit", b"binary"}
    ):
        encoding = b"7bit"
    fields = unfold(entity.header)
    if encoding is not None:
        fields = _declare(fields, facts, encoding)
    lines = [_seven_bit(one) if not (eight_bit_ok or one.isascii()) else one for one in fields]
    return b"".join(fold(line) + b"\r\n" for one in lines for line in one.split(b"\r\n"))


def _declare(fields: list[bytes], facts: Entity, encoding: bytes) -> list[bytes]:
    line = b"Content-Transfer-Encoding: " + encoding
    names = [split_field(one)[0] for one in fields]
    added = []
    if b"content-transfer-encoding" not in names:
        added.append(line)
    if facts.top and b"mime-version" not in names:
        added.append(b"MIME-Version: 1.0")
    if facts.top and b"content-type" not in names:
        eight_bit = b"utf-8" if facts.utf8 else b"unknown-8bit"  # RFC 1428
        charset = eight_bit if facts.eight_bit else b"us-ascii"
        added.append(b"Content-Type: text/plain; charset=" + charset)
    return [
        *(line if name == b"content-transfer-encoding" else one for name, one in zip(names, fields, strict=True)),
        *added,
    ]


def _seven_bit(one: bytes) -> bytes:
    """A field in ASCII: words with 8-bit octets become encoded words, together with the white space between them."""
    name, colon, value = one.partition(b":")
    if not colon or not name.isascii():
        return _without_eight_bit(one)
    charset = "utf-8"
    try:
        value.decode()
    except UnicodeDecodeError:
        charset = "unknown-8bit"
    value = value.replace(b"\r\n", b"")
    kind = name.rstrip(b" \t")
    if _WITH_PARAMETERS.fullmatch(kind):
        value = _without_eight_bit(_PARAMETER.sub(lambda found: _extended(found, charset), value))
    else:
        value = _in_words(value, charset, mailboxes=_MAILBOXES.fullmatch(kind) is not None)
    return name + b":" + value


def _in_words(value: bytes, charset: str, *, mailboxes: bool) -> bytes:
    """Text, or a list of mailboxes: quotes stand for themselves in the one, and hold names together in the other."""
    result, run = bytearray(), bytearray()
    for token in (_WORD_OF_MAILBOXES if mailboxes else _WORD).findall(value):
        if token.isspace():
            (run or result).extend(token)
        elif token.isascii() or (mailboxes and b"@" in token):
            if run and not run.endswith((b" ", b"\t")):
                run += b" "  # an encoded word stands alone (RFC 2047 §5)
            _flush(run, result, charset)
            result += _without_eight_bit(token)
        else:
            quoted = mailboxes and token.startswith(b'"') and token.endswith(b'"')
            run += re.sub(rb"\\(.)", rb"\1", token[1:-1]) if quoted else token
    _flush(run.rstrip(b" \t"), result, charset)
    return bytes(result)


def _flush(run: bytearray, result: bytearray, charset: str) -> None:
    """What has come together for encoded words is written."""
    words = bytes(run.rstrip(b" \t"))
    if words and result and not result.endswith((b" ", b"\t")):
        result += b" "
    result += _encoded_words(words, charset) + run[len(words) :]
    run.clear()


def _extended(found: re.Match[bytes], charset: str) -> bytes:
    """A parameter with 8-bit octets in its value, in the form that RFC 2231 has for them; any other as it is.

    A boundary is compared octet by octet, and readers look for it as it stands.
    """
    space, name, value = found.groups()
    if value.isascii():
        return found[0]
    if name.lower() == b"boundary":
        value = _without_eight_bit(value)
        return b";%s%s=%s" % (space, name, value if value.startswith(b'"') else b'"%s"' % value.strip())
    value = re.sub(rb"\\(.)", rb"\1", value[1:-1]) if value.startswith(b'"') else value.strip()
    octets = _NOT_EXTENDED.sub(lambda one: b"%%%02X" % one[0][0], value)
    return b";%s%s*=%s''%s" % (space, _without_eight_bit(name), charset.encode(), octets)


def _without_eight_bit(octets: bytes) -> bytes:
    return _NOT_ASCII.sub(b"?", octets)


def _encoded_words(text: bytes, charset: str) -> bytes:
    """RFC 2047 encoded words of at most 75 octets, folded; characters stay whole."""
    if not text:
        return b""
    pieces = [b""]
    units = [one.encode() for one in text.decode()] if charset == "utf-8" else [bytes([octet]) for octet in text]
    for unit in units:
        if len(pieces[-1]) + len(unit) > 39:
            pieces.append(b"")
        pieces[-1] += unit
    words = (b"=?%s?b?%s?=" % (charset.encode(), binascii.b2a_base64(piece, newline=False)) for piece in pieces)
    return b"\r\n ".join(words)
