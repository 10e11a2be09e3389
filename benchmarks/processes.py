"""What the kernel knows about processes: the CPU time and memory of a whole tree, and how busy the machine is.

Linux only; everything is read from /proc, nothing is sampled in between, so measuring costs the measured nothing.
"""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that matter here; `cpu` includes the children that have been waited for."""

    pid: int
    parent: int
    cpu: float


def parse_stat(text: str) -> Stat:
    """Reads one /proc/PID/stat; the command name in its brackets may hold anything, spaces and brackets included."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()  # field 3 of proc(5) is fields[0]
    ticks = sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
    return Stat(pid=int(head.partition(" ")[0]), parent=int(fields[1]), cpu=ticks / TICKS_PER_SECOND)


def tree(root: int) -> list[Stat]:
    """The process `root` and all its living descendants."""
    children: dict[int, list[Stat]] = {}
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = parse_stat(path.read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the reading
        children.setdefault(stat.parent, []).append(stat)
        if stat.pid == root:
            found.append(stat)
    for stat in found:  # grows as it goes: breadth first
        found += children.get(stat.pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree so far, its ended children included."""
    return sum(stat.cpu for stat in tree(root))


def peak_rss(root: int) -> int:
    """The sum of each living process's own peak, in octets: an upper bound where they peaked at different times."""
    return sum(_memory(stat.pid, "VmHWM") for stat in tree(root))


def rss(root: int) -> int:
    """What the tree's processes have in memory now, in octets; what they share counts for each."""
    return sum(_memory(stat.pid, "VmRSS") for stat in tree(root))


def reset_peak(pid: int) -> None:
    """From now on a process's peak counts anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _memory(pid: int, field: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended meanwhile
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0  # a zombie has no memory


def machine_cpu_seconds() -> float:
    """CPU time used by everything on this machine since it started, and time stolen by its host."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
