"""Folds: each is trained as ever, what is finished is not made again, and the figures are means with intervals."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sentray.config import CrossvalidateSettings
from sentray.errors import SentrayError
from sentray.tables import METRICS
from sentray.training import crossvalidation
from sentray.training.crossvalidation import crossvalidate, summary, table


def test_a_mean_has_the_interval_of_students_t() -> None:
    folds = [
        {"fold": str(number), "rows": 10, "metrics": dict.fromkeys(METRICS, value) | {"roc_auc": None}}
        for number, value in enumerate((0.8, 0.9, 0.85))
    ]
    figures = summary(folds)
    assert figures["rows"] == 30
    assert figures["mean"]["accuracy"] == pytest.approx(0.85)
    # 4.303 standard errors, with two degrees of freedom.
    low, high = figures["intervals"]["accuracy"]
    assert (low, high) == pytest.approx((0.85 - 4.303 * 0.05 / 3**0.5, 0.85 + 4.303 * 0.05 / 3**0.5), abs=1e-3)
    assert "roc_auc" not in figures["mean"]
    header, rows = table(figures)
    assert header[:3] == ["fold", "rows", "accuracy"]
    assert [row[0] for row in rows] == ["0", "1", "2", "mean", "95 % from", "to"]


@pytest.mark.usefixtures("ray_session")
def test_folds_of_a_column_are_trained_and_tested_and_go_on(
    tmp_path: Path, console: Any, in_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process()
    made: list[str] = []

    def here(jobs: Any, at_once: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, job in enumerate(jobs):
            made.append(str(job.test_fold))
            yield number, crossvalidation._train(job)
            if len(made) == stop:
                raise SentrayError("stopped")

    monkeypatch.setattr(crossvalidation, "trained", here)
    words = {"pos": "a great and moving film", "neg": "an awful and boring film"}
    lines = [f"{words[label]} {number},{label},{number % 3}" for number in range(60) for label in words]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label,part", *lines]) + "\n")
    values: dict[str, Any] = {"corpus": str(tmp_path / "reviews.csv"), "out": str(tmp_path / "out"), "epochs": 3}
    values |= {"fold_column": "part", "validation_fraction": 0, "model": "embedding-average", "learning_rate": 0.1}
    stop = 1
    with pytest.raises(SentrayError, match="stopped"):
        crossvalidate(CrossvalidateSettings(**values), console)
    stop = 9
    figures = crossvalidate(CrossvalidateSettings(**values), console)
    assert made == ["0", "0", "1", "2"]
    assert [(fold["fold"], fold["rows"]) for fold in figures["folds"]] == [("0", 40), ("1", 40), ("2", 40)]
    assert figures["mean"]["accuracy"] > 0.9
    assert json.loads((tmp_path / "out" / "crossvalidation.json").read_text()) == figures
    assert (tmp_path / "out" / "crossvalidation.md").read_text().startswith("| fold | rows | accuracy | ")
    assert json.loads((tmp_path / "out" / "fold-002" / "metrics.json").read_text())["train_rows"] == 80
    with pytest.raises(SentrayError, match="holds folds that were made with --epochs 3, not 4; use that setting"):
        crossvalidate(CrossvalidateSettings(**values | {"epochs": 4}), console)
