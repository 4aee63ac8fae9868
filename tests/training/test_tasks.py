"""Whole trainings of several labels, steps and numbers: from a table to a bundle that answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import sentray
from sentray.training.validation import CONSTANT

GENRES = ["comedy", "crime", "war"]
WORDS = {"comedy": "a joke to laugh at", "crime": "a murder and a thief", "war": "the soldiers at the front"}


def reviews(task: str) -> pa.Table:
    """Reviews whose words say which genres they are of, and how many good words they have."""
    generator = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(150):
        genres = [genre for genre in GENRES if generator.random() < 0.4]
        praise = int(generator.integers(0, 5))
        text = " ".join([*(WORDS[genre] for genre in genres), "great film " * praise, "awful " * (4 - praise)])
        label: Any = {"multilabel": genres, "ordinal": 2 * praise}.get(task, 1000 + 10.0 * praise)
        rows.append({"text": f"{text} {number}", "label": label})
    return pa.Table.from_pylist(rows)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("task", ["multilabel", "ordinal", "regression"])
def test_a_whole_training(task: Any, tmp_path: Path, in_process: Callable[[], None]) -> None:
    in_process()
    kept = {"validation_fraction": 0.2, "refit": False, "report": False, "epochs": 6}
    model = sentray.train(reviews(task), out=str(tmp_path / "bundle"), task=task, **kept)
    measured = model.metrics["validation"]
    constant = measured["baselines"][CONSTANT[task]]
    answers = model.predict if task == "regression" else model.predict_proba
    found = answers(["great film " * 4, "a murder and a thief"])
    if task == "multilabel":
        assert measured["f1"] > 0.9 > constant["f1"]
        assert (found.shape, found[1].argmax()) == ((2, 3), 1)
        assert model.metrics["label_rows"].keys() == set(GENRES)
        assert measured["thresholds"].keys() == set(GENRES)
        assert list(model.predict(["a murder and a thief", "film"])[0]) == ["crime"]
    elif task == "ordinal":
        assert measured["quadratic_kappa"] > 0.9
        assert measured["mean_absolute_error"] < constant["mean_absolute_error"] / 3
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        assert model.labels == ["0", "2", "4", "6", "8"]
    else:
        assert measured["r2"] > 0.9
        assert constant["rmse"] > 12
        assert 1025 < found[0] < 1055
        assert model.labels == []
