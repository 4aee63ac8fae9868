"""What sentray is compared with: each learns, predicts and says why where it cannot."""

import operator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentray.bench import baselines
from sentray.bench.baselines import BASELINES, Baseline, Measured, Model, measure, train_and_predict
from sentray.bundle import Bundle
from sentray.inference.scorer import Scorer


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.key)
def test_each_learns_and_is_timed(baseline: Baseline, labelled_file: Path, small_bundle: Bundle) -> None:
    pytest.importorskip(baseline.module)
    found = train_and_predict(baseline, labelled_file, labelled_file, str(small_bundle.path))
    assert found.rows_per_s is not None
    assert found.rows_per_s > 0
    # The bundle's weights are random.
    assert found.accuracy == 1.0 or baseline.key == "tutorial"


def test_the_tutorials_path_labels_as_sentray_does(small_bundle: Bundle, labelled: pa.Table, tmp_path: Path) -> None:
    texts = [*labelled["text"].to_pylist(), "", "unheard words", "dull film, lovely cast " * 30]
    model = BASELINES[0].train([], [], tmp_path, str(small_bundle.path))
    scores = Scorer(small_bundle).score(pa.array(texts))
    assert model.predict(model.prepare(texts)) == [small_bundle.labels[index] for index in scores.classes]


def test_a_word_is_read_as_a_word(tmp_path: Path) -> None:
    pytest.importorskip("vowpalwabbit")
    texts = ["great | fun", "1:2 dull", "", "great:fun\n|x\n"] * 8
    model = next(baseline for baseline in BASELINES if baseline.key == "vowpal_wabbit").train(
        ["great fun", "dull plot"] * 20, ["pos", "neg"] * 20, tmp_path, ""
    )
    assert len(model.predict(model.prepare(texts))) == len(texts)
    assert model.predict(model.prepare(["great | fun", "1:2 dull"])) == ["pos", "neg"]


def test_what_is_not_there_is_reported(labelled_file: Path) -> None:
    absent = replace(BASELINES[0], module="no_such_module")
    assert measure(absent, labelled_file, labelled_file, "") == Measured(
        note="not installed; pip install 'sentray[bench]'"
    )
    broken = measure(replace(BASELINES[1], train=operator.neg), labelled_file, labelled_file, "")
    assert broken.rows_per_s is None
    assert "failed: TypeError" in broken.note


def test_the_least_disturbed_chunk_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "CHUNK_ROWS", 10)
    monkeypatch.setattr(baselines, "SECONDS", 4.5)
    ends = iter([2.0, 1.0, 2.0, 9.0])
    clock = (time for end in ends for time in (0.0, end))
    monkeypatch.setattr(baselines.time, "perf_counter", lambda: next(clock))
    seen: list[int] = []

    def slow(inputs: list[str]) -> list[str]:
        seen.append(len(inputs))
        return inputs

    assert baselines._speed(Model(slow), [""] * 40) == 10
    assert np.sum(seen) == 30
