"""Which rows of a corpus are measured, and what is said of it; without Ray and without a network."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle, evaluation
from sentray.bundle import ModelSpec, TrainedOn
from sentray.config import EvaluateSettings
from sentray.corpus import identity
from sentray.corpus.dataset import Corpus
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.identity import TextHashes
from sentray.errors import SentrayError
from sentray.inference.scorer import Scores
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary
from tests.here import read_here

Evaluate = Callable[..., dict[str, Any]]
WORDS = Vocabulary(["good"])


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    class Light(evaluation.PackedScorer):
        def scorer(self) -> Any:
            def score(texts: pa.ChunkedArray, numbers: None = None) -> Scores:
                nothing = np.zeros(len(texts), np.int32)
                return Scores(np.full((len(texts), 2), 0.5, np.float32), nothing, nothing)

            return SimpleNamespace(
                bundle=SimpleNamespace(labels=("neg", "pos"), spec=SimpleNamespace(task="classification", columns=())),
                score=score,
            )

    read_here(monkeypatch, evaluation)
    monkeypatch.setattr(evaluation, "PackedScorer", Light)


def model(folder: Path, corpus: Path | None, by: str = "text", known: bool = True) -> str:
    """A bundle that was trained on what its rule does not hold out of a corpus, or one of an earlier format."""
    spec = ModelSpec.of(WORDS, architecture="a.v1", cleaning=preset("reviews")[0], labels=("neg", "pos"), max_length=5)
    settings = EvaluateSettings(bundle="", corpus=str(corpus)).model_copy(
        update={"split_by": by, "test_fraction": 0.25}
    )
    files, trained_on = {bundle.MODEL: b""}, None
    if known:
        read = [] if corpus is None else Corpus.plan(str(corpus), settings)
        tables = [rows for shard in read.shards for rows in read.read(shard)] if read else []
        train = [rows.filter(np.array(rows["split"].to_pylist()) == "train")["text"] for rows in tables]
        texts = TextHashes.of(hash_texts(column.combine_chunks()) for column in train)
        trained_on = TrainedOn(split_by=by, test_fraction=0.25, sampled=texts.sampled, bytes=0, digest="")
        files[bundle.TEXTS] = texts.to_bytes()
    values = {"corpus": str(corpus), "test_fraction": 0.25}
    return bundle.publish(bundle.make(spec, WORDS, files, settings=values, trained_on=trained_on), str(folder)).path


@pytest.fixture
def evaluate(console: Any) -> Evaluate:
    def run(bundle: str, corpus: Path, **values: Any) -> dict[str, Any]:
        console.lines.clear()
        found = evaluation.evaluate(EvaluateSettings(bundle=bundle, corpus=str(corpus), **values), console)
        assert console.lines[0] == f"{found['rows']:,} of {found['of']:,} rows: {found['why']}"
        return found

    return run


def reviews(file: Path, first: int, last: int, splits: list[str] | None = None) -> Path:
    labels = ("neg", "pos")
    rows = [f"review {n},{labels[n % 2]},r{n},{splits[n % len(splits)] if splits else ''}" for n in range(first, last)]
    file.write_text("\n".join(["text,label,id,split", *rows]) + "\n")
    return file


@pytest.mark.parametrize("by", ["text", "id"])
def test_what_a_bundle_was_trained_on_is_left_out(tmp_path: Path, evaluate: Evaluate, by: str) -> None:
    made = model(tmp_path / "bundle", reviews(tmp_path / "reviews.csv", 0, 1000), by)
    own = evaluate(made, tmp_path / "reviews.csv")
    held_out = evaluate(made, tmp_path / "reviews.csv", split="test")
    assert own["confusion_matrix"] == held_out["confusion_matrix"]
    assert (own["split"], own["of"], own["trained_on"]) == ("test", 1000, 1000 - own["rows"])
    assert own["why"].startswith(f"those that were not trained on; {own['trained_on']} of 1,000 rows were trained on")
    # A copy with other ids is known again, and what came since is measured whole.
    longer = reviews(tmp_path / "copy.csv", 0, 1400)
    longer.write_text(longer.read_text().replace(",r", ",x"))
    assert evaluate(made, longer)["rows"] == own["rows"] + 400
    other = evaluate(made, reviews(tmp_path / "other.csv", 1000, 1400))
    assert (other["rows"], other["of"], other["trained_on"], other["split"]) == (400, 400, 0, "all")
    assert other["why"] == "all that have a label; none of them was trained on"
    assert evaluate(made, tmp_path / "reviews.csv", split="all")["rows"] == 1000


def test_a_given_split_is_kept(tmp_path: Path, evaluate: Evaluate, console: Any) -> None:
    corpus = reviews(tmp_path / "reviews.csv", 0, 1000, ["train", "dev", "test", "train"])
    own = evaluate(model(tmp_path / "bundle", corpus), corpus)
    assert (own["rows"], own["trained_on"], own["split"]) == (250, 500, "test")
    assert own["why"] == (
        "those whose given split is test; 500 of 1,000 rows were trained on (--split all measures all)"
    )
    # All of the rows that are given as test rows have one label.
    assert console.lines[1] == "warning: all rows that are measured have the label 'neg'"
    assert evaluate(model(tmp_path / "bundle", corpus), corpus, split="validation")["rows"] == 250
    foreign = model(tmp_path / "foreign", None)
    mixed = evaluate(foreign, reviews(tmp_path / "mixed.csv", 0, 300, ["train", "", "dev"]))
    assert (mixed["rows"], mixed["why"]) == (
        100,
        "those without a given split; none of them was trained on (--split all measures all)",
    )
    assert evaluate(foreign, corpus)["rows"] == 250
    assert evaluate(foreign, reviews(tmp_path / "train.csv", 0, 60, ["train"]))["rows"] == 60
    assert console.lines[1].startswith("warning: only 60 rows are measured")
    learnt = reviews(tmp_path / "learnt.csv", 0, 400, ["train"])
    with pytest.raises(SentrayError, match=r"all 400 labelled reviews of .*learnt\.csv were trained on: give others"):
        evaluate(model(tmp_path / "learner", learnt), learnt)
    with pytest.raises(SentrayError, match=r"other\.csv has no labelled review of --split validation"):
        evaluate(foreign, reviews(tmp_path / "other.csv", 0, 500), split="validation")
    # Test rows whose text is in train too stay, and are told.
    found = evaluate(str(tmp_path / "learner"), reviews(tmp_path / "leaking.csv", 0, 400, ["test"]))
    assert (found["rows"], found["trained_on"]) == (400, 400)
    assert "400 of 400 rows were trained on, 400 test rows among them" in found["why"]


def test_a_comparison_leaves_out_what_either_bundle_was_trained_on(tmp_path: Path, console: Any) -> None:
    corpus = reviews(tmp_path / "reviews.csv", 0, 400, ["train", "test"])
    one = EvaluateSettings(bundle=model(tmp_path / "one", corpus), corpus=str(corpus))
    # The other learnt half of the test rows.
    learnt = reviews(tmp_path / "learnt.csv", 0, 200, ["train"])
    others = bundle.load(model(tmp_path / "other", learnt)).texts
    found = evaluation.measure(one, console, others=others).metrics
    assert (found["rows"], found["trained_on"]) == (100, 300)
    assert found["why"].startswith("those whose given split is test and that were not trained on; 300 of 400 rows")
    assert evaluation.measure(one, console).metrics["rows"] == 200


def test_of_very_many_texts_the_rule_says_which_were_trained_on(
    tmp_path: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "MAX_HASHES", 100)
    corpus = reviews(tmp_path / "reviews.csv", 0, 1000)
    made = model(tmp_path / "bundle", corpus)
    own = evaluate(made, corpus)
    assert own["rows"] == evaluate(made, corpus, split="test")["rows"]
    assert own["trained_on"] == pytest.approx(750, rel=0.3)
    assert "those held out by the bundle's rule; about" in own["why"]
    assert evaluate(made, reviews(tmp_path / "other.csv", 1000, 1400))["rows"] == 400


def test_earlier_bundles_know_their_corpus_by_its_name(tmp_path: Path, evaluate: Evaluate) -> None:
    corpus = reviews(tmp_path / "reviews.csv", 0, 1000)
    made = model(tmp_path / "bundle", corpus, known=False)
    own = evaluate(made, corpus)
    assert own["rows"] == evaluate(model(tmp_path / "new", corpus, "id"), corpus, split="test")["rows"]
    assert own["trained_on"] is None
    assert "counts as its own by its name" in own["why"]
    other = evaluate(made, reviews(tmp_path / "other.csv", 0, 400))
    assert (other["rows"], other["split"]) == (400, "all")
    assert "earlier format" in other["why"]
