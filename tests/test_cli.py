"""Every verb is reachable, explains itself, starts fast and ends with the right status and one line."""

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import sentray.corpus.check
import sentray.scoring.job
from sentray import __version__, api, cluster
from sentray.cli import app, main
from sentray.config import (
    CheckSettings,
    EvaluateSettings,
    PredictSettings,
    QuickstartSettings,
    ScoreSettings,
    Settings,
    TrainSettings,
    VocabSettings,
)
from sentray.console import Console
from sentray.corpus.check import Report
from sentray.corpus.inspect import Inspection
from sentray.errors import SentrayError
from sentray.options import flag
from sentray.submit import SubmitSettings

JOBS = Path(__file__).resolve().parents[1] / "jobs"
VERBS: dict[str, type[Settings]] = {
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "score": ScoreSettings,
    "predict": PredictSettings,
    "check": CheckSettings,
    "vocab": VocabSettings,
    "quickstart": QuickstartSettings,
    "submit": SubmitSettings,
}


def _status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def score_does(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the work of `sentray score`, and runs it with the output in a folder."""

    def replace(work: Any, folder: Path, *options: str) -> int:
        monkeypatch.setattr(sentray.scoring.job, "score", work)
        return _status("score", "bundle", "reviews.csv", "--out", str(folder / "scored"), *options)

    return replace


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status("--version") == 0
    assert capsys.readouterr().out == f"sentray {__version__}\n"


def test_help_has_a_panel_for_each_class_of_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status("train", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    panels = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert panels[:4] == ["Arguments:", "Training:", "Held-out rows:", "Network:"]
    assert panels[4:] == ["Corpus:", "Text:", "Cluster and log:", "Options:"]

    def panel(option: str) -> str:
        at = next(number for number, line in enumerate(lines) if line.startswith(f"  {option} "))
        return [line for line in lines[:at] if line in panels][-1]

    found = {option: panel(option) for option in ("--epochs", "--model", "--text-column", "--cleaning", "--address")}
    assert list(found.values()) == ["Training:", "Network:", "Corpus:", "Text:", "Cluster and log:"]


def test_the_shell_completes_verbs_options_and_values(tmp_path: Path) -> None:
    def completed(words: str) -> str:
        asked = {"_SENTRAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-m", "sentray"]
        return subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True).stdout

    assert completed("sentray ev") == "evaluate\n"
    assert completed("sentray train --emb").split() == ["--embedding", "--embedding-learning-rate"]
    assert completed("sentray train --cleaning ").split() == ["tutorial", "reviews", "unicode"]

    home = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    shown = subprocess.run(
        ["bash", "-c", '"$0" -m sentray --show-completion; "$0" -m sentray --install-completion', sys.executable],
        env=home,
        capture_output=True,
        text=True,
    )
    assert "_SENTRAY_COMPLETE=complete_bash" in shown.stdout
    assert [*tmp_path.rglob("sentray.sh")], shown.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_every_option_with_its_default(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(verb, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    model = VERBS[verb]
    for name, field in model.model_fields.items():
        assert (flag(model, name) in shown) == (name not in model.unused)
        default = field.default
        if isinstance(default, int | float) and not isinstance(default, bool) and name not in model.unused:
            assert f"(default {default})" in shown


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "quickstart"])
def test_without_arguments_a_verb_shows_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(verb) == 2
    shown = capsys.readouterr()
    assert f"Usage: sentray {verb} [OPTIONS]" in shown.out + shown.err
    assert "--config FILE" in shown.out + shown.err


def test_help_needs_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys, sentray.cli\n"
        "heavy = {'ray', 'tensorflow', 'keras', 'pyarrow', 'numpy', 'numba', 'nltk', 'pandas'}\n"
        "heavy |= {'rich', 'jinja2', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "submit"])
def test_each_verb_has_a_job_without_logic(verb: str) -> None:
    source = (JOBS / f"{verb}.py").read_text()
    assert f'main(["{verb}", *sys.argv[1:]])' in source
    assert len(ast.parse(source).body) == 4
    assert {job.stem for job in JOBS.glob("*.py")} == set(api.JOBS)
    assert {*api.JOBS, "submit"} == {command.name for command in app.registered_commands}


def test_a_job_runs_its_verb() -> None:
    done = subprocess.run([sys.executable, JOBS / "score.py", "--out", "scored"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "sentray: BUNDLE and INPUT must be given; --help shows every option\n"


def test_options_reach_the_work(score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: ScoreSettings, console: Console) -> None:
        console.say(f"{settings.input} {settings.keep} {settings.max_bad_rows} {settings.workers}")

    config = tmp_path / "run.toml"
    config.write_text("max-bad-rows = 0.5\nworkers = 1\n")
    options = ("--keep", "stars", "--keep", "year", "--workers", "2", "--config", str(config))
    assert score_does(work, tmp_path, *options) == 0
    assert capsys.readouterr().out == "reviews.csv ('stars', 'year') 0.5 2\n"


def test_chatter_goes_to_the_log_beside_the_output(
    score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(settings: ScoreSettings, console: Console) -> None:
        os.write(2, b"chatter\n")

    assert score_does(work, tmp_path) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "scored.log").read_text().splitlines()[-1] == "chatter"


def test_a_mistake_is_one_line(score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: ScoreSettings, console: Console) -> None:
        raise SentrayError("there is no file reviews.csv; check the path")

    assert score_does(work, tmp_path) == 1
    assert capsys.readouterr().err == "sentray: there is no file reviews.csv; check the path\n"


def test_an_unexpected_error_is_one_line_and_a_traceback_in_the_log(
    score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(settings: ScoreSettings, console: Console) -> None:
        raise ZeroDivisionError("division by zero\nsecond line")

    assert score_does(work, tmp_path) == 3
    log = tmp_path / "scored.log"
    assert capsys.readouterr().err == (
        f"sentray: unexpected ZeroDivisionError: division by zero (the traceback is in {log})\n"
    )
    assert "Traceback (most recent call last)" in log.read_text()


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_says_how_to_go_on(
    ending: type[BaseException], score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(settings: ScoreSettings, console: Console) -> None:
        raise ending

    assert score_does(work, tmp_path) == 130
    assert capsys.readouterr().err == "sentray: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_a_run_that_is_told_to_terminate_ends_as_cleanly(
    ending: type[BaseException], score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = []

    def work(settings: ScoreSettings, console: Console) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            # Ray turns it into an interrupt while it waits for something.
            raise ending from None
        finally:
            left.append("the lease")

    before = signal.getsignal(signal.SIGTERM)
    assert score_does(work, tmp_path) == 143
    assert left == ["the lease"]
    assert capsys.readouterr().err == "sentray: stopped; the same command goes on from here\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_log_format_json_holds_for_lines_and_errors(
    score_does: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(settings: ScoreSettings, console: Console) -> None:
        console.say("said")
        raise SentrayError("wrong")

    assert score_does(work, tmp_path, "--log-format", "json") == 1
    shown = capsys.readouterr()
    said, wrong = json.loads(shown.out), json.loads(shown.err)
    assert (said["level"], said["verb"], said["message"]) == ("info", "score", "said")
    assert (wrong["level"], wrong["run"], wrong["message"]) == ("error", said["run"], "wrong")
    assert f"run {said['run']}: " in (tmp_path / "scored.log").read_text()


def test_a_reader_that_leaves_is_no_error() -> None:
    program = (
        "import sentray.inference.predict as p\n"
        "p.predict = lambda *a: iter(['x' * 1000] * 1000)\n"
        "from sentray.cli import main\nmain(['predict', 'bundle', 'text'])"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1', sys.executable, program], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("x" * 1000 + "\n", "")


def test_a_verb_without_local_output_leaves_no_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sentray.inference.predict

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sentray.inference.predict, "predict", lambda *_: iter(["pos\t0.9"]))
    assert _status("predict", "bundle", "a fine film") == 0
    assert capsys.readouterr().out == "pos\t0.9\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with some files to work in, where reaching for Ray fails."""
    monkeypatch.chdir(tmp_path)
    Path("names.csv").write_text("id,review\n1,good\n")
    Path("unlabelled.csv").write_text("id,text\n1,good\n")
    Path("reviews.csv").write_text("id,text,label\n1,good,pos\n")
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: pytest.fail("Ray was to be started"))


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        *(
            (line, "there is no file or folder nowhere.csv: ")
            for line in (
                "train nowhere.csv --out o",
                "evaluate b nowhere.csv",
                "check nowhere.csv",
                "vocab nowhere.csv --out o",
                "embed nowhere.csv --out o",
                "quickstart --corpus nowhere.csv --out o",
            )
        ),
        ("check names.csv", "names.csv has no column 'text'"),
        ("vocab names.csv --out o", "names.csv has no column 'text'"),
        ("train unlabelled.csv --out o", "unlabelled.csv has no column 'label'"),
        ("evaluate b unlabelled.csv", "unlabelled.csv has no column 'label'"),
        ("check reviews.csv --json .", ". cannot be written (it is a folder); choose another place"),
        ("vocab reviews.csv --out names.csv/v", "names.csv"),
        ("train reviews.csv --out names.csv", "--out names.csv is a file: name a folder"),
        ("score b reviews.csv --out names.csv", "--out names.csv is a file: name a folder"),
        ("train reviews.csv --out o --embedding v.txt", "there is no file v.txt"),
        ("train reviews.csv --out o --stop-words w.txt", "the stop-word file w.txt can't be read"),
    ],
)
def test_what_can_be_refused_without_ray_is(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(*arguments.split()) == 1
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.count("\n") == 1


@pytest.mark.usefixtures("no_ray")
def test_python_is_refused_as_early() -> None:
    with pytest.raises(SentrayError, match=r"names\.csv has no column 'text'"):
        sentray.read_reviews("names.csv")


def test_standard_input_and_pipes_are_kept_as_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sentray.scoring.job, "score", lambda settings, _: seen.append(Path(settings.input).read_text()))
    (tmp_path / "piped").write_text("id,text\n1,good\n")
    kept = os.dup(0)
    try:
        with (tmp_path / "piped").open() as piped:
            os.dup2(piped.fileno(), 0)
        assert _status("score", "bundle", "-", "--out", str(tmp_path / "scored")) == 0
        os.mkfifo(tmp_path / "pipe")
        feeder = threading.Thread(target=(tmp_path / "pipe").write_text, args=("id,text\n2,bad\n",))
        feeder.start()
        assert _status("score", "bundle", str(tmp_path / "pipe"), "--out", str(tmp_path / "other")) == 0
        feeder.join()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        assert _status("score", "bundle", "-", "--out", str(tmp_path / "scored")) == 1
    finally:
        os.dup2(kept, 0)
    assert seen == ["id,text\n1,good\n", "id,text\n2,bad\n"]
    assert len([*tmp_path.glob("scored.work/input-*")]) == 1
    assert capsys.readouterr().err == "sentray: the piped input is empty: pipe reviews in, or name a file\n"


def test_arguments_and_output_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "é.csv").write_text("id,crème\n1,good\n")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(JOBS.parent)}
    command = [sys.executable, "-m", "sentray", "check", "é.csv"]
    done = subprocess.run([*map(os.fsencode, command)], cwd=tmp_path, env=plain, capture_output=True)
    assert done.returncode == 1
    assert "é.csv has no column 'text' (it has: id, crème)" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "c", "--out", "o", "--epochs", "0"), "sentray: --epochs is '0': input should be greater"),
        (("train", "c"), "sentray: --out must be given"),
        (("train", "c", "--out", "o", "--config", "nowhere.toml"), "nowhere.toml cannot be read"),
        (("train", "--epoch", "3"), "No such option: --epoch"),
        (("trian",), "No such command 'trian'"),
    ],
)
def test_wrong_usage_ends_with_status_2(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _status(*arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "problem", "status"), [("--no-strict", "x", 0), ("--strict", "x", 1), ("--strict", None, 0)]
)
def test_check_ends_as_training_would(
    option: str, problem: str | None, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    found = Report("synthetic:9", Inspection(), problem=problem)
    monkeypatch.setattr(sentray.corpus.check, "check", lambda *_: found)
    assert _status("check", "synthetic:9", "--json", str(tmp_path / "report.json"), option) == status
    seen = capsys.readouterr()
    assert seen.out.splitlines()[-1] == found.lines()[-1]
    assert seen.err.startswith("sentray: synthetic:9 cannot be trained on (--strict)") == (status == 1)
    assert json.loads((tmp_path / "report.json").read_text())["problem"] == problem
