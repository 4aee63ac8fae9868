"""`cross_entropy`: the loss of a batch and its gradient, for every head that is computed without TensorFlow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.text.simd import compiled

Floats = NDArray[np.float32]


def cross_entropy(logits: Floats, labels: NDArray[np.int32], weights: Floats) -> tuple[float, int, Floats]:
    """Cross-entropy of logits: of one logit a review after a sigmoid, of several after a softmax.

    Args:
        logits: float32 [reviews, 1 or classes].
        labels: int32 [reviews], positions of their classes.
        weights: float32 [reviews], weights of their losses.

    Returns:
        The sum of the weighted losses; how many reviews of any weight have their own class as the most probable; the
        gradient of the sum, float32 [reviews, 1 or classes].
    """
    gradient = np.empty_like(logits)
    loss, correct = _cross_entropy(logits, labels, weights, gradient)
    return loss, correct, gradient


@compiled
def _cross_entropy(logits: Floats, labels: NDArray[np.int32], weights: Floats, gradient: Floats) -> Any:
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
