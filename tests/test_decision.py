"""From probabilities to labels: thresholds by rule against a search over all of them, and a range without a label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sentray.decision import MOST_PROBABLE, UNSURE, Decision, choose_threshold, choose_thresholds

ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=30)


def both(second: list[float]) -> np.ndarray:
    column = np.array(second, np.float32)
    return np.stack([1 - column, column], axis=1)


def test_a_threshold_and_a_range_without_a_label() -> None:
    probabilities = both([0.1, 0.3, 0.5, 0.7, 0.9])
    assert MOST_PROBABLE.of(probabilities).tolist() == [0, 0, 0, 1, 1]
    assert Decision(threshold=0.2).of(probabilities).tolist() == [0, 1, 1, 1, 1]
    unsure = Decision(threshold=0.6, unsure=(0.4, 0.8))
    assert unsure.of(probabilities).tolist() == [0, 0, UNSURE, UNSURE, 1]
    with pytest.raises(ValidationError, match="ends before it begins"):
        Decision(unsure=(0.6, 0.4))


def quality(rule: str, truth: np.ndarray, classes: np.ndarray) -> float:
    right, above, positives = (truth & (classes == 1)).sum(), (classes == 1).sum(), truth.sum()
    if rule == "f1":
        return float(2 * right / max(above + positives, 1))
    negatives = len(truth) - positives
    return float(right / max(positives, 1) + (negatives - (above - right)) / max(negatives, 1))


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from(["f1", "balanced"]))
def test_no_other_threshold_is_better(rows: list[tuple[bool, float]], rule: str) -> None:
    truth, probabilities = np.array([positive for positive, _ in rows]), both([score for _, score in rows])
    threshold = choose_threshold(rule, truth.astype(np.int32), probabilities[:, 1])
    if threshold is None:
        assert not probabilities[:, 1].any() or len(set(truth.tolist())) == 1
        return
    found = quality(rule, truth, Decision(threshold=threshold).of(probabilities))
    others = [Decision(threshold=each).of(probabilities) for each in np.linspace(0, 1, 101)]
    assert found == pytest.approx(max(quality(rule, truth, each) for each in others))


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from([0.5, 0.8, 1.0]))
def test_a_precision_is_reached_with_as_many_rows_as_can_be(rows: list[tuple[bool, float]], wanted: float) -> None:
    truth, probabilities = np.array([positive for positive, _ in rows]), both([score for _, score in rows])
    cuts = [probabilities[:, 1] > each for each in np.linspace(0, 1, 101)]
    fitting = [cut.sum() for cut in cuts if cut.any() and truth[cut].mean() >= wanted]
    threshold = choose_threshold(f"precision={wanted}", truth.astype(np.int32), probabilities[:, 1])
    if threshold is None:
        assert not fitting or truth.all()
    elif fitting:
        chosen = Decision(threshold=threshold).of(probabilities) == 1
        assert truth[chosen].mean() >= wanted
        assert chosen.sum() == max(fitting)


def test_a_threshold_a_label_is_chosen_of_each_by_itself() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.uint8)
    probabilities = np.array([[0.3, 0.1, 0.9], [0.2, 0.8, 0.1], [0.1, 0.7, 0.1], [0.1, 0.6, 0.1]], np.float32)
    thresholds = choose_thresholds("f1", truth, probabilities)
    # Of the last label no row has it, so that nothing can be chosen.
    assert thresholds == (pytest.approx(0.15), pytest.approx(0.65), 0.5)
    found = Decision(thresholds=thresholds).of(probabilities, "multilabel")
    assert found[:, :2].tolist() == truth[:, :2].astype(bool).tolist()
    assert choose_thresholds("0.25", truth, probabilities) == (0.25,) * 3
    assert MOST_PROBABLE.of(probabilities, "multilabel").sum() == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any))
def test_the_median_step_has_the_least_mean_absolute_error(raw: list[int]) -> None:
    probabilities = np.array(raw) / np.sum(raw)
    steps = np.arange(len(raw))
    errors = [(probabilities * np.abs(steps - step)).sum() for step in steps]
    found = int(MOST_PROBABLE.of(probabilities[None], "ordinal")[0])
    assert errors[found] == pytest.approx(min(errors))


def test_a_decision_is_of_its_task() -> None:
    assert MOST_PROBABLE.of(np.array([[2.5], [-1.0]], np.float32), "regression").tolist() == [2.5, -1.0]
    Decision(thresholds=(0.2, 0.3)).require_fits("multilabel", 2)
    Decision(threshold=0.2).require_fits("classification", 2)
    for decision, task, labels in (
        (Decision(thresholds=(0.2, 0.3)), "multilabel", 3),
        (Decision(thresholds=(0.2, 0.3)), "classification", 2),
        (Decision(threshold=0.2), "ordinal", 2),
    ):
        with pytest.raises(ValueError, match="threshold"):
            decision.require_fits(task, labels)
