"""The console shows its own lines only, whatever else writes to the process's output."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sentray.console import Console, duration

CHATTER = """
import os, subprocess, sys
from pathlib import Path
from sentray.console import Console
console = Console()
console.say("before")
with console.quiet(Path(sys.argv[1]), verbose=len(sys.argv) > 2):
    print("python out")
    print("python err", file=sys.stderr)
    os.write(1, b"descriptor out\\n")
    os.write(2, b"descriptor err\\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child err\\\\n')"])
    lingering = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    console.say("shown")
    console.error("wrong")
print("after")
print(lingering.pid, file=sys.stderr)
"""
NOISE = ["python out", "python err", "descriptor out", "descriptor err", "child err"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _chatter(*arguments: str) -> tuple[str, str]:
    # Returns only when nobody holds the pipes any more: the lingering child must not have inherited them.
    done = subprocess.run(
        [sys.executable, "-c", CHATTER, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    *errors, lingering = done.stderr.splitlines()
    os.kill(int(lingering), 9)
    return done.stdout, "\n".join(errors)


def test_quiet_keeps_chatter_of_every_level_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "run.log"
    out, err = _chatter(str(log))
    assert out.splitlines() == ["before", "shown", "after"]
    assert err.splitlines() == ["sentray: wrong"]
    assert sorted(log.read_text().splitlines()) == sorted(NOISE)


def test_the_log_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("earlier\n")
    _chatter(str(log))
    assert log.read_text().startswith("earlier\n")


def test_verbose_brings_the_chatter_back() -> None:
    source = CHATTER.replace("time.sleep(600)", "pass")
    done = subprocess.run(
        [sys.executable, "-c", source, "unused.log", "verbose"], capture_output=True, text=True, check=True
    )
    assert all(line in done.stdout + done.stderr for line in NOISE)
    assert not Path("unused.log").exists()


def test_quiet_works_where_the_streams_were_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console, log = Console(), tmp_path / "run.log"
    before = sys.stdout
    with contextlib.suppress(KeyError), console.quiet(log):
        print("chatter")
        os.write(2, b"low\n")
        console.say("shown")
        raise KeyError
    assert sys.stdout is before
    print("after")
    assert capsys.readouterr().out == "shown\nafter\n"
    assert sorted(log.read_text().splitlines()) == ["chatter", "low"]


def test_progress_writes_one_line_over_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console()
    console.progress("step 1")
    console.progress("step 2 " + "x" * 500)
    console.say("done")
    first, second, last = terminal.getvalue().split("\r\x1b[K")[1:]
    assert first == "step 1"
    assert second.startswith("step 2 xx")
    assert len(second) < 300
    assert last == "done\n"


def test_progress_is_a_plain_line_now_and_then_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(progress_seconds=600)
    for step in range(100):
        console.progress(f"step {step}")
    console.say("done")
    eager = Console(progress_seconds=0)
    eager.progress("step 100")
    captured = capsys.readouterr()
    assert captured.err == "step 100\n"
    assert captured.out == "done\n"


def test_progress_shows_how_much_is_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(progress_seconds=0)
    console.progress("reading", 0.5)
    console.progress("reading", 0.999)
    assert capsys.readouterr().err == " 50 % reading\n 99 % reading\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    console.progress("reading", 0.25)
    assert terminal.getvalue().endswith("[#####               ]  25 % reading")


def test_table_aligns_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(["label", "rows", "f1"], [["pos", 12345, 0.5], ["negative", 7, 1.0]])
    assert capsys.readouterr().out.splitlines() == [
        "label       rows      f1",
        "pos       12,345  0.5000",
        "negative       7  1.0000",
    ]


def test_control_characters_of_a_review_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("bad\x1b[2Jfilm\tand\r\u0085naïve 影")
    assert capsys.readouterr().out == "bad\\x1b[2Jfilm\tand\\r\\x85naïve 影\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (42.4, "0:42"), (61, "1:01"), (3723, "1:02:03")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
