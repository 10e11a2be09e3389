"""What is read from /proc."""

import subprocess
import sys

from benchmarks import processes

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint('done', flush=True)\ninput()\n"
)


def test_a_command_name_may_hold_anything() -> None:
    """Spaces and brackets in a name do not shift the fields."""
    text = "42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0 5 6 7"

    stat = processes.parse_stat(text)

    assert (stat.pid, stat.parent) == (42, 7)
    assert stat.cpu == 127 / processes.TICKS_PER_SECOND


def test_cpu_time_of_ended_children_counts() -> None:
    """A child that burnt 0.3 s and ended is still in its parent's account."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        cpu, memory = processes.cpu_seconds(parent.pid), processes.peak_rss(parent.pid)
        parent.communicate("\n")

    assert 0.25 < cpu < 3
    assert 3_000_000 < memory < 500_000_000


def test_living_children_count() -> None:
    """The tree holds a child and its child."""
    middle = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {'print(1, flush=True); input()'!r}])\n"
    with subprocess.Popen(
        [sys.executable, "-c", middle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        pids = [stat.pid for stat in processes.tree(parent.pid)]
        parent.communicate("\n")

    assert pids[0] == parent.pid
    assert len(pids) == 2


def test_a_process_that_is_gone_has_used_nothing() -> None:
    """An ended process is an empty tree."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert (processes.tree(ended.pid), processes.cpu_seconds(ended.pid)) == ([], 0)


def test_the_machine_is_at_least_as_busy_as_we_are() -> None:
    """Burning a tenth of a second shows in the machine's account."""
    before = processes.machine_cpu_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)

    assert processes.machine_cpu_seconds() - before > 0.2
