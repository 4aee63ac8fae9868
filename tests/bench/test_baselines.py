"""What sentray is compared with: each learns, predicts and is timed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentray.bench import baselines
from sentray.bench.baselines import BASELINES, measure, sentray
from sentray.bundle import Bundle

NEEDS = {"fastText": ["fasttext"], "fastertext": ["fasttext", "fastertext"], "model2vec": ["model2vec"]}


@pytest.mark.parametrize("title", [*BASELINES, "sentray"])
def test_each_learns_and_is_timed(title: str, labelled_file: Path, small_bundle: Bundle) -> None:
    for module in NEEDS.get(title.split(maxsplit=1)[0].strip(",:"), []):
        pytest.importorskip(module)
    train = BASELINES.get(title, sentray)
    found = measure(train, labelled_file, {"all": labelled_file, "again": labelled_file}, str(small_bundle.path))
    assert min(found["all"], found["again"]) > 0
    # The bundle's weights are random.
    assert found["accuracy"] == 1.0 or title.startswith(("the tutorial", "sentray"))


def test_the_tutorials_path_labels_as_sentray_does(small_bundle: Bundle, labelled: pa.Table) -> None:
    texts = [*labelled["text"].to_pylist(), "", "unheard words", "dull film, lovely cast " * 30]
    tutorial = next(iter(BASELINES.values()))
    path = str(small_bundle.path)
    assert tutorial([], [], path)(texts) == sentray([], [], path)(texts)


def test_the_least_disturbed_chunk_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "CHUNK_ROWS", 10)
    monkeypatch.setattr(baselines, "SECONDS", 4.5)
    ends = iter([2.0, 1.0, 2.0, 9.0])
    clock = (time for end in ends for time in (0.0, end))
    monkeypatch.setattr(baselines.time, "perf_counter", lambda: next(clock))
    seen: list[int] = []

    def slow(texts: list[str]) -> list[str]:
        seen.append(len(texts))
        return texts

    assert baselines._speed(slow, [""] * 40) == 10
    assert np.sum(seen) == 30
