"""A search from the corpus to the bundle: with Ray Tune, and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray.config import TuneSettings
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.training.training_set import TrainingSet
from sentray.training.worker import Job, Replica
from sentray.tuning import tune as tuning
from sentray.tuning.trial import reports
from sentray.tuning.tune import tune

LABELLED = {"pos": "a great and moving film", "neg": "an awful and boring film"}


def _corpus(folder: Path) -> Path:
    """80 training rows, of which some are hard, and 20 test rows with the wrong label."""
    chance = np.random.default_rng(0)
    rows = ["text,label,split"]
    for number in range(50):
        for label, other in (("pos", "neg"), ("neg", "pos")):
            words = LABELLED[label if number >= 40 or chance.random() < 0.8 else other]
            split = "train" if number < 40 else "test"
            rows.append(f"{words} {number},{label if number < 40 else other},{split}")
    (folder / "reviews.csv").write_text("\n".join(rows) + "\n")
    return folder / "reviews.csv"


class StoppedError(Exception):
    pass


@pytest.mark.usefixtures("ray_session")
def test_the_best_of_the_trials_is_trained_and_the_same_command_finds_it(
    tmp_path: Path, console: Any, in_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process()
    (tmp_path / "space.toml").write_text("batch_size = [8, 64]\n")
    values: dict[str, Any] = {"corpus": str(_corpus(tmp_path)), "out": str(tmp_path / "out"), "epochs": 3, "trials": 2}
    values |= {"model": "wide", "space": str(tmp_path / "space.toml"), "report": False, "at_once": 1}
    values["threshold"] = "0.7"

    def stop(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_refit", stop)
        with pytest.raises(StoppedError):
            tune(TuneSettings(**values), console)
    work = tmp_path / "out.work" / "tune"
    assert sorted(path.name for path in (work / "trials").iterdir()) == ["0001.json", "0002.json"]
    first = json.loads((work / "trials" / "0001.json").read_bytes())

    # Each row is held out once, by the first fit after each epoch; and no test row is among them.
    assert [report["resource"] for report in first["reports"]] == [1, 2, 3, 6, 9, 12, 15]
    assert (first["status"], first["rows"], first["folds"], first["epochs"]) == ("ended", 80, 5, 15)
    (prepared,) = work.glob("prepared-*")
    assert len(TrainingSet.load(str(prepared))) == 80

    # It goes on, with the last training.
    figures = tune(TuneSettings(**values), console)
    assert any(line.endswith("2 are made") for line in console.lines)
    assert sorted(record["number"] for record in figures["trials"]) == [1, 2]
    best, own = figures["trials"][0], next(each for each in figures["trials"] if each["number"] == 1)
    assert own == first
    assert figures["best"] == best["number"]
    assert best["loss"] <= own["loss"]
    assert best["intervals"]["log_loss"][0] < best["loss"] < best["intervals"]["log_loss"][1]
    # What a trial says is what the training finds.
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert metrics == figures["metrics"]
    assert metrics["validation"]["log_loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert metrics["validation"]["accuracy"] == best["accuracy"]
    assert metrics["validation"]["intervals"]["accuracy"] == best["intervals"]["accuracy"]
    assert metrics["test"]["rows"] == 20
    assert "settings among 2 trials" in metrics["figures"]["validation"]
    chosen = json.loads((tmp_path / "out" / "settings.json").read_bytes())
    assert best["settings"].items() <= chosen.items()
    assert json.loads((tmp_path / "out" / "trials.json").read_bytes())["trials"] == figures["trials"]
    assert not work.exists()

    # Done is done, and another command is refused.
    assert tune(TuneSettings(**values), console)["metrics"] == metrics
    with pytest.raises(SentrayError, match="holds another bundle; choose another --out, or remove it to tune anew"):
        tune(TuneSettings(**values | {"seed": 1}), console)
    with pytest.raises(SentrayError, match="holds the best of 2 trials; choose another --out for more, or remove it"):
        tune(TuneSettings(**values | {"trials": 4}), console)


def test_a_network_that_does_not_learn_is_no_trial(
    tmp_path: Path, console: Any, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentray import models
    from sentray.training.prepare import prepare

    settings = TuneSettings(corpus=str(_corpus(tmp_path)), out="out", model="wide", epochs=2, max_restarts=1)
    prepare(settings, models.architecture("wide"), str(tmp_path / "set"), console)
    seeds: list[int] = []
    epoch = Replica.epoch

    def dead(self: Replica, *arguments: Any) -> dict[str, Any]:
        seeds.append(self._seed)
        return epoch(self, *arguments) | {"dead": True}

    monkeypatch.setattr(Replica, "epoch", dead)
    with pytest.raises(SentrayError, match="did not start to learn with 2 seeds"):
        next(reports(Job(settings, str(tmp_path / "set"))))
    assert seeds == [0, 1]


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sentray", "tune", str(_corpus(tmp_path)), "--out", str(tmp_path / "out")]
    command += ["--model", "wide", "--epochs", "3", "--trials", "6", "--at-once", "1", "--no-report"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    trials = tmp_path / "out.work" / "tune" / "trials"
    until = time.monotonic() + 180
    while not (trials / "0002.json").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.read_bytes() for path in trials.iterdir()}
    assert 2 <= len(before) < 6

    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, timeout=180)
    assert "holds a run that was started with --seed 0, not 1; use that setting to go on" in other.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} are made" in done.stdout
    figures = json.loads((tmp_path / "out" / "trials.json").read_bytes())
    assert sorted(record["number"] for record in figures["trials"]) == [1, 2, 3, 4, 5, 6]
    for name, content in before.items():
        record = json.loads(content)
        assert record in figures["trials"], name
    assert Folder(str(tmp_path / "out.work")).names() == []
