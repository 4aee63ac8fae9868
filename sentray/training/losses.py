"""`loss_of`: the loss of a batch and its gradient by the task, for every head that is computed without TensorFlow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.task import Task
from sentray.text.simd import compiled

Floats = NDArray[np.float32]


def loss_of(task: Task, logits: Floats, wanted: NDArray[Any], weights: Floats) -> tuple[float, int, Floats]:
    """The loss of a batch and its gradient.

    Of a classification the cross-entropy of a softmax (of one logit, a sigmoid); of multilabel and ordinal the sum of
    the outputs' binary cross-entropies; of a regression half the square of the difference.

    Args:
        task: What is asked.
        logits: float32 [reviews, outputs].
        wanted: As `sentray.task.wanted` gives it.
        weights: float32 [reviews], weights of their losses.

    Returns:
        The sum of the weighted losses; how many reviews of any weight have their own class as the most probable, or all
        of their outputs on the right side of a half (of a regression none); the gradient of the sum, float32 [reviews,
        outputs].
    """
    gradient = np.empty_like(logits)
    if task == "classification":
        loss, correct = _softmax(logits, wanted, weights, gradient)
    elif task == "regression":
        loss, correct = _squares(logits, wanted, weights, gradient), 0
    else:
        loss, correct = _sigmoids(logits, wanted, weights, gradient)
    return loss, correct, gradient


def chance(task: Task, wanted: NDArray[Any], weights: Floats, labels: int) -> float:
    """Mean loss of what knows the shares of the labels, or the mean number, and nothing else.

    Args:
        task: What is asked.
        wanted: Of all reviews.
        weights: Of their losses, float32 [reviews].
        labels: How many there are.
    """
    rows, total = max(len(weights), 1), max(float(weights.sum(dtype=np.float64)), 1e-30)
    if task == "classification":
        shares = np.bincount(wanted, weights, labels) / total
        return float(-shares @ np.log(np.where(shares > 0, shares, 1))) * total / rows
    # Not all at once, which would be in 64 bits.
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(weights), _AT_ONCE)]
    means = sum((weights[part] @ wanted[part].astype(np.float64) for part in parts), np.zeros(wanted.shape[1])) / total
    if task == "regression":
        return float(sum(weights[part] @ ((wanted[part] - means) ** 2).sum(1) for part in parts)) / 2 / rows
    both = np.stack([means, 1 - means])
    return float(-(both * np.log(np.where(both > 0, both, 1))).sum()) * total / rows


_AT_ONCE = 4096


@compiled
def _softmax(logits: Floats, labels: NDArray[np.int32], weights: Floats, gradient: Floats) -> Any:
    loss, correct = 0.0, 0
    classes = logits.shape[1]
    for row in range(len(labels)):
        label, weight = labels[row], weights[row]
        if classes == 1:
            # As two logits of which the first is 0.
            score = np.float64(logits[row, 0])
            best = 1 if score > 0 else 0
            own = score if label == 1 else -score
            loss += weight * (np.log1p(np.exp(-abs(own))) + max(-own, 0.0))
            gradient[row, 0] = weight * (0.5 + 0.5 * np.tanh(0.5 * score) - label)
        else:
            best = 0
            for each in range(1, classes):
                if logits[row, each] > logits[row, best]:
                    best = each
            highest, total = np.float64(logits[row, best]), 0.0
            for each in range(classes):
                total += np.exp(logits[row, each] - highest)
            for each in range(classes):
                gradient[row, each] = weight * (np.exp(logits[row, each] - highest) / total - (each == label))
            loss += weight * (np.log(total) + highest - logits[row, label])
        correct += best == label and weight > 0
    return loss, correct


@compiled
def _sigmoids(logits: Floats, wanted: Floats, weights: Floats, gradient: Floats) -> Any:
    loss, correct = 0.0, 0
    for row in range(len(wanted)):
        weight, right = weights[row], weights[row] > 0
        for each in range(logits.shape[1]):
            score, own = np.float64(logits[row, each]), np.float64(wanted[row, each])
            loss += weight * (np.log1p(np.exp(-abs(score))) + max(score, 0.0) - score * own)
            gradient[row, each] = weight * (0.5 + 0.5 * np.tanh(0.5 * score) - own)
            right = right and (score > 0) == (own > 0.5)
        correct += right
    return loss, correct


@compiled
def _squares(logits: Floats, wanted: Floats, weights: Floats, gradient: Floats) -> Any:
    loss = 0.0
    for row in range(len(wanted)):
        for each in range(logits.shape[1]):
            gap = np.float64(logits[row, each]) - np.float64(wanted[row, each])
            loss += weights[row] * gap * gap / 2
            gradient[row, each] = weights[row] * gap
    return loss
