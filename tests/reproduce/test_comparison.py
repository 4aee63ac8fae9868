"""The comparison: its settings are valid, its intervals right, and each training gets the rows that it should."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray.bench.settings import ReproduceSettings
from sentray.config import CrossvalidateSettings, TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.reproduce import comparison
from sentray.reproduce.baselines import BASELINES, measure
from sentray.reproduce.comparison import BENCHMARKS, OURS, SYSTEMS, Result, compare, differences, table


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_settings_of_every_benchmark_are_valid(benchmark: comparison.Benchmark) -> None:
    kind = CrossvalidateSettings if benchmark.folded else TrainSettings
    for values in SYSTEMS.values():
        kind(corpus="corpus", out="out", **benchmark.settings, **values)


def test_intervals_are_over_folds_or_rows_and_differences_are_paired() -> None:
    ours, other = np.array([[0.81, 0.92, 0.88]]), np.array([[0.80, 0.90, 0.85]])
    found = {
        "folds": {OURS: Result(ours, 300), "other": Result(other, 300)},
        "rows": {OURS: Result(np.array([[0.9], [0.8]]), 400)},
    }
    # 4.303 standard errors of three folds; 1.96 of 400 rows of which 0.85 are right, the mean of two seeds.
    assert table(found) == [
        ["accuracy, %", "folds", "rows"],
        [OURS, f"87.0 ± {430.3 * np.std(ours, ddof=1) / 3**0.5:.1f}", "85.0 ± 3.5"],
        ["other", "85.0 ± 12.4", ""],
    ]
    assert differences(found) == [[f"{OURS} minus", "folds", "rows"], ["other", "+2.0 (-0.5 to +4.5)", ""]]


def test_each_system_gets_every_fold_and_every_seed_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, TrainSettings]] = []

    def train_each(jobs: dict[str, TrainSettings], at_once: Any, console: Any, work: Any) -> dict[str, Any]:
        for job in jobs.values():
            made.append((work.args[0] if work else job.model, job))
        return {name: {"test": {"accuracy": 0.8 + job.seed / 10, "rows": 10}} for name, job in jobs.items()}

    monkeypatch.setattr(comparison, "train_each", train_each)
    monkeypatch.setattr(comparison, "folds_in", lambda settings, console: {"0": 10, "1": 10, "2": 10})
    monkeypatch.setattr(comparison.cluster, "connect", lambda *_, **__: contextlib.nullcontext())
    given = {"out": str(tmp_path / "out"), "benchmarks": "data", "seeds": 2, "max_folds": 2}
    only = ("mr", "sst2", OURS, "nb-svm-bigrams")
    compare(ReproduceSettings(**given, only=only), Console())
    assert [(system, job.seed, job.test_fold) for system, job in made] == [
        *(("wide-deep", seed, fold) for seed in (0, 1) for fold in ("0", "1")),
        *(("nb-svm-bigrams", 0, fold) for fold in ("0", "1")),
        *(("wide-deep", seed, None) for seed in (0, 1)),
        ("nb-svm-bigrams", 0, None),
    ]
    assert len({job.out for _, job in made}) == len(made)
    assert {job.corpus for _, job in made} == {
        str(Path(f"data/sentences/{name}.parquet").absolute()) for name in only[:2]
    }
    written = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert written["mr"][OURS]["accuracies"] == [[0.8, 0.8], [0.9, 0.9]]
    lines = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8").splitlines()
    assert lines[:4] == [
        "| accuracy, % | mr | sst2 |",
        "| --- | --- | --- |",
        "| sentray | 85.0 ± 0.0 | 85.0 ± 22.1 |",
        "| nb-svm-bigrams | 80.0 ± 0.0 | 80.0 ± 24.8 |",
    ]
    assert "- mr: 20 rows, ten folds, shuffled; the first 2 alone" in lines
    assert "+5.0 (+5.0 to +5.0)" in capsys.readouterr().out
    with pytest.raises(SentrayError, match="no benchmark or system 'MR' for --only; the nearest is "):
        compare(ReproduceSettings(**given, only=("MR",)), Console())


@pytest.mark.parametrize("system", BASELINES)
@pytest.mark.parametrize("classes", [2, 3])
def test_baselines_learn_from_training_rows_and_are_measured_once(system: str, classes: int, tmp_path: Path) -> None:
    if not BASELINES[system].available:
        pytest.skip(f"{BASELINES[system].module} is not here")
    words = ["great <br /> film", "awful film", "a film"][:classes]
    lines = [f"{words[row % classes]} {row // classes % 7},{row % classes},{row // classes % 2}" for row in range(300)]
    file = tmp_path / "reviews.csv"
    file.write_text("\n".join(["text,label,part", *lines]) + "\n", encoding="utf-8")
    values = {"corpus": str(file), "fold_column": "part", "test_fold": "1"}
    settings = TrainSettings(out=str(tmp_path / "found"), **values)
    found = measure(system, "it", settings)
    assert found["test"] == {"accuracy": 1.0, "rows": 150}
    file.unlink()
    assert measure(system, "it", settings) == found
