"""From runs to what may be claimed: medians over rounds, and ratios to the baselines. Pure; prints nothing.

Every ratio is formed within a round, where the two peers ran next to each other, and then the median of the rounds is
taken: on a shared machine the same program differs by a third between one quarter of an hour and the next. A peer with
a void round has no ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import MOST_FOREIGN_SHARE, Run


@dataclass(frozen=True, slots=True)
class Ratio:
    """A peer beside a baseline: its messages per second, and its CPU time per message, each as a multiple."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of a table: one peer under one workload, all rounds. Numbers are medians."""

    peer: str
    workload: str
    rounds: int
    rate: float
    least_rate: float
    most_rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    peak_rss: float
    round_trips: float
    of_limit: float | None
    connections: float
    max_open: float
    load_share: float
    sink_share: float
    void: bool
    ratios: dict[str, Ratio]
    notes: list[str]


def summarise(runs: Sequence[Run], baselines: Sequence[str]) -> list[Summary]:
    """One summary for each workload and peer, in the order in which they first ran."""
    cells: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.workload, run.peer), []).append(run)
    return [
        _summary(rounds, {name: cells[workload, name] for name in baselines if (workload, name) in cells})
        for (workload, _), rounds in cells.items()
    ]


def _summary(rounds: Sequence[Run], baselines: dict[str, list[Run]]) -> Summary:
    rates = [run.rate for run in rounds]
    return Summary(
        peer=rounds[0].peer,
        workload=rounds[0].workload,
        rounds=len(rounds),
        rate=median(rates),
        least_rate=min(rates),
        most_rate=max(rates),
        cpu_ms=median(run.cpu_ms for run in rounds),
        p50_ms=median(run.p50_ms for run in rounds),
        p99_ms=median(run.p99_ms for run in rounds),
        peak_rss=median(run.peak_rss for run in rounds),
        round_trips=median(run.round_trips for run in rounds),
        of_limit=median(shares) if (shares := [run.of_limit for run in rounds if run.of_limit is not None]) else None,
        connections=median(run.connections for run in rounds),
        max_open=median(run.max_open for run in rounds),
        load_share=max(run.load_share for run in rounds),
        sink_share=max(run.sink_share for run in rounds),
        void=any(run.void for run in rounds),
        ratios={name: ratio for name, others in baselines.items() if (ratio := _ratio(rounds, others)) is not None},
        notes=_notes(rounds),
    )


def _ratio(rounds: Sequence[Run], baseline: Sequence[Run]) -> Ratio | None:
    """The median of the ratios of the rounds both took part in.

    None where a void round on either side forbids one, or where messages came slowly on purpose.
    """
    others = {run.round_number: run for run in baseline}
    pairs = [(run, others[run.round_number]) for run in rounds if run.round_number in others]
    if not pairs or not all(run.comparable and not run.void for run in (*rounds, *baseline)):
        return None
    return Ratio(
        rate=median(run.rate / other.rate for run, other in pairs),
        cpu=median(run.cpu_ms / other.cpu_ms for run, other in pairs),
    )


def _notes(rounds: Sequence[Run]) -> list[str]:
    """What a reader must know before believing a row."""
    notes = []
    voids = [run.void for run in rounds if run.void]
    if voids:
        notes.append(f"VOID ({len(voids)} of {len(rounds)} rounds): {voids[0]}")
    notes += [fault for run in rounds for fault in run.faults]
    foreign = max(run.foreign_share for run in rounds)
    if foreign > MOST_FOREIGN_SHARE:
        notes.append(f"others used up to {foreign:.0%} of a core")
    return notes + list(dict.fromkeys(run.caveat for run in rounds if run.caveat))


def table(summaries: Sequence[Summary], baselines: Sequence[str]) -> str:
    """The summaries of all workloads as text, one block for each workload."""
    return "\n\n".join(
        f"{workload}\n" + _block([each for each in summaries if each.workload == workload], baselines)
        for workload in dict.fromkeys(each.workload for each in summaries)
    )


def _block(summaries: Sequence[Summary], baselines: Sequence[str]) -> str:
    """One table: the first column to the left, numbers to the right, notes at the end of the line.

    Of the baselines only those have columns that somebody can be compared with.
    """
    baselines = [name for name in baselines if any(name in each.ratios for each in summaries)]
    header = ["peer", "messages/s", "(min-max)", *(f"x {name}" for name in baselines)]
    header += ["CPU ms/msg", *(f"x {name}" for name in baselines)]
    header += ["p50 ms", "p99 ms", "peak MB", "RT/msg", "of limit", "open", "dials", "load", "sink"]
    rows = [header, *(_row(each, baselines) for each in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    notes = ["", *("; ".join(each.notes) for each in summaries)]
    return "\n".join(
        f"  {row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        + (f"  {note}" if note else "")
        for row, note in zip(rows, notes, strict=True)
    )


def legend() -> str:
    """What the columns mean, for someone who has only the table."""
    return (
        "Medians of alternating rounds. x NAME: as a multiple of that peer in the same round; above 1 is better for\n"
        "messages/s, below 1 for CPU. CPU and MB: the whole process tree. p50, p99: from MAIL, or from connect where\n"
        "each message has its own connection, to the 250 after the final dot. RT/msg: how often, per message, the\n"
        "relay waited for the smarthost, dials not counted. of limit: of what 10 connections carry at one round trip\n"
        "a message. open, dials: upstream connections open at most, and opened during the run. load, sink: share of a\n"
        "core; above 80 % the rig would have measured itself, and the row is void."
    )


def _row(each: Summary, baselines: Sequence[str]) -> list[str]:
    ratios = [each.ratios.get(name) for name in baselines]
    return [
        each.peer,
        f"{each.rate:.0f}",
        f"({each.least_rate:.0f}-{each.most_rate:.0f})",
        *("-" if ratio is None else f"{ratio.rate:.2f}" for ratio in ratios),
        f"{each.cpu_ms:.2f}",
        *("-" if ratio is None else f"{ratio.cpu:.2f}" for ratio in ratios),
        f"{each.p50_ms:.1f}",
        f"{each.p99_ms:.1f}",
        f"{each.peak_rss / 1e6:.0f}",
        f"{each.round_trips:.2f}",
        "-" if each.of_limit is None else f"{each.of_limit:.0%}",
        f"{each.max_open:.0f}",
        f"{each.connections:.0f}",
        f"{each.load_share:.0%}",
        f"{each.sink_share:.0%}",
    ]
