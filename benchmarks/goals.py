"""What this relay sets out to be, and whether the table says that it is. Pure; prints nothing.

A goal is met by the median of the rounds. It is not decided where its workload or a peer was missing, or the row void.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.plan import DISTANCES
from benchmarks.report import Summary
from benchmarks.workloads import Workload, burst, lone, waiting

KEPT: Final = Workload(2_000, 10).name
MEDIUM: Final = Workload(50_000, 10).name
LARGE: Final = Workload(1_000_000, 10).name

ROUND_TRIPS: Final = 1.1
"""Per message in steady state: the ideal is 1."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A number of one row, and the bound it is to keep; `least`: it is a floor, else a ceiling."""

    words: str
    workload: str
    peer: str
    value: Callable[[Summary], float | None]
    bound: float
    least: bool = True


def _rate(baseline: str) -> Callable[[Summary], float | None]:
    return lambda row: row.ratios[baseline].rate if baseline in row.ratios else None


def _cpu(baseline: str) -> Callable[[Summary], float | None]:
    return lambda row: row.ratios[baseline].cpu if baseline in row.ratios else None


def _valid(value: Callable[[Summary], float | None]) -> Callable[[Summary], float | None]:
    """The value, unless the row is void."""
    return lambda row: None if row.void else value(row)


GOALS: Final = [
    Goal("cut-through: messages/s x naive-pool", KEPT, "relay", _rate("naive-pool"), 1.5),
    Goal("durable: messages/s x postfix-reuse", KEPT, "relay-queue", _rate("postfix-reuse"), 2.0),
    Goal("durable: CPU x postfix-reuse", KEPT, "relay-queue", _cpu("postfix-reuse"), 0.4, least=False),
    Goal("durable, aim: messages/s x postfix-reuse", KEPT, "relay-queue", _rate("postfix-reuse"), 3.0),
    Goal("durable, aim: CPU x postfix-reuse", KEPT, "relay-queue", _cpu("postfix-reuse"), 0.35, least=False),
    Goal("durable, aim: messages/s x postfix-reuse", MEDIUM, "relay-queue", _rate("postfix-reuse"), 2.5),
    Goal("durable, aim: messages/s x postfix-reuse", LARGE, "relay-queue", _rate("postfix-reuse"), 1.5),
    *(
        goal
        for rtt in DISTANCES
        for peer in ("relay", "relay-queue")
        for goal in (
            Goal("of what the connections carry", waiting(rtt).name, peer, _valid(lambda row: row.of_limit), 0.9),
            Goal("messages/s x postfix-reuse", waiting(rtt).name, peer, _rate("postfix-reuse"), 1.5),
            Goal(
                "round trips a message",
                waiting(rtt).name,
                peer,
                _valid(lambda row: row.round_trips),
                ROUND_TRIPS,
                least=False,
            ),
        )
    ),
    *(
        Goal("messages/s x postfix-reuse", burst(rtt).name, "relay-queue", _rate("postfix-reuse"), 1.5)
        for rtt in DISTANCES
    ),
    *(
        Goal(
            "round trips a message",
            lone(DISTANCES[0]).name,
            peer,
            _valid(lambda row: row.round_trips),
            2.0,
            least=False,
        )
        for peer in ("relay", "relay-queue")
    ),
]


def verdicts(summaries: Sequence[Summary], goals: Sequence[Goal] = GOALS) -> str:
    """A line for each goal: what it is, what was measured, what it should be."""
    rows = {(each.workload, each.peer): each for each in summaries}
    lines = []
    for goal in goals:
        row = rows.get((goal.workload, goal.peer))
        value = None if row is None else goal.value(row)
        shown = "not measured" if value is None else f"{value:.2f}"
        bound = f"{'at least' if goal.least else 'at most'} {goal.bound:g}"
        lines.append((verdict(goal, value), f"{goal.workload}: {goal.peer}: {goal.words}", shown, bound))
    width = max(len(words) for _, words, _, _ in lines)
    return "\n".join(f"  {mark:<6}  {words:<{width}}  {shown:>12}  ({bound})" for mark, words, shown, bound in lines)


def verdict(goal: Goal, value: float | None) -> str:
    """ "met", "missed", or "open" where nothing was measured."""
    if value is None:
        return "open"
    return "met" if (value >= goal.bound if goal.least else value <= goal.bound) else "missed"
