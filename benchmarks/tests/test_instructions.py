"""What a message costs in instructions: the profile is read right, and a relay under valgrind sends mail."""

from shutil import which

import pytest

from benchmarks import instructions
from benchmarks.certificates import Certificates

PROFILE = """\
# callgrind format
version: 1
events: Ir
ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault
10 700
+3 20
cob=(2) /usr/lib/libsqlite3.so.0
cfn=(2) sqlite3_step
calls=4 55
+1 5000
-2 30
ob=(2)
fn=(2)
55 4000
* 1000
ob=(1)
fn=(1)
12 50
totals: 5800
"""


def test_what_a_library_calls_is_not_its_own() -> None:
    found = instructions.read_profile(PROFILE)

    assert found == {"libpython3.11.so.1.0": 800, "libsqlite3.so.0": 5000}
    assert f"totals: {found.total()}" in PROFILE


def test_the_table_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "PARTS", 1)

    text = instructions.table({"queue": instructions.read_profile(PROFILE)}, messages=2)

    assert [line.split() for line in text.splitlines()[1:]] == [
        ["libsqlite3.so.0", "2.5"],
        ["others", "0.4"],
        ["a", "message", "2.9"],
    ]


@pytest.mark.skipif(which("valgrind") is None, reason="valgrind is not installed")
def test_a_relay_under_valgrind_is_counted(issued: Certificates, capsys: pytest.CaptureFixture[str]) -> None:
    status = instructions.main(["--messages", "20", "--delivery", "queue"])

    printed = capsys.readouterr().out
    assert status == 0
    last = next(line for line in printed.splitlines() if line.startswith("  a message"))
    assert 200 < float(last.split()[-1].replace(",", "")) < 20_000
    assert "libsqlite3" in printed
