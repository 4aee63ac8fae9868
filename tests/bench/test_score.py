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
    _, learnt, _, ours = BASELINES
    some = {"broken": operator.neg, learnt: BASELINES[learnt], ours: BASELINES[ours]}
    monkeypatch.setattr(score, "BASELINES", some)
    figures = score.bench_score(BenchScoreSettings(rows=1000, bundle=str(small_bundle.path)), Console())
    one, two = figures["whole job, Parquet to Parquet through Ray"].values()
    assert one["rows"] == two["rows"] == 1000
    assert two["ratio"] == two["rows_per_s"] / one["rows_per_s"]
    same_texts = figures["the same texts, one core"]
    sklearn, predicted, job = same_texts.values()
    assert list(same_texts) == [learnt, ours, score.OURS]
    assert (sklearn["accuracy"], sklearn["ratio"]) == (1.0, 1.0)
    assert predicted["accuracy"] < 1
    assert job == {"rows_per_s": one["rows_per_s"], "ratio": one["rows_per_s"] / sklearn["rows_per_s"]}
    shown = capsys.readouterr().out
    for words in (
        "2 workers on as many cores",
        "scikit-learn",
        "sentray[bench]",
        "failed: TypeError",
        "a small corpus",
    ):
        assert words in shown


def test_given_reviews_a_trained_model_and_the_memory_curve(
    small_bundle: Bundle, labelled: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What costs time is pretended here: the training and the jobs."""
    scored: list[tuple[int, int]] = []

    def copied(settings: TrainSettings, console: Console) -> None:
        assert pq.read_table(settings.corpus).equals(labelled)
        shutil.copytree(small_bundle.path, settings.out)

    def pretend(settings: ScoreSettings, console: Console) -> dict[str, Any]:
        rows = pq.read_table(settings.input).num_rows
        scored.append((rows, settings.workers))
        Path(settings.out).mkdir()
        return {"rows": rows, "rows_per_s": 10.0 * settings.workers, "start_workers_seconds": 1, "peak_rss_mb": rows}

    monkeypatch.setattr(score, "BASELINES", {})
    monkeypatch.setattr(score, "train", copied)
    monkeypatch.setattr(score, "score", pretend)
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: nullcontext())
    pq.write_table(labelled.select(["text"]), tmp_path / "given.parquet")
    settings = BenchScoreSettings(reviews=str(tmp_path / "given.parquet"), memory_rows=300)
    figures = score.bench_score(settings, Console())
    assert scored == [(120, 1), (120, 2), (3, 2), (30, 2), (300, 2)]
    jobs = figures["whole job, Parquet to Parquet through Ray"]
    assert [(job["ratio"], job["peak_rss_mb"]) for job in jobs.values()] == [
        (1, 120),
        (2, 120),
        (2, 3),
        (2, 30),
        (2, 300),
    ]
    size = sum(len(text) for text in labelled["text"].to_pylist()) / labelled.num_rows / 1000
    assert figures["kb_per_row"] == pytest.approx(size, rel=0.3)
