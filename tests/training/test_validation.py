"""What is noted in a bundle of its held-out rows; without Ray and without a network."""

from typing import Any

import numpy as np
import pytest

from sentray import bundle
from sentray.bundle import Bundle, ModelSpec
from sentray.config import TrainSettings
from sentray.decision import MOST_PROBABLE, Decision
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary
from sentray.training.calibration import fit_mix
from sentray.training.checkpoint import Choice, HeldOut, State
from sentray.training.validation import by_others, validated


@pytest.fixture
def trained() -> Bundle:
    words = Vocabulary(["good"])
    spec = ModelSpec.of(words, architecture="a.v1", cleaning=preset("reviews")[0], labels=("neg", "pos"), max_length=5)
    return bundle.make(spec, words, {bundle.MODEL: b""})


@pytest.fixture
def held_out() -> HeldOut:
    """Rows of which the network is four times as sure as it may be."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0.3, 1.5, (3000, 1, 1)).astype(np.float32)
    labels = (generator.random(3000) < 1 / (1 + np.exp(-logits[:, 0, 0]))).astype(np.int32)
    return HeldOut(4 * logits, labels, np.ones(3000, np.float32), labels)


def state(held_out: HeldOut) -> State:
    mix = fit_mix(held_out.logits, held_out.labels, held_out.weights)
    return State(3, 0, fit=5, choice=Choice({"network": 3}, mix))


def settings(**values: Any) -> TrainSettings:
    return TrainSettings(corpus="c", out="o", **values)


def test_figures_are_of_calibrated_probabilities_and_say_what_they_were_before(
    trained: Bundle, held_out: HeldOut, console: Any
) -> None:
    made, found, _ = validated(trained, state(held_out), held_out, settings(), console)
    assert made.calibration is not None
    assert made.calibration.temperature == pytest.approx(4, rel=0.1)
    assert (made.calibration.heads, made.calibration.rows) == ({"network": pytest.approx(1.0)}, 3000)
    assert (made.decision, found["threshold"]) == (MOST_PROBABLE, None)
    assert found["ece"] < 0.03 < 0.1 < found["before_calibration"]["ece"]
    assert found["brier"] < found["before_calibration"]["brier"]
    assert sum(each["rows"] for each in found["calibration_curve"]) == found["rows"] == 3000
    assert sum(found["score_histogram"]) == sum(found["predicted"]) == 3000
    assert console.lines == [
        f"calibrated: temperature {made.calibration.temperature:.3g}; on held-out rows expected calibration error "
        f"{found['before_calibration']['ece']:.4f} before, {found['ece']:.4f} after"
    ]


def test_a_threshold_is_chosen_for_what_is_written(trained: Bundle, held_out: HeldOut, console: Any) -> None:
    made, found, _ = validated(
        trained, state(held_out), held_out, settings(threshold="precision=0.9", unsure="0.2:0.3"), console
    )
    assert made.decision == Decision(threshold=found["threshold"], unsure=(0.2, 0.3))
    assert found["classes"]["pos"]["precision"] >= 0.9
    assert found["unsure_rows"] > 0
    few = HeldOut(held_out.logits[:50], 1 - held_out.labels[:50], held_out.weights[:50] * 0, 1 - held_out.labels[:50])
    made, _, _ = validated(trained, state(held_out), few, settings(threshold="precision=1"), console)
    assert made.decision == MOST_PROBABLE
    assert any(line.startswith("warning: only 50 rows are measured") for line in console.lines)
    assert any(line.startswith("warning: 50 held-out rows have a label that no row has") for line in console.lines)


def test_what_is_not_calibrated_is_measured_as_it_is(trained: Bundle, held_out: HeldOut, console: Any) -> None:
    made, found, _ = validated(trained, state(held_out), held_out, settings(calibrate="none"), console)
    assert made.calibration is None
    assert found["ece"] == found["before_calibration"]["ece"] > 0.1
    none = State(3, 0, choice=Choice({"network": 3}))
    made, found, _ = validated(trained, none, None, settings(validation_fraction=0, threshold="0.7"), console)
    assert (made.decision, found) == (Decision(threshold=0.7), {})


def test_numbers_are_no_labels_of_which_there_are_few(trained: Bundle, console: Any) -> None:
    # Written with six digits they are all the same.
    numbers = (1e6 + np.arange(200) / 10).astype(np.float32)
    logits = np.random.default_rng(0).normal(size=(200, 1, 1)).astype(np.float32)
    held_out = HeldOut(logits, numbers, np.ones(200, np.float32), logits[:, 0], 1e6, 1.0)
    spec = trained.spec.model_copy(update={"task": "regression", "labels": ()})
    made = bundle.make(spec, trained.vocabulary, {bundle.MODEL: b""})
    asked = settings(task="regression", calibrate="none")
    choice = Choice({"network": 3}, fit_mix(logits, held_out.wanted, None, "regression"))
    validated(made, State(3, 0, fit=5, choice=choice), held_out, asked, console)
    assert console.lines == []


def test_thresholds_of_several_labels_are_measured_on_rows_that_did_not_choose_them(
    trained: Bundle, console: Any
) -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random((40, 2)) < 0.3).astype(np.uint8)
    logits = generator.normal(-1, 1, (40, 1, 2)).astype(np.float32)
    chances = generator.random((40, 2)).astype(np.float32)
    before, flipped = by_others("f1", truth, chances), truth.copy()
    flipped[::5] ^= 1
    # What is true of a part's own rows says nothing of what they get, and something of what others get.
    after = by_others("f1", flipped, chances)
    np.testing.assert_array_equal(before[::5], after[::5])
    assert (before != after).any()
    assert by_others("f1", truth[:1], chances[:1]).shape == (1, 2)
    spec = trained.spec.model_copy(update={"task": "multilabel"})
    made = bundle.make(spec, trained.vocabulary, {bundle.MODEL: b""})
    held_out = HeldOut(logits, truth, np.ones(40, np.float32), truth.astype(np.float32))
    choice = Choice({"network": 3}, fit_mix(logits, held_out.wanted, None, "multilabel"))
    made, found, _ = validated(made, State(3, 0, fit=5, choice=choice), held_out, settings(task="multilabel"), console)
    assert made.decision.thresholds is not None
    # As a bundle's labels, so these have thresholds of theirs: 0.5 would give none of them to any row.
    assert found["baselines"]["same labels for all"]["f1"] > 0.3
