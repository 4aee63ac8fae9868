"""What a scoring job writes and counts by task, and what it refuses before it begins."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import bundle
from sentray.bundle import Bundle
from sentray.config import ScoreSettings
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
from sentray.errors import SentrayError
from sentray.inference.heaviest import WORDS_TYPE
from sentray.inference.scorer import LABELS_TYPE, SCORES_TYPE, Scorer
from sentray.scoring import by, drift
from sentray.scoring.columns import output_schema, require_task
from sentray.scoring.worker import Job, ShardScorer
from sentray.scoring.worker import Task as ShardTask
from sentray.task import Task

BundleOf = Callable[[Task], Bundle]
FLOAT = pa.float32()
COLUMNS: dict[Task, dict[str, pa.DataType]] = {
    "multilabel": {
        "labels": LABELS_TYPE,
        "scores": SCORES_TYPE,
        **dict.fromkeys(("score_comedy", "score_drama", "score_war"), FLOAT),
    },
    "ordinal": {
        "label": pa.string(),
        "score": FLOAT,
        "expected": FLOAT,
        **dict.fromkeys(("score_1", "score_2", "score_4"), FLOAT),
    },
    "regression": {"value": FLOAT},
}


@pytest.mark.parametrize("asked", COLUMNS)
def test_a_worker_writes_and_counts_what_each_row_got(
    bundle_of: BundleOf, reviews: Path, out: Path, asked: Task
) -> None:
    span = {"lengths": [0] * 25, "known": [0] * 7, "words": None, "scores": None, "labels": None, "rows": 1}
    reference = (
        {"reference": {**span, "scored_rows": 0, "of": {}, "span": (-0.5, 0.5)}} if asked == "regression" else {}
    )
    model = bundle.update(bundle_of(asked), metrics=reference)
    every = asked != "regression"
    settings = ScoreSettings(
        bundle="", input=str(reviews), out=str(out), keep=("text",), explain=2, scores="all" if every else "best"
    )
    source = resolve(str(reviews))
    schema = output_schema(model.labels, pa.schema([("text", pa.string())]), model.digest, every, True, asked)
    (task,) = (ShardTask(shard) for shard in plan_shards(source, 1_000_000))
    job = Job(source, settings, schema, "folded", model.digest, {"text": "text"})
    attempt = ShardScorer(job, model.scoring_files).score(task)
    found, counts = pq.read_table(out / attempt.names[0]), attempt.record.counts
    own = {"words": pa.int32(), "known_words": pa.int32(), "explained": WORDS_TYPE, "text": pa.string()}
    assert {field.name: field.type for field in found.schema} == {"id": pa.string(), **COLUMNS[asked], **own}
    scores = Scorer(model).score(found["text"])
    for name, values in scores.answers(model.labels).items():
        assert found[name].combine_chunks().equals(values)
    assert counts.scored == len(found)
    if asked == "regression":
        assert (counts.labels, counts.by) == ({}, {})
        clipped = np.clip(found["value"].to_numpy(), -0.5, 0.5)
        assert counts.histogram == np.histogram(clipped, 20, (-0.5, 0.5))[0].tolist()
        return
    assert sum(counts.histogram) == len(found)
    if asked == "ordinal":
        wanted = Counter(found["label"].to_pylist())
    else:
        given = found["labels"].to_pylist()
        wanted = Counter(label for row in given for label in row) + Counter({"": given.count([])})
        assert wanted[""] > 0
        assert drift.labelled(counts.labels, counts.scored, model.labels)[-1] == wanted[""]
    assert counts.labels == wanted
    assert by.regrouped(counts.by, lambda _: "all") == {"all": wanted}


def test_several_labels_count_once_each_over_days() -> None:
    decided = np.array([[True, False], [True, True], [False, False]])
    found = by.count(pa.chunked_array([["a", "b", "b"]]), decided, ("x", "y"))
    assert found == {"a": {"x": 1}, "b": {"x": 1, "y": 1, "": 1}}


@pytest.mark.usefixtures("ray_session", "a_shard_a_file")
def test_a_job_of_several_labels_is_proved(
    bundle_of: BundleOf, score: Callable[..., dict[str, Any]], reviews: Path, out: Path, proved: Any
) -> None:
    model = bundle_of("multilabel")
    summary = score(bundle=model.path, rows_per_file=200, by="rating", keep=("rating",), partition_by="rating")
    found = proved(out, reviews)
    given = found["labels"].to_pylist()
    wanted = Counter(label for row in given for label in row) + Counter({"": given.count([])})
    assert summary["labels"] == wanted
    assert [len(row) for row in given] == [len(row) for row in found["scores"].to_pylist()]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "without a label" in page
    assert "Labels given by value and label" in page
    assert "unsure" not in page


@pytest.mark.parametrize(
    ("asked", "changes", "wanted"),
    [
        (
            "multilabel",
            {"partition_by": "label"},
            "--partition-by label: b gives several labels a review; name a column",
        ),
        ("regression", {"partition_by": "label"}, "--partition-by label: b gives a number and no label; name a column"),
        (
            "regression",
            {"scores": "all"},
            "--scores all is about labels, and b gives a number and no label: leave it out",
        ),
        ("regression", {"by": "day"}, "--by day is about labels, and b gives a number and no label: leave it out"),
    ],
)
def test_what_a_task_has_no_column_for_is_refused(asked: Task, changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(SentrayError, match=re.escape(wanted)):
        require_task(ScoreSettings(bundle="b", input="i", out="o", **changes), asked)
    require_task(ScoreSettings(bundle="b", input="i", out="o", **changes), "classification")
    require_task(ScoreSettings(bundle="b", input="i", out="o", **changes), "ordinal")
