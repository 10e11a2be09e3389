"""`python -m tests.fuzz`: so many inputs to every reader, and figures. Exit status 1 if anything is wrong.

Each defect is printed, made small, and saved where `--replay` finds it.
"""

import argparse
import secrets
import sys
from pathlib import Path

from tests.fuzz.engine import GROWTH, Defect, Figures, Target, run, watched, words_of
from tests.fuzz.targets import TARGETS

ROW = "{:<14}{:>10}{:>14}{:>8}{:>8}{:>9}{:>12}{:>10}"
NAMES = {target.name: target for target in TARGETS}


def main() -> int:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Give odd octets to everything that reads."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(NAMES)} (default all)")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many in all (default 1000000)")
    parser.add_argument("--seed", type=int, help="the same number gives the same inputs (default: another each time)")
    parser.add_argument("--save", type=Path, default=Path("build/fuzz"), help="where what fails is kept")
    parser.add_argument("--replay", type=Path, nargs="*", help="inputs that were kept")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in NAMES]
    if unknown:
        parser.error(f"nothing is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    with watched():
        if options.replay is not None:
            return replay(options.replay)
        seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
        return fuzz([NAMES[name] for name in options.targets or NAMES], options.inputs, seed, options.save)


def fuzz(targets: list[Target], inputs: int, seed: int, folder: Path) -> int:
    """Runs and prints."""
    print(f"seed {seed}")
    print(ROW.format("target", "inputs", "octets", "kinds", "CPU s", "µs each", "slowest ms", "grown kB"))
    shares = sum(target.share for target in targets)
    results = []
    for target in targets:
        results.append(run(target, inputs * target.share // shares + 1, seed))
        show(results[-1])
        for defect in results[-1].defects:
            tell(defect, folder)
    wrong = sum(bool(result.defects) + (result.growth > GROWTH) for result in results)
    print(
        f"{sum(result.inputs for result in results)} inputs, {sum(result.seconds for result in results):.0f} s CPU",
        end=", ",
    )
    print(f"{wrong} readers have something wrong" if wrong else "nothing wrong")
    return 1 if wrong else 0


def show(result: Figures) -> None:
    """One row."""
    each = result.seconds / result.inputs * 1e6
    grown = f"{result.growth / 1000:.0f}" + (" !" if result.growth > GROWTH else "")
    times = f"{result.seconds:.1f}", f"{each:.0f}", f"{result.slowest * 1000:.1f}"
    print(ROW.format(result.target, result.inputs, result.octets, result.kinds, *times, grown), flush=True)


def tell(defect: Defect, folder: Path) -> None:
    """What is wrong, and how to see it again."""
    print(
        f"  {defect.target}: {defect.words}\n    {defect.octets[:200]!r}\n    --replay {defect.save(folder)}",
        flush=True,
    )


def replay(files: list[Path]) -> int:
    """Inputs that were kept, once more."""
    failed = 0
    for file in files:
        words = words_of(NAMES[file.name.rpartition("-")[0]], file.read_bytes())
        print(f"{file}: {words or 'nothing wrong'}")
        failed += words is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
