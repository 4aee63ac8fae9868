"""`sentray bench score`: a small run of the real thing, its figures and what it prints."""

import shutil
from collections import namedtuple
from contextlib import nullcontext
from dataclasses import replace
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
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer

PROMISED = {
    "rows_per_s_per_core",
    "encode_mb_per_s",
    "ratio_to_tutorial",
    "ratio_to_sklearn",
    "ratio_to_fasttext",
    "ratio_to_vowpal_wabbit",
    "speedup_2_workers",
    "peak_rss_mb",
}


@pytest.fixture(autouse=True)
def small_corpus(labelled: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "corpus", lambda: "a small corpus")
    monkeypatch.setattr(reviews, "labelled", lambda uri: labelled)


@pytest.mark.usefixtures("ray_session")
def test_measures_and_prints(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_one = [each if each.key == "sklearn" else replace(each, module="no_such_module") for each in BASELINES]
    monkeypatch.setattr(score, "BASELINES", only_one)
    settings = BenchScoreSettings(rows=1000, bundle=str(small_bundle.path))
    figures = score.bench_score(settings, Console())
    assert figures.keys() >= PROMISED
    assert [key for key in sorted(PROMISED) if figures[key] is None] == [
        "ratio_to_fasttext",
        "ratio_to_tutorial",
        "ratio_to_vowpal_wabbit",
    ]
    assert figures["rows"] == 1000
    assert figures["ratio_to_sklearn"] == figures["rows_per_s_per_core"] / figures["rows_per_s_sklearn"]
    assert figures["accuracy_sklearn"] == 1.0
    assert figures["memory"] == []
    shown = capsys.readouterr().out
    for words in ("network", "2 workers on as many cores", "scikit-learn", "sentray[bench]", "a small corpus"):
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

    monkeypatch.setattr(score, "BASELINES", ())
    monkeypatch.setattr(score, "train", copied)
    monkeypatch.setattr(score, "score", pretend)
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: nullcontext())
    pq.write_table(labelled.select(["text"]), tmp_path / "given.parquet")
    settings = BenchScoreSettings(reviews=str(tmp_path / "given.parquet"), memory_rows=300)
    figures = score.bench_score(settings, Console())
    assert scored == [(120, 1), (120, 2), (3, 2), (30, 2), (300, 2)]
    assert figures["memory"] == [{"rows": rows, "rows_per_s": 20.0, "peak_rss_mb": rows} for rows in (3, 30, 300)]
    assert figures["speedup_2_workers"] == 2
    size = sum(len(text) for text in labelled["text"].to_pylist()) / labelled.num_rows / 1000
    assert figures["kb_per_row"] == pytest.approx(size)


def test_counts_good_rows_and_times_all_stages(
    labelled: pa.Table, labelled_file: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    texts = [*labelled["text"].to_pylist(), None, "naïve"]
    for name in ("one", "two"):
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{name}.parquet")
    found = score.stages(str(small_bundle.path), str(tmp_path), 200, labelled_file)
    assert found["rows"] == 242
    assert found["bytes"] == 2 * sum(len(text.encode()) for text in texts if text)
    assert set(found["seconds"]) == set(score.STAGES)
    assert min(found["seconds"].values()) > 0
    test = labelled.slice(100)
    classes = Scorer(small_bundle).score(test["text"]).classes
    right = [small_bundle.labels[index] for index in classes] == test["label"].to_numpy()
    assert found["accuracy"] == pytest.approx(right.mean())


def test_a_disk_that_is_too_small_is_reported_before_it_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage: Any = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free=10**9))
    with pytest.raises(SentrayError, match=r"1,000,000 reviews take some 2 GB .* has 1 GB left; set TMPDIR"):
        score.bench_score(BenchScoreSettings(rows=1_000_000), Console())
