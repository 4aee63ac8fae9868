"""The compiled losses: those of NumPy for every task, with their gradients, and what knows nothing has at best."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.task import Task, outputs, wanted
from sentray.training.calibration import fit_mix, log_loss, right_share
from sentray.training.losses import chance, loss_of

TASKS = ("classification", "multilabel", "ordinal", "regression")


def batch_of(task: Task, rows: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, what the outputs should be, and weights, some of them 0."""
    generator = np.random.default_rng(seed)
    targets = {
        "multilabel": generator.integers(0, 2, (rows, labels)).astype(np.uint8),
        "regression": generator.normal(0, 2, rows).astype(np.float32),
    }.get(task, generator.integers(0, labels, rows).astype(np.int32))
    logits = generator.normal(0, 10, (rows, outputs(task, labels))).astype(np.float32)
    weights = generator.choice([0, 0.5, 1, 3], rows).astype(np.float32)
    return logits, wanted(task, targets, labels), weights


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(TASKS), st.integers(0, 9), st.integers(2, 5), st.integers(0, 9))
def test_losses_are_those_of_numpy(task: Task, rows: int, labels: int, seed: int) -> None:
    logits, right, weights = batch_of(task, rows, labels, seed)
    _, correct, gradient = loss_of(task, logits, right, weights)
    counted = weights > 0
    if rows:
        alike = np.ones(rows)
        assert loss_of(task, logits, right, alike.astype(np.float32))[0] == pytest.approx(
            rows * log_loss(logits, right, alike, task), rel=1e-4, abs=1e-4
        )
    if counted.any() and task != "regression":
        assert correct == round(counted.sum() * right_share(logits[counted], right[counted], task))
    for row in range(rows):
        for output in range(logits.shape[1]):
            step = np.zeros(logits.shape)
            step[row, output] = 1e-4
            losses = [
                log_loss((logits.astype(np.float64) + by)[[row]], right[[row]], task=task) for by in (step, -step)
            ]
            rise = weights[row] * (losses[0] - losses[1]) / 2e-4
            assert gradient[row, output] == pytest.approx(rise, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_what_knows_nothing_has_the_loss_of_the_best_constant(task: Task) -> None:
    _, right, weights = batch_of(task, 300, 3, 1)
    from scipy.optimize import minimize

    count = outputs(task, 3)

    def loss(logits: np.ndarray) -> float:
        return log_loss(np.tile(logits, (300, 1)), right, weights, task) * float(weights.mean())

    best = minimize(loss, np.zeros(count)).fun
    assert chance(task, right, weights, 3) == pytest.approx(best, rel=1e-4)


def test_numbers_are_mixed_by_least_squares() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1, (4000, 2, 1)).astype(np.float32)
    numbers = (0.8 * logits[:, 0] + 0.2 * logits[:, 1] + 0.5 + generator.normal(0, 0.1, (4000, 1))).astype(np.float32)
    mix = fit_mix(logits, numbers, task="regression")
    assert mix.weights == pytest.approx((0.8, 0.2), abs=0.01)
    assert mix.bias == pytest.approx(0.5, abs=0.01)
    scaled = mix.scaled(3, 2)
    np.testing.assert_allclose(scaled.of(logits), 2 * mix.of(logits) + 3)
