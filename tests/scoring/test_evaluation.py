"""Evaluation sums over blocks to what one pass over all rows gives; `score` and `predict` agree with it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray import evaluation
from sentray.bundle import Bundle
from sentray.config import EvaluateSettings, ScoreSettings
from sentray.errors import SentrayError
from sentray.inference.predict import predict_texts
from sentray.inference.scorer import Scorer, Scores
from sentray.metrics import metrics
from sentray.scoring import job

Evaluate = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(autouse=True)
def a_shard_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)


def with_score(monkeypatch: pytest.MonkeyPatch, score: Callable[[pa.ChunkedArray], Scores]) -> None:
    """Lets a function score instead of a bundle, which would have to be loaded."""

    class Light(evaluation.PackedScorer):
        def scorer(self) -> Any:
            return SimpleNamespace(
                bundle=SimpleNamespace(labels=("neg", "pos"), spec=SimpleNamespace(task="classification", columns=())),
                score=score,
            )

    monkeypatch.setattr(evaluation, "PackedScorer", Light)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(texts: pa.ChunkedArray, numbers: None = None) -> Scores:
        nothing = np.zeros(len(texts), np.int32)
        return Scores(np.full((len(texts), 2), 0.5, np.float32), nothing, nothing)

    with_score(monkeypatch, half)


@pytest.fixture
def evaluate(small_bundle: Bundle, reviews: Path, console) -> Evaluate:
    def run(**changes: Any) -> dict[str, Any]:
        values = {"bundle": str(small_bundle.path), "corpus": str(reviews), "max_bad_rows": 0.05} | changes
        return evaluation.evaluate(EvaluateSettings(**values), console)

    return run


def test_predict_score_and_evaluate_agree(
    evaluate: Evaluate, small_bundle: Bundle, reviews: Path, tmp_path: Path, console
) -> None:
    found = evaluate(split="all", workers=2)

    out = tmp_path / "out"
    asked = {"bundle": str(small_bundle.path), "input": str(reviews), "out": str(out), "max_bad_rows": 0.05}
    job.score(ScoreSettings(**asked, workers=2), console)
    written = ds.dataset(out / "scores").to_table().to_pydict()

    scorer = Scorer(small_bundle)
    rows = {row["id"]: row for row in pq.read_table(reviews).to_pylist()}
    texts = [rows[id_]["text"] for id_ in written["id"]]
    predictions = [predict_texts(scorer, [text])[0] for text in texts]
    assert [prediction.label for prediction in predictions] == written["label"]
    assert [prediction.score for prediction in predictions] == written["score"]

    truth = np.array([small_bundle.labels.index(rows[id_]["label"]) for id_ in written["id"]])
    positive = np.array(written["positive"], np.float32)
    wanted = metrics(truth, np.stack([1 - positive, positive], axis=1), small_bundle.labels)
    assert found["rows"] == 300
    assert found["quarantined_rows"] == 4
    assert found["quarantined"] == {"null_text": 2, "empty_text": 2}
    # Floating-point sums depend on the order only in the last digits; counts and ranks not at all.
    assert found["log_loss"] == pytest.approx(wanted.pop("log_loss"), rel=1e-12)
    assert {name: found[name] for name in wanted} == wanted
    assert found["bundle"] == small_bundle.digest


@pytest.fixture
def uneven(tmp_path: Path, make_reviews) -> Path:
    """Rows of both splits, with a label the bundle does not know, without a label, with an id seen before."""
    texts = make_reviews(10)
    table = pa.table(
        {
            "id": ["a", "b", "c", "d", "e", "f", "g", "h", "a", "j"],
            "text": texts,
            "label": ["neg", "pos", "neg", "pos", "neg", "odd", None, "pos", "neg", "neg"],
            "split": ["train"] * 3 + ["test"] * 7,
        }
    )
    pq.write_table(table, tmp_path / "uneven.parquet")
    return tmp_path / "uneven.parquet"


@pytest.mark.usefixtures("light")
def test_uses_the_test_rows_and_sets_bad_ones_aside(evaluate: Evaluate, uneven: Path) -> None:
    found = evaluate(corpus=str(uneven), max_bad_rows=0.5)
    assert (found["split"], found["rows"], found["confusion_matrix"]) == ("test", 4, [[2, 0], [2, 0]])
    assert found["quarantined"] == {"unknown_label": 1, "missing_label": 1, "duplicate_id": 1}
    assert [found["classes"][label]["rows"] for label in ("neg", "pos")] == [2, 2]
    with pytest.raises(SentrayError, match="3 of 10 rows"):
        evaluate(corpus=str(uneven))


@pytest.mark.usefixtures("light")
def test_uses_all_rows_where_none_are_for_testing(evaluate: Evaluate) -> None:
    found = evaluate()
    assert (found["split"], found["rows"], found["of"]) == ("all", 300, 304)
    with pytest.raises(SentrayError, match="no labelled review of --split validation"):
        evaluate(split="validation")


@pytest.mark.slow
def test_a_row_that_kills_whoever_scores_it_is_one_sentence(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(texts: pa.ChunkedArray, numbers: None = None) -> Scores:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with_score(monkeypatch, die)
    with pytest.raises(SentrayError, match=r"^the processes that worked on one shard died, 4 of them .* --shard-size$"):
        evaluate(split="all")
