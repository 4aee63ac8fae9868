"""`sentray report` with a corpus, `Model.report`, and `check --label-errors`; without Ray."""

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

import sentray
from sentray import evaluation
from sentray.corpus import check
from sentray.errors import SentrayError
from sentray.report.evidence import EVIDENCE_FILE
from sentray.report.subject import Subject
from tests.here import read_here

WORDS = {"pos": "a good and great film", "neg": "a bad and awful film"}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch, evaluation, check)


@pytest.fixture
def model(subject: Subject, tmp_path: Path) -> Path:
    """A bundle, beside which its held-out rows lie."""
    folder = tmp_path / "model"
    shutil.copytree(subject.bundle.path, folder)
    assert subject.evidence is not None
    (folder / EVIDENCE_FILE).write_bytes(subject.evidence.to_bytes())
    return folder


def reviews(number: int = 40) -> pa.Table:
    """New reviews of two shops, of which the first is labelled wrongly."""
    rows = [
        {"text": f"{WORDS[label]} of {at}", "label": label, "shop": "odd" if at % 2 else "even"}
        for at in range(number)
        for label in WORDS
    ]
    rows[0]["label"] = "neg"
    return pa.Table.from_pylist(rows)


def test_a_notebook_gets_what_training_measured(model: Path) -> None:
    page = sentray.load(model).report()
    assert "held-out rows" in page.html
    assert not (model / "report.html").exists()


def test_a_corpus_is_measured_by_slices(model: Path, tmp_path: Path) -> None:
    page = sentray.report(model, reviews(), out=tmp_path / "page.html", slice="shop")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    table = page.html[page.html.index("Accuracy by shop, the worst first</bdi>") :]
    assert table.index(">even<") < table.index(">0.9750<") < table.index(">odd<") < table.index(">1.0000<")
    assert "a good and great film of 0" in page.html
    sentray.report(model, reviews(), out=tmp_path / "page.html", excerpts=False)
    assert "film of 0" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    sentray.report(model, out=tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text(encoding="utf-8").startswith("---\n")


def test_labels_are_checked_by_a_bundle_that_did_not_see_them(model: Path) -> None:
    found = sentray.check(reviews(), label_errors=str(model))
    (line,) = [line for line in found.lines() if line.startswith("labels ")]
    assert line == "labels          1 likely wrong of 80 rows that the bundle was not trained on"
    assert found.to_dict()["label_errors"]["rows"][0]["text"] == "a good and great film of 0"
    hidden = sentray.check(reviews(), label_errors=str(model), excerpts=False)
    assert hidden.to_dict()["label_errors"]["rows"][0]["text"] is None


def test_of_rows_that_were_trained_on_those_count_that_were_held_out(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation.TextHashes, "among", lambda _, texts: [True] * len(texts))
    found = sentray.check(reviews(), label_errors=str(model)).label_errors
    assert found is not None
    assert found.of == "300 rows that its training held out, by the fits that did not see them"
    (model / EVIDENCE_FILE).unlink()
    with pytest.raises(SentrayError, match=r"was trained on every labelled row of .* and keeps no held-out rows"):
        sentray.check(reviews(), label_errors=str(model))


def test_a_slice_needs_a_corpus(model: Path) -> None:
    with pytest.raises(SentrayError, match="give one"):
        sentray.report(model, out="page.html", slice="shop")


def test_a_bundle_that_does_not_say_what_it_was_trained_on_finds_no_label_errors(model: Path) -> None:
    earlier = model.parents[0] / "earlier"
    shutil.copytree(Path(__file__).parents[1] / "data" / "format-2", earlier)
    with pytest.raises(SentrayError, match="is of an earlier format and does not say what it was trained on"):
        sentray.check(reviews(), label_errors=str(earlier))


def test_records_that_are_damaged_or_another_bundles_are_a_sentence(model: Path, subject: Subject) -> None:
    out = model.parents[0] / "page.html"
    for content in ("xx", '{"a": 1}', '[{"epoch": 1}]'):
        (model / "history.json").write_text(content)
        with pytest.raises(SentrayError, match=r"history\.json is damaged: remove it"):
            sentray.report(model, out=out)
    (model / "history.json").unlink()
    sentray.report(model, out=out)
    assert subject.evidence is not None
    other = dataclasses.replace(subject.evidence, about={"bundle": "0" * 64})
    (model / EVIDENCE_FILE).write_bytes(other.to_bytes())
    with pytest.raises(SentrayError, match=r"evidence\.parquet is of another bundle: remove it"):
        sentray.report(model, out=out)
