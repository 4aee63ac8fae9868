"""Evaluation sums over shards to what one pass over all rows gives; `score` and `predict` agree with it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from sentray.scoring.reading import ShardReader

from sentray import evaluation
from sentray.bundle import Bundle
from sentray.config import EvaluateSettings, ScoreSettings
from sentray.corpus.source import Source
from sentray.errors import SentrayError
from sentray.inference.predict import predict_texts
from sentray.inference.scorer import Scorer, Scores
from sentray.metrics import Tally
from sentray.scoring import job

Evaluate = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(autouse=True)
def a_shard_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors without TensorFlow, which start in a tenth of the time."""

    class LightScorer:
        bundle = SimpleNamespace(labels=("neg", "pos"))

        def score(self, texts: pa.ChunkedArray) -> Scores:
            half = np.full((len(texts), 2), 0.5, np.float32)
            return Scores(half, np.zeros(len(texts), np.int32), np.zeros(len(texts), np.int32))

    class LightEvaluator(evaluation.ShardEvaluator):
        def __init__(self, source: Source, settings: EvaluateSettings, files: dict[str, bytes]) -> None:
            ShardReader.__init__(self, source, settings)
            self._scorer = LightScorer()

    monkeypatch.setattr(evaluation, "ShardEvaluator", LightEvaluator)


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
    wanted = Tally.of(truth, np.stack([1 - positive, positive], axis=1)).metrics(small_bundle.labels)
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
    assert (found["split"], found["rows"]) == ("test", 4)
    assert found["quarantined"] == {"unknown_label": 1, "missing_label": 1, "duplicate_id": 1}
    assert [found["classes"][label]["rows"] for label in ("neg", "pos")] == [2, 2]
    with pytest.raises(SentrayError, match="3 of 10 rows"):
        evaluate(corpus=str(uneven))


@pytest.mark.usefixtures("light")
def test_uses_all_rows_where_none_are_for_testing(evaluate: Evaluate) -> None:
    found = evaluate(test_fraction=0)
    assert (found["split"], found["rows"]) == ("all", 300)
    with pytest.raises(SentrayError, match="no labelled review whose split is test"):
        evaluate(test_fraction=0, split="test")
