"""Held-out rows are found again in the corpus, with the probabilities of the fits that did not see them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sentray
from sentray import bundle
from sentray.config import CorpusSettings, TrainSettings
from sentray.console import Console
from sentray.corpus.dataset import Corpus
from sentray.corpus.identity import hashes_of
from sentray.metrics import metrics
from sentray.report import evidence
from sentray.report.evidence import Evidence, array_of
from sentray.training import run

CORPUS = "synthetic:300"


@pytest.mark.usefixtures("ray_session")
def test_held_out_rows_are_those_of_the_corpus(
    tmp_path: Path, in_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process()
    monkeypatch.setattr(evidence, "MAX_SHOWN", 10)
    out = str(tmp_path / "model")
    trained = sentray.train(CORPUS, out=out, model="wide", epochs=2)
    kept = Evidence.beside(bundle.load(out))
    assert kept is not None
    assert (kept.which, kept.of) == ("validation", trained.metrics["validation"]["rows"])
    rows = kept.rows
    known = metrics(rows["truth"].to_numpy(), array_of(rows["probabilities"]), trained.labels)
    assert known["accuracy"] == trained.metrics["validation"]["accuracy"]
    assert known["log_loss"] == pytest.approx(trained.metrics["validation"]["log_loss"])
    plan = Corpus.plan(CORPUS, CorpusSettings())
    read = [table for shard in plan.shards for table in plan.read(shard)]
    by_id = {
        row["id"]: (row["label"], row["text"], int(hash))
        for table in read
        for row, hash in zip(table.to_pylist(), hashes_of(table), strict=True)
    }
    for row in rows.to_pylist():
        label, text, hash = by_id[row["id"]]
        assert (trained.labels[row["truth"]], row["hash"]) == (label, hash)
        assert row["text"] in (None, text)
    assert len(rows) - rows["text"].null_count == 10
    assert np.all(rows["known"].to_numpy() <= rows["words"].to_numpy())
    # All of them were trained on, so that what fits said that did not see them is taken.
    doubtful = sentray.check(CORPUS, label_errors=out).label_errors
    assert doubtful is not None
    assert doubtful.of == f"{kept.of} rows that its training held out, by the fits that did not see them"


def test_a_report_that_fails_leaves_the_training_whole(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Evidence:
        raise ValueError("no ink")

    settings = TrainSettings(corpus="c", out="o")
    model = bundle.load(Path(__file__).parents[1] / "data" / "format-4")
    assert run._to_look_at(model, [], broken, {}, settings, Console()) == {}
    assert capsys.readouterr().err == "no report is made (ValueError: no ink); the bundle is whole\n"
    made = run._to_look_at(model, [], lambda: None, {}, settings, Console())
    assert made.keys() == {"report.html", "README.md"}
