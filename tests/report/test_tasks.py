"""Bundles of each task measured, compared and shown; without Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import sentray
from sentray import evaluation, tables
from sentray.bundle import Bundle
from sentray.corpus import check
from sentray.errors import SentrayError
from sentray.metrics import metrics
from sentray.task import Task
from tests.conftest import Recorder
from tests.here import read_here

BundleOf = Callable[[Task], Bundle]
MakeReviews = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch, evaluation, check)


def corpus(asked: Task, texts: list[str]) -> tuple[pa.Table, np.ndarray]:
    """New reviews with labels by chance, as a table holds them and as a training set does."""
    chance = np.random.default_rng(1)
    if asked == "multilabel":
        truth = chance.integers(0, 2, (len(texts), 3)).astype(np.uint8)
        given: Any = [[("comedy", "drama", "war")[at] for at in np.flatnonzero(row)[::-1]] for row in truth]
    elif asked == "ordinal":
        truth = chance.integers(0, 3, len(texts))
        given = [(1, 2, 4)[step] for step in truth]
    else:
        truth = chance.integers(1, 9, len(texts)) / np.float32(2)
        given = truth
    return pa.table({"text": texts, "label": given, "shop": [f"s{at % 2}" for at in range(len(texts))]}), truth


HEADLINES = {"multilabel": "exact_match", "ordinal": "accuracy", "regression": "mean_absolute_error"}


@pytest.mark.parametrize("asked", HEADLINES)
def test_measured_on_a_corpus(
    bundle_of: BundleOf, make_reviews: MakeReviews, asked: Task, console: Recorder, tmp_path: Path
) -> None:
    model, texts = bundle_of(asked), make_reviews(150, seed=3)
    table, truth = corpus(asked, texts)
    found = sentray.evaluate(model.path, table)
    scores = sentray.load(model.path)._scorer.score(pa.array(texts, pa.large_string()))
    wanted = metrics(truth, scores.probabilities, model.labels, scores.decided, asked)
    assert {name: found[name] for name in wanted} == wanted
    assert found["rows"] == 150
    assert tables.headline(found)[0] == HEADLINES[asked]
    tables.metrics(console, found)
    assert ("threshold" in " ".join(console.lines)) == (asked == "multilabel")
    page = sentray.report(
        model.path, table, out=tmp_path / "page.html", **({} if asked == "regression" else {"slice": "shop"})
    )
    assert {"multilabel": "Hamming loss", "ordinal": "quadratic kappa", "regression": "R²"}[asked] in page.html
    assert {"multilabel": "surest mistakes", "ordinal": "surest mistakes", "regression": "largest errors"}[
        asked
    ] in page.html
    card = tmp_path / "card.md"
    sentray.report(model.path, table, out=card)
    assert {"multilabel": "3 labels, several a review", "ordinal": "3 labels of a scale", "regression": "a number"}[
        asked
    ] in card.read_text(encoding="utf-8")


@pytest.mark.parametrize("asked", HEADLINES)
def test_compared(
    make_bundle: Callable[..., Bundle],
    bundle_of: BundleOf,
    make_reviews: MakeReviews,
    asked: Task,
    console: Recorder,
    tmp_path: Path,
) -> None:
    one = bundle_of(asked)
    other = make_bundle(one.labels[::-1] if asked == "multilabel" else one.labels, seed=1, task=asked)
    table, _ = corpus(asked, make_reviews(150, seed=3))
    asked_for = {"split": "all", "require": "not-worse", "margin": 0.1}
    found = sentray.compare(one.path, other.path, table, html=tmp_path / "page.html", **asked_for)
    ours, theirs = (sentray.evaluate(each.path, table, split="all") for each in (one, other))
    name = HEADLINES[asked]
    assert found["differences"][name] == pytest.approx(theirs[name] - ours[name], abs=1e-6)
    tables.comparison(console, found)
    assert console.lines[-1] == found["verdict"]
    if asked == "regression":
        assert (found["mcnemar"], found["right"]) == (None, None)
        high = found["intervals"][name][1]
        assert found["passed"] == (high <= 0.1 * ours[name])
        gaps = [abs(float(row["a"]["label"]) - float(row["b"]["label"])) for row in found["differing"]]
    else:
        right = [found["mcnemar"][part] for part in ("both_right", "only_b_right")]
        share = theirs["exact_match" if asked == "multilabel" else "accuracy"]
        assert sum(right) / 150 == pytest.approx(share)
        assert found["differing_rows"] == sum(
            a != b for a, b in zip(*(map(set, _got(each, table)) for each in (one, other)), strict=True)
        )
        gaps = [1.0]
    # They are shown with six digits.
    assert gaps == pytest.approx(sorted(gaps, reverse=True), rel=1e-4)
    assert all(row["truth"] is not None for row in found["differing"])
    same = sentray.compare(one.path, one.path, table, **asked_for)
    assert (same["passed"], same["differing"]) == (True, [])
    with pytest.raises(SentrayError, match="only bundles of the same task"):
        sentray.compare(one.path, make_bundle().path, table)


def _got(model: Bundle, table: pa.Table) -> list[Any]:
    found = sentray.load(model.path).predict(table["text"])
    return [each if isinstance(each, tuple) else (each,) for each in found]


def test_a_number_is_not_right_or_wrong(bundle_of: BundleOf, make_reviews: MakeReviews, tmp_path: Path) -> None:
    table, _ = corpus("regression", make_reviews(20))
    with pytest.raises(SentrayError, match=r"--slice is about rows that got their label, and .* gives a number"):
        sentray.report(bundle_of("regression").path, table, out=tmp_path / "page.html", slice="shop")
    with pytest.raises(SentrayError, match="where no label is the only one: leave it out"):
        sentray.check(table, label_errors=bundle_of("regression").path)
