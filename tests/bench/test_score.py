"""`sentray bench score`: a small run of the real thing, its figures and what it prints."""

import operator
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import cluster
from sentray.bench import reviews, score
from sentray.bench.baselines import BASELINES
from sentray.bench.settings import BenchScoreSettings
from sentray.bundle import Bundle
from sentray.config import ScoreSettings, TrainSettings
from sentray.console import Console


@pytest.fixture(autouse=True)
def small_corpus(labelled: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "corpus", lambda: "a small corpus")
    monkeypatch.setattr(reviews, "labelled", lambda uri: labelled)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_measures_and_prints(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt = "scikit-learn: TF-IDF, logistic regression"
    monkeypatch.setattr(score, "BASELINES", {"broken": operator.neg, learnt: BASELINES[learnt]})
    settings = BenchScoreSettings(rows=1000, sentences=2000, bundle=str(small_bundle.path))
    figures = score.bench_score(settings, Console())
    for kind, rows in (("reviews", 1000), ("sentences", 2000)):
        one, two = figures[f"{kind}: whole job through Ray"].values()
        assert one["rows"] == two["rows"] == rows
        assert two["ratio"] == two["rows_per_s"] / one["rows_per_s"]
        title = next(title for title in figures if title.startswith(f"{kind} of "))
        sklearn, predicted, _, job = figures[title].values()
        assert list(figures[title]) == [
            learnt,
            "sentray, the bundle: predict",
            "sentray, the bundle: predict, 5 words explained",
            "sentray, the bundle: whole job, Parquet to Parquet",
        ]
        assert (sklearn["accuracy"], sklearn["ratio"]) == (1.0, 1.0)
        assert predicted["accuracy"] < 1
        assert job == {"rows_per_s": one["rows_per_s"], "ratio": one["rows_per_s"] / sklearn["rows_per_s"]}
    shown = capsys.readouterr().out
    for words in (
        "2 workers on as many cores",
        "scikit-learn",
        "sentray[bench]",
        "failed: TypeError",
        "accuracy: on the 20 test rows of a small corpus",
    ):
        assert words in shown


def test_given_reviews_trained_networks_and_the_memory_curve(
    small_bundle: Bundle, labelled: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What costs time is pretended here: the training and the jobs."""
    trained: list[tuple[str, float]] = []
    scored: list[tuple[str, int, int]] = []

    def copied(settings: TrainSettings, console: Console) -> None:
        assert pq.read_table(settings.corpus).equals(labelled)
        trained.append((settings.model, settings.validation_fraction))
        shutil.copytree(small_bundle.path, settings.out)

    def pretend(settings: ScoreSettings, console: Console) -> dict[str, Any]:
        rows = pq.read_table(settings.input).num_rows
        scored.append((Path(settings.bundle).name, rows, settings.workers))
        Path(settings.out).mkdir()
        return {"rows": rows, "rows_per_s": 10.0 * settings.workers, "start_workers_seconds": 1, "peak_rss_mb": rows}

    monkeypatch.setattr(score, "BASELINES", {})
    monkeypatch.setattr(score, "sentray", operator.neg)
    monkeypatch.setattr(score, "train", copied)
    monkeypatch.setattr(score, "score", pretend)
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: nullcontext())
    pq.write_table(labelled.select(["text"]), tmp_path / "given.parquet")
    settings = BenchScoreSettings(reviews=str(tmp_path / "given.parquet"), memory_rows=300)
    figures = score.bench_score(settings, Console())
    # The tutorial's network is trained on all training rows.
    assert [(name, fraction > 0) for name, fraction in trained] == [("tutorial-cnn", False), ("wide-deep", True)]
    assert scored == [
        *((name, 120, workers) for name, _ in trained for workers in (1, 2)),
        *(("wide-deep", rows, 2) for rows in (3, 30, 300)),
    ]
    jobs = figures["reviews: whole job through Ray"]
    assert [(job["ratio"], job["peak_rss_mb"]) for job in jobs.values()] == [(1, 120), (2, 120)] * 2
    assert [row["peak_rss_mb"] for row in figures["memory of 2 workers"].values()] == [3, 30, 300]
    size = sum(len(text) for text in labelled["text"].to_pylist()) / labelled.num_rows / 1000
    assert figures["kb_per_row"] == {"reviews": pytest.approx(size, rel=0.01)}
