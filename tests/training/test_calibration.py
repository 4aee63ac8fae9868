"""Mix and temperature: against SciPy's minimum, and on logits of which it is known how sure they may be."""

import numpy as np
import pytest
from scipy.optimize import minimize

from sentray.metrics import metrics
from sentray.training.calibration import MIN_WEIGHT, RIDGE, Mix, cross_fitted, fit_mix, log_loss, probabilities


def logits_of(rows: int, heads: int, outputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of which the heads' sum is calibrated, and labels drawn by it."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (rows, heads, outputs)).astype(np.float32)
    chances = probabilities(logits.sum(1))
    return logits, (chances.cumsum(1) < generator.random((rows, 1))).sum(1).clip(max=chances.shape[1] - 1)


@pytest.mark.parametrize(("heads", "outputs"), [(1, 1), (2, 1), (1, 4), (2, 3)])
def test_the_mix_is_the_minimum(heads: int, outputs: int) -> None:
    logits, labels = logits_of(300, heads, outputs)
    weights = np.linspace(0.5, 2, 300)

    def value(unknowns: np.ndarray) -> float:
        mix = Mix(tuple(unknowns[:heads]), unknowns[heads:].sum())
        ridge = ((unknowns[:heads] - 1 / heads) ** 2).sum() + (unknowns[heads:] ** 2).sum()
        return log_loss(mix.of(logits), labels, weights) * weights.sum() + RIDGE / 2 * ridge

    start = np.array([1 / heads] * heads + [0.0] * (heads > 1 and outputs == 1))
    wanted = minimize(value, start, method="BFGS").x
    mix = fit_mix(logits, labels, weights)
    np.testing.assert_allclose(mix.weights, wanted[:heads], atol=1e-4)
    assert mix.bias == pytest.approx(wanted[heads:].sum(), abs=1e-4)


def test_a_temperature_is_found_again_and_makes_probabilities_right() -> None:
    logits, labels = logits_of(20_000, 1, 1)
    sure = 4 * logits
    mix = fit_mix(sure, labels)
    assert mix.temperature == pytest.approx(4, rel=0.05)
    before, after = (
        metrics(labels, probabilities(each), ["neg", "pos"]) for each in (sure[:, 0], cross_fitted(sure, labels))
    )
    assert before["ece"] > 0.1
    assert after["ece"] < 0.02
    assert after["log_loss"] < before["log_loss"]
    assert after["roc_auc"] == pytest.approx(before["roc_auc"], abs=1e-3)


def test_a_head_that_is_worth_nothing_is_left_out() -> None:
    logits, labels = logits_of(2000, 1, 1)
    worth, nothing = fit_mix(np.concatenate([logits / 2, -logits / 2], axis=1), labels).weights
    assert nothing == 0
    assert worth == pytest.approx(2, rel=0.1)
    assert fit_mix(-logits, labels).weights == (MIN_WEIGHT,)


def test_few_rows_leave_the_mean_nearly_as_it_is() -> None:
    logits = np.array([[[3.0], [1.0]], [[-2.0], [-4.0]]], np.float32)
    mix = fit_mix(logits, np.array([1, 0]))
    assert mix.weights == pytest.approx((0.5, 0.5), abs=0.3)
    assert fit_mix(logits[:0], np.zeros(0, int)) == Mix.mean(2)


def test_a_mix_in_the_last_layer_gives_the_mixed_logits() -> None:
    generator = np.random.default_rng(0)
    hidden, kernel, bias = generator.normal(size=(5, 3)), generator.normal(size=(3, 2)), generator.normal(size=2)
    mix = Mix((0.25,), 0.5)
    logits = (hidden @ kernel + bias)[:, None]
    np.testing.assert_allclose(mix.of(logits), hidden @ (0.25 * kernel) + 0.25 * bias + 0.5)
