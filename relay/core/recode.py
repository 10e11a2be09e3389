"""Re-encodes what could not travel as it is, so that a reader sees the same text; every other octet leaves as it came.

Two things cannot travel: lines over 998 octets (RFC 5322 §2.1.1), which SparkPost refuses, and 8-bit octets where the
next hop does not offer 8BITMIME (RFC 6152 §3). Both are mended entity by entity of the MIME structure (RFC 2045, 2046):

    entity                                  what is done where it offends
    text/*, or no Content-Type              quoted-printable
    any other type                          base64
    already quoted-printable                soft line breaks are added, 8-bit octets encoded
    already base64                          wrapped at 76
    message/rfc822, multipart/*             what is inside; their own 8bit or binary becomes 7bit
    other message/*, other encodings,       lines are folded (CRLF and a space), which a reader may see
      preamble and epilogue                 8-bit octets become "?"
    header lines                            folded at white space, or anywhere if there is none
    8-bit in header lines                   encoded words (RFC 2047), "?" within addresses

Two passes over the same content: the first finds out which entities offend, the second writes. Content is a series of
lines ended by CRLF; only one line, and the header section of one entity, are held at a time.
"""

import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

MAX_LINE: Final = 998  # octets, CRLF not counted
MAX_DEPTH: Final = 100
_MAX_HEADER: Final = 1_000_000
_BASE64_LINE: Final = 57  # octets that make a line of 76

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_BOUNDARY = re.compile(rb"""boundary[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"()<>@,\\]+))""", re.IGNORECASE)
_TYPE = re.compile(rb"[ \t\r\n]*([^\s;/]+/[^\s;]+)")
_IDENTITY: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})
_QP_UNIT = re.compile(rb"=[0-9A-Fa-f]{2}|.", re.DOTALL)
_NO_LINE: Final = b"\r\n"  # in place of an empty line that is not there
_HEADER_WORD = re.compile(rb'[ \t]+|"(?:[^"\\]|\\.)*"|[^ \t]+', re.DOTALL)

Open = Callable[[], Iterable[bytes]]


def must_recode(longest_line: int, *, eight_bit: bool, eight_bit_ok: bool) -> bool:
    """True if content of these measures cannot travel as it is."""
    return longest_line > MAX_LINE or (eight_bit and not eight_bit_ok)


class _Kind(Enum):
    """What the lines behind an entity's header section are."""

    LEAF = auto()
    CONTAINER = auto()
    OPAQUE = auto()


class _Part(Enum):
    """Where a line stands."""

    HEADER = auto()
    EMPTY = auto()  # the empty line that ends a header section
    BODY = auto()
    BETWEEN = auto()  # boundaries


@dataclass(slots=True)
class _Entity:
    """One MIME entity: its header section, and what the first pass found in its body."""

    top: bool
    header: list[bytes] = field(default_factory=list)
    size: int = 0
    kind: _Kind = _Kind.LEAF
    type: bytes = b"text/plain"
    encoding: bytes = b""
    long: bool = False
    eight_bit: bool = False
    utf8: bool = True

    def read_header(self) -> bytes | None:
        """Learn type and encoding from the header section; the boundary if this is a multipart that has one."""
        fields = dict(reversed([_split(one) for one in _unfold(self.header)]))  # the first of its name counts
        declared = _TYPE.match(fields.get(b"content-type", b""))
        self.type = declared[1].lower() if declared else b"text/plain"
        self.encoding = re.sub(rb"\(.*?\)", b"", fields.get(b"content-transfer-encoding", b"")).strip().lower()
        if self.type.startswith(b"multipart/"):
            found = _BOUNDARY.search(fields[b"content-type"])
            self.kind = _Kind.CONTAINER if found else _Kind.OPAQUE
            if found:
                return re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] is not None else found[2]
        elif self.type == b"message/rfc822" and self.encoding in _IDENTITY:
            self.kind = _Kind.CONTAINER
        elif self.type.startswith(b"message/"):
            self.kind = _Kind.OPAQUE
        return None

    def note(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            self.long = True
        if not line.isascii():
            self.eight_bit = True
            if self.utf8:
                try:
                    line.decode()
                except UnicodeDecodeError:
                    self.utf8 = False


def _unfold(lines: Iterable[bytes]) -> list[bytes]:
    fields: list[bytes] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += b"\r\n" + line
        else:
            fields.append(line)
    return fields


def _split(one: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.match(one)
    return (match[1].lower(), match[2]) if match else (b"", one)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of content, without their CRLF."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\r\n")
        yield from lines
    if rest:
        yield rest


def _walk(chunks: Iterable[bytes]) -> Iterator[tuple[_Part, _Entity, bytes]]:
    """Every line with the entity it belongs to and where in it; both passes see the same structure."""
    entity = _Entity(top=True)
    boundaries: list[bytes] = []
    in_header = True
    for line in _lines(chunks):
        depth = _boundary_depth(line, boundaries)
        if depth is not None:
            if in_header:
                yield _Part.EMPTY, entity, _NO_LINE  # a header section cut short: it has no body
            closing = line.rstrip(b" \t") != b"--" + boundaries[depth]
            del boundaries[depth + (not closing) :]
            entity = _Entity(top=False, kind=_Kind.OPAQUE if closing else _Kind.LEAF)
            in_header = not closing
            yield _Part.BETWEEN, entity, line
        elif not in_header:
            yield _Part.BODY, entity, line
        elif line and entity.size <= _MAX_HEADER:
            entity.header.append(line)
            entity.size += len(line)
            yield _Part.HEADER, entity, line
        elif line:
            in_header = False  # whatever this is, it is no header section
            yield _Part.EMPTY, entity, _NO_LINE
            yield _Part.BODY, entity, line
        else:
            boundary = entity.read_header()
            in_header = False
            yield _Part.EMPTY, entity, line
            if entity.kind is _Kind.CONTAINER and boundary is None:
                entity, in_header = _Entity(top=False), True  # message/rfc822: a message within
            elif boundary is not None and len(boundaries) < MAX_DEPTH:
                boundaries.append(boundary)
                entity = _Entity(top=False, kind=_Kind.OPAQUE)  # the preamble
    if in_header:
        entity.read_header()
        yield _Part.EMPTY, entity, _NO_LINE


def _boundary_depth(line: bytes, boundaries: list[bytes]) -> int | None:
    """Which open multipart this line delimits, the innermost first (RFC 2046 §5.1.2)."""
    if not line.startswith(b"--"):
        return None
    text = line[2:].rstrip(b" \t")
    for depth in range(len(boundaries) - 1, -1, -1):
        if text in (boundaries[depth], boundaries[depth] + b"--"):
            return depth
    return None


# -- what becomes of an entity ----------------------------------------------------------------------------------------


class _Encoder:
    """Writes the body of one entity as it is; subclasses change lines. `end` gives what is held back."""

    encoding: bytes | None = None  # the new Content-Transfer-Encoding, where it changes

    def line(self, line: bytes) -> bytes:
        return line + b"\r\n"

    def end(self) -> bytes:
        return b""


class _QuotedPrintable(_Encoder):
    encoding = b"quoted-printable"

    def line(self, line: bytes) -> bytes:
        return binascii.b2a_qp(line, istext=True).replace(b"=\n", b"=\r\n") + b"\r\n"


class _SoftBreaks(_Encoder):
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

    def line(self, line: bytes) -> bytes:
        self._held += b"\r\n" + line if self._begun else line
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


class _Wrapped(_Encoder):
    """Already base64: over-long lines become lines of 76."""

    def line(self, line: bytes) -> bytes:
        if len(line) <= MAX_LINE:
            return line + b"\r\n"
        return b"".join(line[at : at + 76] + b"\r\n" for at in range(0, len(line), 76))


class _Folded(_Encoder):
    """The last resort, where no encoding may be declared."""

    def __init__(self, *, eight_bit_ok: bool) -> None:
        self._eight_bit_ok = eight_bit_ok

    def line(self, line: bytes) -> bytes:
        return fold(line if self._eight_bit_ok else _without_eight_bit(line)) + b"\r\n"


def _encoder(entity: _Entity, *, eight_bit_ok: bool) -> _Encoder:
    """What this entity needs, by what the first pass found."""
    if not must_recode(MAX_LINE + entity.long, eight_bit=entity.eight_bit, eight_bit_ok=eight_bit_ok):
        return _Encoder()
    match entity.kind, entity.encoding:
        case _Kind.LEAF, encoding if encoding in _IDENTITY:
            return _QuotedPrintable() if entity.type.startswith(b"text/") else _Base64()
        case _Kind.LEAF, b"quoted-printable":
            return _SoftBreaks()
        case _Kind.LEAF, b"base64":
            return _Wrapped()
        case _:
            return _Folded(eight_bit_ok=eight_bit_ok)


def fold(line: bytes) -> bytes:
    """A line in pieces of at most 998 octets: broken before white space if there is any, else by CRLF and a space."""
    pieces = []
    while len(line) > MAX_LINE:
        at = max(line.rfind(b" ", 1, MAX_LINE), line.rfind(b"\t", 1, MAX_LINE))
        if at > 0 and line[:at].strip():
            pieces.append(line[:at])
            line = line[at:]
        elif line[: MAX_LINE - 1].strip():
            pieces.append(line[: MAX_LINE - 1])
            line = b" " + line[MAX_LINE - 1 :]
        else:
            line = b" " + line.lstrip()  # a line of white space would read as an empty one, which ends a header section
    return b"\r\n".join([*pieces, line])


# -- header sections --------------------------------------------------------------------------------------------------


def _header(entity: _Entity, facts: _Entity, encoder: _Encoder, *, eight_bit_ok: bool) -> bytes:
    """The header section with its encoding declared anew where it changes, and no line that cannot travel."""
    encoding = encoder.encoding
    if (
        encoding is None
        and facts.kind is _Kind.CONTAINER
        and not eight_bit_ok
        and facts.encoding in {b"8bit", b"binary"}
    ):
        encoding = b"7bit"
    fields = _unfold(entity.header)
    if encoding is not None:
        fields = _declare(fields, facts, encoding)
    lines = [_seven_bit(one) if not (eight_bit_ok or one.isascii()) else one for one in fields]
    return b"".join(fold(line) + b"\r\n" for one in lines for line in one.split(b"\r\n"))


def _declare(fields: list[bytes], facts: _Entity, encoding: bytes) -> list[bytes]:
    line = b"Content-Transfer-Encoding: " + encoding
    names = [_split(one)[0] for one in fields]
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
    result, run = b"", b""
    for token in _HEADER_WORD.findall(value.replace(b"\r\n", b"")):
        if token.isspace():
            run += token if run else b""
            result += b"" if run else token
        elif token.isascii() or b"@" in token:
            words = run.rstrip(b" \t")
            result += _encoded_words(words, charset) + run[len(words) :]
            result += _without_eight_bit(token)
            run = b""
        else:
            run += re.sub(rb"\\(.)", rb"\1", token[1:-1]) if token.startswith(b'"') and token.endswith(b'"') else token
    return name + b":" + result + _encoded_words(run.rstrip(b" \t"), charset)


def _without_eight_bit(octets: bytes) -> bytes:
    return re.sub(rb"[\x80-\xff]", b"?", octets)


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


# -- both passes ------------------------------------------------------------------------------------------------------


def _survey(chunks: Iterable[bytes]) -> list[_Entity]:
    """The entities in their order, with what offends in each."""
    entities: list[_Entity] = []
    for part, entity, line in _walk(chunks):
        if not entities or entities[-1] is not entity:
            entities.append(entity)
        if part is _Part.BODY:
            entity.note(line)
    return entities


def recode(open_chunks: Open, *, eight_bit_ok: bool) -> Iterator[bytes]:
    """The content, able to travel. `open_chunks` gives its octets from the start, each time it is called."""
    facts = iter(_survey(open_chunks()))
    current: _Entity | None = None
    encoder = _Encoder()
    known = _Entity(top=True)
    for part, entity, line in _walk(open_chunks()):
        if entity is not current:
            yield encoder.end()
            current, known = entity, next(facts)
            encoder = _encoder(known, eight_bit_ok=eight_bit_ok)
        match part:
            case _Part.EMPTY:
                yield _header(entity, known, encoder, eight_bit_ok=eight_bit_ok)
                if line is not _NO_LINE:
                    yield b"\r\n"
            case _Part.BODY:
                yield encoder.line(line)
            case _Part.BETWEEN:
                yield line + b"\r\n"
            case _Part.HEADER:
                continue
    yield encoder.end()
