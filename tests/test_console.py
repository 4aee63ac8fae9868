"""The console shows its own lines only, whatever else writes to the process's output."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sentray.console import Console, Share, core_time, duration

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


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both streams of a terminal whose size nobody knows; what has been shown on it lies in `getvalue()`."""
    terminal = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def _plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


def test_progress_writes_one_line_over_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console = Console()
    console.progress("step 1")
    console.progress("step 2 [red] \x1b[2J" + "影" * 500)
    console.say("done")
    assert terminal.getvalue().split("\r\x1b[K") == ["step 1", f"step 2 [red] \\x1b[2J{'影' * 29}…", "done\n"]


def test_progress_shows_a_bar_where_the_share_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    Console().progress("reading " + "x" * 100, 0.25)
    bar, _, line = _plain(terminal.getvalue()).partition("  ")
    assert re.fullmatch("━{5}.━{14}", bar)
    assert re.fullmatch("25 % reading x+…", line)
    assert len(f"{bar}  {line}") == 79
    assert _plain(terminal.getvalue()) != terminal.getvalue()


def test_a_terminal_may_have_no_colours_or_be_a_mere_printer(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(progress_seconds=0)
    console.error("[red] wrong")
    console.progress("reading", 0.5)
    monkeypatch.setenv("TERM", "dumb")
    Console(progress_seconds=0).progress("reading", 0.5)
    error, bar, dumb = re.fullmatch("(.*\n)(━.*reading)( 50 % reading\n)", terminal.getvalue()).groups()
    assert error == "sentray: [red] wrong\n"
    assert "\x1b" not in bar
    assert dumb


def test_warnings_and_errors_have_a_colour_and_results_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console = Console()
    console.say("97.8% of the words are known")
    console.say("warning: [b]few words\x1b[0m")
    console.error("no file")
    assert terminal.getvalue().splitlines() == [
        "97.8% of the words are known",
        "\x1b[33mwarning: [b]few words\\x1b[0m\x1b[0m",
        "\x1b[31msentray: no file\x1b[0m",
    ]


def test_a_silent_console_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console = Console(silent=True)
    console.progress("reading", 0.5)
    console.table(["rows"], [[1]])
    console.error("wrong")
    assert terminal.getvalue() == ""


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


def test_progress_shows_how_much_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(progress_seconds=0)
    console.progress("reading", 0.5)
    console.progress("reading", 0.999)
    assert capsys.readouterr().err == " 50 % reading\n 99 % reading\n"


def test_table_aligns_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(["label", "rows", "f1"], [["pos", 12345, 0.5], ["negative", 7, 1.0]])
    assert capsys.readouterr().out.splitlines() == [
        "label       rows      f1",
        "pos       12,345  0.5000",
        "negative       7  1.0000",
    ]


def test_a_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console = Console()
    rows = [["[red]film\x1b[2J", 12345, Share(1)], ["影画" * 10, 7, Share(0.25)], ["x" * 60, 0, Share(0)]]
    console.table(["text", "rows", ""], rows)
    head, rule, first, *lines = _plain(terminal.getvalue()).splitlines()
    assert (head.split(), rule) == (["text", "rows"], "─" * 80)
    assert re.fullmatch(r"\[red\]film\\x1b\[2J +12,345  █+", first)
    second = next(line for line in lines if "7" in line)
    assert re.fullmatch(r"[影画]+ +7  █+[▏▎▍▌▋▊▉]? *", second)
    assert "".join(re.findall("[影画]", " ".join(lines))) == "影画" * 10
    assert " ".join(lines).count("x") == 60
    assert first.count("█") // 4 == second.count("█") > 2


def test_coloured_words_are_a_line_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Console().coloured([("great", "green")])
    assert capsys.readouterr().out == ""
    terminal, console = on_terminal(monkeypatch), Console()
    console.coloured([("great", "green"), ("phone", "")])
    console.say("pos")
    assert re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines() == ["great phone", "pos"]
    assert "\x1b[32mgreat" in terminal.getvalue()


def test_a_panel_is_framed_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Console().panel(["the bundle is in [red]m", "look"])
    assert capsys.readouterr().out == "the bundle is in [red]m\nlook\n"
    terminal = on_terminal(monkeypatch)
    Console().panel(["the bundle is in [red]m", "look"])
    top, first, second, bottom = terminal.getvalue().splitlines()
    assert (first.strip("│ "), second.strip("│ ")) == ("the bundle is in [red]m", "look")
    assert len(top) == len(first) == len(second) == len(bottom)


def test_a_bar_is_a_row_of_signs_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(["", "影"], [["a", Share(1)], ["b", Share(0.25)]])
    assert capsys.readouterr().out == f"   影\na  {'#' * 40}\nb  {'#' * 10}\n"


def test_control_characters_of_a_review_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("bad\x1b[2Jfilm\tand\r\u0085naïve 影")
    assert capsys.readouterr().out == "bad\\x1b[2Jfilm\tand\\r\\x85naïve 影\n"


def _objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_is_an_object_with_time_level_verb_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(progress_seconds=0, as_json=True, verb="score")
    console.say("committed")
    console.say()
    console.note("shard 2: its process died", shard=2, reason="process_died")
    console.progress("reading", 0.5)
    console.progress("reading")
    console.event("shard 3 committed", shard=3, quarantined={"empty_text": 1}, loss=float("nan"))
    console.error("wrong")
    captured = capsys.readouterr()
    (said,), errors = _objects(captured.out), _objects(captured.err)
    assert list(said) == ["time", "level", "verb", "run", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", said["time"])
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", said["run"])
    assert {line["run"] for line in errors} == {said["run"]} == {console.run}
    assert {line["verb"] for line in errors} == {"score"}
    assert [(line["level"], line["message"]) for line in (said, *errors)] == [
        ("info", "committed"),
        ("warning", "shard 2: its process died"),
        ("progress", "reading"),
        ("progress", "reading"),
        ("info", "shard 3 committed"),
        ("error", "wrong"),
    ]
    assert [line.get("share") for line in errors] == [None, 0.5, None, None, None]
    assert (errors[0]["shard"], errors[0]["reason"]) == (2, "process_died")
    assert (errors[3]["shard"], errors[3]["quarantined"], errors[3]["loss"]) == (3, {"empty_text": 1}, None)


def test_a_silent_console_knows_when_the_work_moved(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(progress_seconds=0, silent=True)
    before = console.moved_at
    for show in (console.say, console.note, console.error, console.progress):
        show("a line")
    assert capsys.readouterr() == ("", "")
    assert console.moved_at > before


def test_each_start_has_an_id_of_its_own() -> None:
    assert len({Console().run for _ in range(20)}) == 20


def test_an_event_and_fields_are_silent_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console().event("shard 3 committed", shard=3)
    Console().note("its process died", shard=3)
    assert capsys.readouterr() == ("", "its process died\n")


def test_nothing_is_written_over_on_a_terminal_that_gets_json(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    console = Console(progress_seconds=600, as_json=True)
    for step in range(100):
        console.progress(f"step {step}")
    console.say("bad\x1b[2J\x9b film\r\nand\x85naïve 影")
    assert terminal.getvalue().isascii()
    assert not {"\x1b", "\r"} & set(terminal.getvalue())
    (line,) = _objects(terminal.getvalue())
    assert line["message"] == "bad\x1b[2J\x9b film\r\nand\x85naïve 影"


def test_a_row_of_a_table_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.table(["", "rows", ""], [["scored", 99, " 99.0%"], ["  as pos", 50, "50.5%"]])
    console.table(["label", "f1", "level"], [["pos", 0.5, 7]])
    scored, positive, label = _objects(capsys.readouterr().out)
    assert (scored["name"], scored["rows"], scored["message"]) == ("scored", 99, "scored 99")
    assert positive["name"] == "as pos"
    assert "" not in scored
    # Our own fields are not hidden by a column of their name.
    assert (label["label"], label["f1"], label["level"]) == ("pos", 0.5, "info")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (42.4, "0:42"), (61, "1:01"), (3723, "1:02:03")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("hours", "line"),
    [
        (0, "0 core-seconds"),
        (0.0004, "1.4 core-seconds"),
        (0.016, "58 core-seconds"),
        (0.02, "1.2 core-minutes"),
        (0.5, "30 core-minutes"),
        (1, "1 core-hours"),
        (1234.5, "1,234 core-hours"),
    ],
)
def test_work_of_processors_is_told_in_a_unit_that_says_something(hours: float, line: str) -> None:
    assert core_time(hours) == line


def test_an_event_is_a_line_for_people_only_where_it_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    Console().event("shard 3 committed", rows=5)
    Console().event("epoch 1 finished", "epoch 1  loss 0.5", rows=5)
    assert capsys.readouterr().err == "epoch 1  loss 0.5\n"
    Console(as_json=True).event("epoch 1 finished", "epoch 1  loss 0.5", rows=5)
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["rows"]) == ("epoch 1 finished", 5)
