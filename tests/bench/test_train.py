"""Training runs are compared by rows a second, and by the time to the least loss that all reach."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import models
from sentray.bench.train import by_turns, compared, fasttext_seconds, keras_script
from sentray.bundle import Function, ModelSpec
from sentray.text.cleaning import preset
from sentray.training.training_set import TrainingSet


def test_runs_are_compared_at_a_loss_that_all_reach() -> None:
    def epoch(loss: float, seconds: float, **more: object) -> dict[str, object]:
        return {"loss": loss, "seconds": seconds, **more}

    ours = {"parts": {"network": 2.0}, "steps": 100, "first_step_seconds": 3.0, "peak_rss_mb": 500.0}
    runs = {
        "script": [epoch(0.5, 10.0), epoch(0.2, 8.0)],
        "sentray": [epoch(0.3, 5.0, **ours), epoch(0.2, 4.0, **ours), epoch(0.1, 4.0, **ours)],
    }
    script, sentray = compared(runs, 800).values()
    assert (script["rows_per_s"], script["s_to_loss_0.2000"], script["ratio"]) == (100, 18, 1)
    assert (sentray["rows_per_s"], sentray["s_to_loss_0.2000"], sentray["ratio"]) == (200, 9, 2)
    assert (sentray["network_ms"], sentray["peak_mb"], sentray["loss"]) == (pytest.approx(20), 500, 0.1)


def test_runs_take_turns_and_the_faster_of_each_counts() -> None:
    turns: list[str] = []
    seconds = {"a": iter([3.0, 2.0]), "b": iter([1.0, 4.0])}

    def run(name: str) -> list[dict[str, float]]:
        turns.append(name)
        return [{"seconds": 9.0}, {"seconds": next(seconds[name])}]

    found = by_turns({name: partial(run, name) for name in seconds})
    assert turns == ["a", "b", "a", "b"]
    assert {name: epochs[1]["seconds"] for name, epochs in found.items()} == {"a": 2.0, "b": 1.0}


def test_fasttext_trains_on_the_same_sentences(tmp_path: Path) -> None:
    pytest.importorskip("fasttext", reason="fastText is the baseline")
    table = pa.table({"text": ["good film", "bad film"] * 20, "label": ["pos", "neg"] * 20})
    pq.write_table(table, tmp_path / "sentences.parquet")
    assert all(seconds > 0 for seconds in fasttext_seconds(str(tmp_path / "sentences.parquet")).values())


@pytest.mark.parametrize("function", [None, Function(name="tests.nets:cnn", digest="0" * 64)])
def test_the_script_trains_the_network_that_is_asked_for(
    function: Function | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tutorial-cnn.v1" if function is None else models.FUNCTION
    rules, labels = preset("reviews")[0], ("neg", "pos")
    spec = ModelSpec(architecture=name, function=function, cleaning=rules, labels=labels, max_length=12)

    class Reviews:
        facts, vocabulary = SimpleNamespace(spec=spec), SimpleNamespace(size=20)
        targets = np.arange(40, dtype=np.int32) % 2

        def __len__(self) -> int:
            return len(self.targets)

        def reviews(self, rows: np.ndarray) -> list[np.ndarray]:
            return [np.full(5, 1 + target, np.int32) for target in self.targets[rows]]

    monkeypatch.setattr(TrainingSet, "load", lambda folder: Reviews())
    first, *_, last = keras_script("", 8, 8, 1)
    assert last["loss"] < first["loss"]
    assert last["seconds"] > 0
