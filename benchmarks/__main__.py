"""`python -m benchmarks`: every peer under every workload, in alternating rounds; a table and `results/latest.json`.

Exit status: 0; 1 when a message was lost, sent twice, cut short or refused, when a peer did not run, or when the rig
did not; 2 for a wrong command line.
"""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import certificates, ours, rig
from benchmarks.goals import verdicts
from benchmarks.line import Line, distance
from benchmarks.measure import Run, measure
from benchmarks.peers import BASELINES
from benchmarks.place import PeerError
from benchmarks.plan import Plan, Stage, read_plan
from benchmarks.report import Summary, legend, summarise, table
from relay import is_compiled

RESULTS = Path(__file__).parent / "results" / "latest.json"


def main() -> int:
    """Runs the plan, keeps the numbers, prints the table."""
    plan = read_plan(sys.argv[1:])
    try:
        rig.build()
        runs, failures = run_all(plan)
    except rig.RigError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    summaries = summarise(runs, BASELINES)
    keep(plan, runs, summaries, failures)
    if summaries:
        print(
            f"{table(summaries, BASELINES)}\n\n{legend()}\n{ours.form()}\nEvery run: {RESULTS}\n\n{verdicts(summaries)}"
        )
    for name, reason in plan.left_out.items():
        print(f"\n{name} is left out: {reason}")
    for failure in failures.values():
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures or any(run.faults for run in runs) else 0


def run_all(plan: Plan) -> tuple[list[Run], dict[str, PeerError]]:
    """All runs, and what stopped a peer; such a peer takes no part in what follows."""
    runs: list[Run] = []
    failures: dict[str, PeerError] = {}
    with tempfile.TemporaryDirectory(prefix="relay-benchmark-") as scratch:
        Path(scratch).chmod(0o711)  # Postfix has users of its own
        for number, stage in enumerate(plan.stages, 1):
            with distance(stage.workload.rtt_ms) as line:
                directory = Path(scratch, str(number))
                directory.mkdir(mode=0o711)
                runs += run_stage(stage, line, directory, failures, plan.reply_delay_ms)
    return runs, failures


def run_stage(
    stage: Stage, line: Line, directory: Path, failures: dict[str, PeerError], reply_delay_ms: float
) -> list[Run]:
    """All rounds of one workload. New failures are added to `failures`.

    The peers run right after each other, each round beginning with another, so that what the machine does meanwhile
    falls on all alike.
    """
    runs = []
    issued = certificates.issue(directory, line.address)
    for number in range(1, stage.rounds + 1):
        first = (number - 1) % len(stage.peers)
        for peer in stage.peers[first:] + stage.peers[:first]:
            if peer.name in failures:
                continue
            words = f"{stage.workload.name}: round {number} of {stage.rounds}: {peer.name}"
            print(words, file=sys.stderr, flush=True)
            try:
                run = measure(
                    peer,
                    stage.workload,
                    round_number=number,
                    seconds=stage.seconds,
                    certificates=issued,
                    directory=directory / f"{number}-{peer.name}",
                    line=line,
                    reply_delay_ms=reply_delay_ms,
                )
            except PeerError as error:
                failures[peer.name] = error
            else:
                runs.append(run)
    return runs


def keep(plan: Plan, runs: Sequence[Run], summaries: Sequence[Summary], failures: dict[str, PeerError]) -> None:
    """Writes everything that was measured, with the circumstances, to `results/latest.json`."""
    RESULTS.parent.mkdir(exist_ok=True)
    results = {
        "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "stages": [
            {"workload": stage.workload.name, "rounds": stage.rounds, "seconds": stage.seconds} for stage in plan.stages
        ],
        "reply_delay_ms": plan.reply_delay_ms,
        "peers": {peer.name: peer.description for peer in plan.peers},
        "left_out": plan.left_out,
        "failures": {name: str(error) for name, error in failures.items()},
        "summaries": [asdict(summary) for summary in summaries],
        "runs": [asdict(run) | {"void": run.void, "faults": run.faults} for run in runs],
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiled": is_compiled(),
        "scratch": _answer_of("findmnt", "-n", "-o", "FSTYPE", "-T", tempfile.gettempdir()),
        "postfix": _answer_of("postconf", "-d", "-h", "mail_version"),
        **{name: importlib.metadata.version(name) for name in ("aiosmtpd", "aiosmtplib")},
    }


def _answer_of(*command: str) -> str:
    """What a command prints, or "none" where there is no such command."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "none"


if __name__ == "__main__":
    sys.exit(main())
