"""Folds of a corpus: trained, tested, gone on with, and put together."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from sentray.config import CrossvalidateSettings, TrainSettings
from sentray.errors import SentrayError
from sentray.tables import METRICS
from sentray.training import crossvalidation
from sentray.training.crossvalidation import crossvalidate, pooled, summary, table, train_each


def test_a_mean_has_the_interval_of_students_t() -> None:
    folds = [
        {"fold": str(number), "rows": 10} | dict.fromkeys(METRICS, value) | {"roc_auc": None}
        for number, value in enumerate((0.8, 0.9, 0.85))
    ]
    figures = summary(folds)
    assert figures["rows"] == 30
    assert figures["mean"]["accuracy"] == pytest.approx(0.85)
    # 4.303 standard errors, with two degrees of freedom.
    low, high = figures["intervals"]["accuracy"]
    assert (low, high) == pytest.approx((0.85 - 4.303 * 0.05 / 3**0.5, 0.85 + 4.303 * 0.05 / 3**0.5), abs=1e-3)
    assert "roc_auc" not in figures["mean"]
    header, rows = table(figures | {"folds": folds})
    assert header[:3] == ["fold", "rows", "accuracy"]
    assert [row[0] for row in rows] == ["0", "1", "2", "mean", "95 % from", "to"]


def test_rows_are_pooled_by_the_names_of_their_labels() -> None:
    folds = [
        {"labels": ["b", "c"], "confusion_matrix": [[3, 1], [0, 2]]},
        {"labels": ["a", "b", "c"], "confusion_matrix": [[1, 0, 0], [0, 1, 0], [0, 2, 0]]},
    ]
    matrix = [[1, 0, 0], [0, 4, 1], [0, 2, 2]]
    assert pooled(folds) == {"accuracy": 0.7, "labels": ["a", "b", "c"], "confusion_matrix": matrix}


class StoppedError(Exception):
    pass


@pytest.mark.usefixtures("ray_session")
def test_folds_of_a_column_are_trained_and_tested_and_go_on(
    tmp_path: Path, console: Any, in_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process()
    made: list[str] = []

    def here(jobs: Any, at_once: int | None, console: Any) -> dict[str, Any]:
        found = {}
        for name, job in jobs.items():
            made.append(job.test_fold)
            found[name] = crossvalidation._train(name, job)
            if len(made) == 1:
                raise StoppedError
        return found

    monkeypatch.setattr(crossvalidation, "train_each", here)
    words = {"pos": "a great and moving film", "neg": "an awful and boring film"}
    lines = [f"{words[label]} {number},{label},{number % 2 * 7}" for number in range(60) for label in words]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label,part", *lines]) + "\n")
    out = tmp_path / "out"
    values: dict[str, Any] = {"corpus": str(tmp_path / "reviews.csv"), "out": str(out), "epochs": 2}
    values |= {"fold_column": "part", "validation_fraction": 0, "model": "embedding-average", "learning_rate": 0.1}
    with pytest.raises(StoppedError):
        crossvalidate(CrossvalidateSettings(**values), console)
    figures = crossvalidate(CrossvalidateSettings(**values), console)
    assert made == ["0", "0", "7"]
    assert "folds: 2 of 60 to 60 rows, by the column part" in console.lines
    assert (out / "fold-1.log").read_text(encoding="utf-8").count("nothing to do") == 1
    assert [(fold["fold"], fold["rows"]) for fold in figures["folds"]] == [("0", 60), ("7", 60)]
    assert figures["mean"]["accuracy"] == figures["pooled"]["accuracy"] > 0.9
    assert json.loads((out / "crossvalidation.json").read_text(encoding="utf-8")) == figures
    assert json.loads((out / "fold-2" / "metrics.json").read_text(encoding="utf-8"))["train_rows"] == 60

    # What cannot be dealt is said before anything is trained.
    for wrong, message in (
        ({"fold_column": "other"}, "--fold-column other has 0 values in .*, and two folds are the least"),
        ({"fold_column": None, "group_column": "part", "folds": 9}, r"fold \S+ of .* has no row: take fewer --folds"),
    ):
        with pytest.raises(SentrayError, match=message):
            crossvalidate(CrossvalidateSettings(**values | wrong), console)
    assert len(made) == 3


@pytest.mark.usefixtures("ray_session")
def test_trainings_are_tasks_and_what_is_wrong_with_one_is_named(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "folds")
    monkeypatch.setenv("MLFLOW_RUN_ID", "one")

    def work(wrong: int, name: str, settings: TrainSettings, board: Any) -> dict[str, Any]:
        if settings.seed == wrong:
            raise SentrayError("no words; give some")
        # Ray was started without them, and each fold has a run of its own.
        assert {name for name in os.environ if name.startswith("MLFLOW_")} == {"MLFLOW_EXPERIMENT_NAME"}
        ray.get(board.put.remote("progress", f"{name} trains"))
        return {"test": {"accuracy": settings.seed / 10, "rows": 10}}

    def jobs(*seeds: int) -> dict[str, TrainSettings]:
        return {f"fold {seed}": TrainSettings(corpus="c", out=f"o{seed}", seed=seed) for seed in seeds}

    found = train_each(jobs(3, 1, 2), 2, console, partial(work, 9))
    assert [(name, metrics["test"]["accuracy"]) for name, metrics in found.items()] == [
        ("fold 3", 0.3),
        ("fold 1", 0.1),
        ("fold 2", 0.2),
    ]
    assert console.lines[0] == "3 trainings, 2 at the same time"
    assert {line for line, _ in console.shown} == {f"fold {seed} trains" for seed in (1, 2, 3)}
    with pytest.raises(SentrayError, match=r"^fold 9: no words; give some$"):
        train_each(jobs(1, 9), 1, console, partial(work, 9))


def test_warnings_of_a_training_are_lines_of_all() -> None:
    said: list[Any] = []
    board = SimpleNamespace(put=SimpleNamespace(remote=lambda *message: said.append(message)))
    relay = crossvalidation._Relay("fold 1", "s3://bucket/fold-1", board)
    relay.say("reading")
    relay.note("warning: nothing is tracked")
    line = "fold 1: warning: nothing is tracked"
    assert said == [("progress", "fold 1: reading"), ("line", line), ("progress", line)]


def test_rows_without_one_label_are_pooled_by_their_number() -> None:
    folds = [{"rows": rows, "exact_match": share, "f1": 0.5, "intervals": {}} for rows, share in ((10, 0.5), (30, 0.9))]
    assert pooled(folds) == {"exact_match": pytest.approx(0.8)}
    found = summary(folds)
    assert found["mean"] == {"exact_match": pytest.approx(0.7), "f1": 0.5}
    assert pooled([{"rows": 5, "mean_absolute_error": 2.0, "r2": 0.1}]) == {"mean_absolute_error": 2.0}
