"""What the readers are compared with: slow, short, and right at a glance."""

import re
from dataclasses import dataclass

from relay.core.mime import MAX_LINE

EVERY_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Data:
    """The content between DATA and the final dot, and what stands behind it."""

    content: bytes
    rest: bytes
    bare_lf: bool
    lone_cr: bool
    nuls: int

    @property
    def header(self) -> bytes:
        """The lines before the first empty one."""
        if self.content.startswith(b"\r\n"):
            return b""
        before, empty, _ = self.content.partition(b"\r\n\r\n")
        return before + b"\r\n" if empty else before

    @property
    def longest_line(self) -> int:
        """0 where every line may travel."""
        longest = max(map(len, self.content.split(b"\r\n")))
        return longest if longest > MAX_LINE else 0


def data(octets: bytes, line_end: bytes, *, without_nul: bool = False) -> Data | None:
    """RFC 5321 §4.5.2, for one kind of line end; None without an end of data."""
    lines = octets.split(line_end)
    if b"." not in lines[:-1]:
        return None
    end = lines.index(b".")
    unstuffed = b"".join(line.removeprefix(b".") + line_end for line in lines[:end])
    ends = EVERY_LINE_END.findall(unstuffed)
    content = EVERY_LINE_END.sub(b"\r\n", unstuffed)
    return Data(
        content=content.replace(b"\0", b"") if without_nul else content,
        rest=line_end.join(lines[end + 1 :]),
        bare_lf=b"\n" in ends or line_end == b"\n",
        lone_cr=b"\r" in ends,
        nuls=unstuffed.count(b"\0"),
    )


def replies(octets: bytes) -> tuple[list[tuple[int, int]], bool]:
    """Code and number of lines of each reply before the first octets that are none; were there such?"""
    found: list[tuple[int, int]] = []
    lines: list[bytes] = []
    for line in octets.split(b"\n")[:-1]:
        line = line.removesuffix(b"\r")
        if not re.fullmatch(rb"[2-5][0-9][0-9](?:[ -].*)?", line, re.DOTALL) or (lines and line[:3] != lines[0][:3]):
            return found, True
        lines.append(line)
        if line[3:4] != b"-":
            found.append((int(line[:3]), len(lines)))
            lines = []
    return found, False


def unix_lines(octets: bytes) -> bytes:
    """LF for each CRLF, CR CR LF and lone CR."""
    *lines, last = octets.split(b"\n")
    return b"\n".join([*(line.rstrip(b"\r") for line in lines), last]).replace(b"\r", b"\n")
