"""Classification metrics: `metrics` compares probabilities with the true labels.

The numbers are those of scikit-learn on the same predictions; a metric that is not defined is None.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def metrics(
    truth: NDArray[np.integer[Any]], probabilities: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, Any]:
    """All metrics as JSON values; precision, recall and F1 without a label are the labels' plain means.

    Precision without predictions of a label and recall without rows of it count as 0.

    Args:
        truth: Positions of the rows' true labels; [rows].
        probabilities: Of each label; [rows, labels].
        labels: Names.
    """
    rows, count = probabilities.shape
    predicted = np.argmax(probabilities, axis=1)
    confusion = np.bincount(truth * count + predicted, minlength=count * count).reshape(count, count)
    right, of_label, as_label = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(right, as_label), _ratio(right, of_label)
    f1 = _ratio(2 * right, as_label + of_label)
    ranked = range(1, 2) if count == 2 else range(count)
    areas = [area_under_curve(truth == label, probabilities[:, label]) for label in ranked]
    defined = [area for area in areas if area is not None]
    return {
        "rows": rows,
        "accuracy": float(right.sum() / rows) if rows else None,
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "f1": float(f1.mean()),
        "roc_auc": sum(defined) / len(areas) if len(defined) == len(areas) else None,
        "log_loss": _log_loss(probabilities[np.arange(rows), truth]) if rows else None,
        "labels": list(labels),
        "classes": {
            label: {
                "precision": float(precision[at]),
                "recall": float(recall[at]),
                "f1": float(f1[at]),
                "rows": int(of_label[at]),
            }
            for at, label in enumerate(labels)
        },
        "confusion_matrix": confusion.tolist(),
    }


def area_under_curve(positive: NDArray[np.bool_], scores: NDArray[np.float32]) -> float | None:
    """ROC AUC: the chance that a positive row scores above another, ties counting half; None without both kinds."""
    distinct, of = np.unique(scores, return_inverse=True)
    positives = np.bincount(of[positive], minlength=len(distinct))
    negatives = np.bincount(of[~positive], minlength=len(distinct))
    below = np.cumsum(negatives) - negatives
    pairs = int(positives.sum()) * int(negatives.sum())
    return int((positives * (2 * below + negatives)).sum()) / (2 * pairs) if pairs else None


def _log_loss(right: NDArray[np.float32]) -> float:
    """Mean negative log probability of the true labels."""
    smallest = np.finfo(right.dtype).eps
    return float(-np.log(np.clip(right, smallest, 1 - smallest).astype(np.float64)).mean())


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
