"""`python -m benchmarks.instructions`: what a message costs, in instructions of the processor.

The time that something takes differs by a fifth between two minutes where others share the machine; the number of
instructions differs by one to three hundredths. So this shows whether a change has made a message cheaper, and whose
work it is: a line for each library of the process, its own instructions alone. The kernel's are not counted, and what
waits costs nothing. Valgrind runs the relay (Debian: `apt-get install valgrind`), some fifty times slower than it is.

With `--profile FILE` the profile stays, for `callgrind_annotate --inclusive=yes FILE` or KCachegrind.

Exit status: 0; 1 when the relay did not run or has lost a message; 2 when valgrind or the rig is missing.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from shutil import which
from typing import Final

from benchmarks import certificates, ours, rig
from benchmarks.instruments import Sink, run_load
from benchmarks.measure import await_arrival
from benchmarks.peers import Peer, started
from benchmarks.place import PeerError, Place, free_port, log_tail
from benchmarks.plan import at_least_one

SIZE: Final = 2_000
WARM_UP: Final = 200  # messages, until everything has been imported, compiled by SQLite, and specialised by Python
CONTROL_WITHIN: Final = 60  # seconds
PARTS: Final = 12  # lines of the table
DELIVERIES: Final = ("cut-through", "queue")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--messages", type=at_least_one, default=400, help="that are counted (default 400)")
    parser.add_argument("--size", type=at_least_one, default=SIZE, metavar="OCTETS", help=f"of each (default {SIZE})")
    parser.add_argument("--clients", type=at_least_one, default=10, help="that send them (default 10)")
    parser.add_argument("--delivery", choices=DELIVERIES, help="this one only (default: each)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="keep the profile of the last one")
    options = parser.parse_args(arguments)
    if which("valgrind") is None:
        print("valgrind is missing (Debian: apt-get install valgrind)", file=sys.stderr)
        return 2
    try:
        rig.build()
    except rig.RigError as error:
        print(error, file=sys.stderr)
        return 2
    columns = {}
    with tempfile.TemporaryDirectory(prefix="relay-instructions-") as scratch:
        profile = (options.profile or Path(scratch) / "profile").absolute()  # the relay is started elsewhere
        for delivery in [options.delivery] if options.delivery else DELIVERIES:
            directory = Path(scratch) / delivery
            directory.mkdir()
            try:
                load = ("--size", options.size, "--clients", options.clients, "--timeout", 60)
                columns[delivery] = count(directory, delivery, options.messages, load, profile)
            except PeerError as error:
                print(error, file=sys.stderr)
                return 1
    print(table(columns, options.messages))
    print(ours.form())
    return 0


def count(directory: Path, delivery: str, messages: int, load: Sequence[str | float], profile: Path) -> Counter[str]:
    """Instructions by library, for so many messages; raises PeerError.

    `load`: options of the load generator. `profile` is written as callgrind does.
    """
    issued = certificates.issue(directory, "127.0.0.1")
    with Sink(issued) as sink:
        place = Place(directory, free_port(), sink.host, sink.port, issued.ca)
        peer = Peer(
            "relay", f"the relay under valgrind, delivery: {delivery}", lambda place: _command(place, delivery, profile)
        )
        with started(peer, place) as pid:
            run_load(place.port, "--messages", WARM_UP, *load)
            await_arrival(sink, WARM_UP)
            _switch(pid, "on", place)
            run_load(place.port, "--messages", messages, "--first-serial", WARM_UP, *load)
            await_arrival(sink, WARM_UP + messages)
            _switch(pid, "off", place)
        if sink.read().distinct != WARM_UP + messages:
            raise PeerError(f"{WARM_UP + messages - sink.read().distinct} messages did not arrive:\n{log_tail(place)}")
    try:
        return read_profile(profile.read_text(errors="replace"))
    except OSError as error:
        raise PeerError(f"the relay left no profile ({error}):\n{log_tail(place)}") from error


def _command(place: Place, delivery: str, profile: Path) -> list[str]:
    configuration = ours.configure(place)
    configuration["identities"] = [{"name": "default", "delivery": delivery}]
    # How many connections are worn out within so few messages is chance: none is.
    configuration["upstream"]["messages_per_connection"] = 1_000_000
    return [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--fair-sched=yes", f"--callgrind-out-file={profile}"),
        *ours.serve(place, configuration),
    ]


def _switch(pid: int, way: str, place: Place) -> None:
    """Counting goes `way`, "on" or "off"; raises PeerError."""
    command = ["callgrind_control", "-i", way, str(pid)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=CONTROL_WITHIN)
    except (subprocess.SubprocessError, OSError) as error:
        raise PeerError(f"counting cannot be switched {way} ({error}):\n{log_tail(place)}") from error


def read_profile(text: str) -> Counter[str]:
    """The instructions of each library itself, from the file that callgrind writes ("Callgrind Format Specification").

    A name stands there in full once, and by its number after that. A line of numbers is what a line of source has cost,
    except behind `calls=`: there it is what was called, whose own lines say the same.
    """
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    library, called = "", False
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key in ("ob", "cob"):
            number, _, name = value.partition(" ")
            names.setdefault(number, PurePath(name).name)
            if key == "ob":
                library = names[number]
        elif key == "calls":
            called = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not called:
                found[library] += int(line.split()[1])
            called = False
    return found


def table(columns: dict[str, Counter[str]], messages: int) -> str:
    """Thousands of instructions a message; the dearest libraries first."""
    in_all: Counter[str] = Counter()
    for column in columns.values():
        in_all.update(column)
    shown = [name for name, _ in in_all.most_common(PARTS)]
    rows = {name: [column[name] for column in columns.values()] for name in shown}
    rows["others"] = [column.total() - sum(column[name] for name in shown) for column in columns.values()]
    rows["a message"] = [column.total() for column in columns.values()]
    lines = [f"{'thousand instructions a message, by library':<64}" + "".join(f"{name:>13}" for name in columns)]
    for name, counts in rows.items():
        lines.append(f"  {name:<62}" + "".join(f"{number / messages / 1000:>13,.1f}" for number in counts))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
