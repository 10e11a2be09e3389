"""The MIME structure of content as a series of lines (RFC 2045, RFC 2046), read and never built.

`walk` says of every line which entity it belongs to and where in it. Structures that are broken are read as a tolerant
reader would: no line is ever lost.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

MAX_LINE: Final = 998  # octets, CRLF not counted; RFC 5322 §2.1.1
MAX_DEPTH: Final = 100
_REACH: Final = MAX_LINE + 2
_MAX_HEADER: Final = 1_000_000

IDENTITY: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})  # encodings that encode nothing
NO_LINE: Final = b"\r\n"  # in place of an empty line that is not there

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_PARAMETER = re.compile(rb"""[;\s]([^\s=;"()]+)\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s;"()]+))""", re.DOTALL)
_COMMENT = re.compile(rb"\([^()]*\)")  # in time that grows with the text: of a bracket, no further than the next one
_TYPE = re.compile(rb"[ \t\r\n]*([^\s;/]+/[^\s;]+)")


class Kind(Enum):
    """What the lines behind an entity's header section are."""

    LEAF = auto()
    CONTAINER = auto()
    OPAQUE = auto()


class Part(Enum):
    """Where a line stands."""

    HEADER = auto()
    EMPTY = auto()  # the empty line that ends a header section
    BODY = auto()
    BETWEEN = auto()  # boundaries


@dataclass(slots=True)
class Entity:
    """One MIME entity: its header section, and what the first pass found in its body."""

    top: bool
    header: list[bytes] = field(default_factory=list)
    size: int = 0
    kind: Kind = Kind.LEAF
    type: bytes = b"text/plain"  # where the header section does not say
    encoding: bytes = b""
    long: bool = False
    eight_bit: bool = False
    utf8: bool = True

    def read_header(self) -> bytes | None:
        """Learn type and encoding from the header section; the boundary if this is a multipart that has one."""
        fields = dict(reversed([split_field(one) for one in unfold(self.header)]))  # the first of its name counts
        declared = _TYPE.match(fields.get(b"content-type", b""))
        if b"content-type" in fields:
            self.type = declared[1].lower() if declared else b"text/plain"
        self.encoding = _COMMENT.sub(b"", fields.get(b"content-transfer-encoding", b"")).strip().lower()
        if self.type.startswith(b"multipart/"):
            boundary = _boundary(fields[b"content-type"])
            self.kind = Kind.OPAQUE if boundary is None else Kind.CONTAINER
            return boundary
        if self.type == b"message/rfc822" and self.encoding in IDENTITY:
            self.kind = Kind.CONTAINER
        elif self.type.startswith(b"message/"):
            self.kind = Kind.OPAQUE
        return None

    def note(self, lines: bytes) -> None:
        self.long = self.long or has_long_line(lines)
        if not lines.isascii():
            self.eight_bit = True
            if self.utf8:
                try:
                    lines.decode()
                except UnicodeDecodeError:
                    self.utf8 = False


def _boundary(content_type: bytes) -> bytes | None:
    """The boundary that a Content-Type names. No line ends with white space that counts (RFC 2046 §5.1.1)."""
    for name, quoted, plain in _PARAMETER.findall(content_type):
        if name.lower() == b"boundary":
            return re.sub(rb"\\(.)", rb"\1", quoted).rstrip() or plain or None
    return None


def unfold(lines: Iterable[bytes]) -> list[bytes]:
    fields: list[list[bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line)
        else:
            fields.append([line])
    return [b"\r\n".join(one) for one in fields]


def split_field(one: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.match(one)
    return (match[1].lower(), match[2]) if match else (b"", one)


def has_long_line(lines: bytes) -> bool:
    """Is one of these lines, each with its CRLF, over MAX_LINE?"""
    start, last = 0, len(lines) - _REACH
    while start < last:
        end = lines.rfind(b"\n", start, start + _REACH)
        if end < 0:
            return True
        start = end + 1
    return False


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The octets of content in pieces that end with CRLF, the last one too."""
    rest = b""
    for chunk in chunks:
        octets = rest + chunk
        end = octets.rfind(b"\r\n") + 2
        if end == 1:
            rest = octets
            continue
        yield octets[:end]
        rest = octets[end:]
    if rest:
        yield rest + b"\r\n"


def walk(chunks: Iterable[bytes]) -> Iterator[tuple[Part, Entity, bytes]]:
    """All lines with the entity they belong to and where in it; both passes see the same structure.

    Lines of a body come as they are, many at a time, each with its CRLF; all others come one by one and without it.
    """
    entity = Entity(top=True)
    boundaries: list[bytes] = []
    usual: list[bytes] = []  # the type of what stands between them, where it does not say
    in_header = True
    for octets in _whole_lines(chunks):
        start = 0
        while start < len(octets):
            end = octets.index(b"\r\n", start)
            line = octets[start:end]
            depth = _boundary_depth(line, boundaries)
            if depth is not None:
                if in_header:
                    yield Part.EMPTY, entity, NO_LINE  # a header section cut short: it has no body
                closing = line.rstrip(b" \t") != b"--" + boundaries[depth]
                entity = Entity(top=False, kind=Kind.OPAQUE if closing else Kind.LEAF, type=usual[depth])
                del boundaries[depth + (not closing) :], usual[depth + (not closing) :]
                in_header = not closing
                yield Part.BETWEEN, entity, line
            elif not in_header:
                boundary_at = octets.find(b"\r\n--", end) if boundaries else -1
                end = boundary_at if boundary_at >= 0 else len(octets) - 2
                yield Part.BODY, entity, octets[start : end + 2]
            elif line and entity.size <= _MAX_HEADER:
                entity.header.append(line)
                entity.size += len(line)
                yield Part.HEADER, entity, line
            elif line:
                in_header = False  # whatever this is, it is no header section
                yield Part.EMPTY, entity, NO_LINE
                continue
            else:
                boundary = entity.read_header()
                in_header = False
                yield Part.EMPTY, entity, line
                if entity.kind is Kind.CONTAINER and boundary is None:
                    entity, in_header = Entity(top=False), True  # message/rfc822: a message within
                elif boundary is not None and len(boundaries) < MAX_DEPTH:
                    boundaries.append(boundary)
                    usual.append(b"message/rfc822" if entity.type == b"multipart/digest" else b"text/plain")
                    entity = Entity(top=False, kind=Kind.OPAQUE)  # the preamble
            start = end + 2
    if in_header:
        entity.read_header()
        yield Part.EMPTY, entity, NO_LINE


def _boundary_depth(line: bytes, boundaries: list[bytes]) -> int | None:
    """Which open multipart this line delimits, the innermost first (RFC 2046 §5.1.2)."""
    if not line.startswith(b"--"):
        return None
    text = line[2:].rstrip(b" \t")
    for depth in range(len(boundaries) - 1, -1, -1):
        if text in (boundaries[depth], boundaries[depth] + b"--"):
            return depth
    return None
