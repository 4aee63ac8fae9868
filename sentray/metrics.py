"""Classification metrics by map and sum: the merged `Tally` of all blocks of rows gives the metrics.

The numbers are those of scikit-learn on the same predictions; a metric that is not defined is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """How often each distinct score was given to rows of a class and to others: enough for an exact ROC AUC.

    Attributes:
        scores: float32, distinct and ascending.
        positives: int64, rows of the class with that score.
        negatives: int64, other rows with that score.
    """

    scores: NDArray[np.float32]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        positives: NDArray[np.integer[Any]],
        negatives: NDArray[np.integer[Any]],
    ) -> Self:
        """Sum the counts of equal scores."""
        distinct, place = np.unique(scores, return_inverse=True)
        counts = np.zeros((2, len(distinct)), np.int64)
        np.add.at(counts[0], place, positives)
        np.add.at(counts[1], place, negatives)
        return cls(distinct, counts[0], counts[1])

    @classmethod
    def merge(cls, parts: Sequence["Ranking"]) -> Self:
        """The ranking of all parts' rows together."""
        return cls.of(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.positives for part in parts]),
            np.concatenate([part.negatives for part in parts]),
        )

    def auc(self) -> float | None:
        """Chance that a row of the class scores above another, ties counting half; None without both."""
        below = np.cumsum(self.negatives) - self.negatives
        pairs = int(self.positives.sum()) * int(self.negatives.sum())
        return int((self.positives * (2 * below + self.negatives)).sum()) / (2 * pairs) if pairs else None


@dataclass(frozen=True)
class Tally:
    """What a set of labelled predictions adds to the metrics.

    Attributes:
        confusion: int64 [labels, labels], rows by true label (first axis) and predicted label.
        loss: Sum of the negative log probabilities of the true labels.
        rankings: One for each label; for two labels only that of the second.
    """

    confusion: NDArray[np.int64]
    loss: float
    rankings: tuple[Ranking, ...]

    @classmethod
    def of(cls, truth: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]) -> Self:
        """Tally rows, given their labels' positions [rows] and the probabilities [rows, labels]."""
        labels = probabilities.shape[1]
        predicted = np.argmax(probabilities, axis=1)
        confusion = np.bincount(truth * labels + predicted, minlength=labels * labels)
        smallest = np.finfo(probabilities.dtype).eps
        right = probabilities[np.arange(len(truth)), truth]
        loss = -np.log(np.clip(right, smallest, 1 - smallest).astype(np.float64)).sum()
        ranked = range(1, 2) if labels == 2 else range(labels)
        return cls(
            confusion.reshape(labels, labels).astype(np.int64),
            float(loss),
            tuple(Ranking.of(probabilities[:, label], truth == label, truth != label) for label in ranked),
        )

    @classmethod
    def merge(cls, parts: Sequence["Tally"]) -> Self:
        """The tally of all parts' rows together."""
        return cls(
            np.sum([part.confusion for part in parts], axis=0, dtype=np.int64),
            sum(part.loss for part in parts),
            tuple(Ranking.merge(rankings) for rankings in zip(*(part.rankings for part in parts), strict=True)),
        )

    @property
    def rows(self) -> int:
        """Rows tallied."""
        return int(self.confusion.sum())

    def metrics(self, labels: Sequence[str]) -> dict[str, Any]:
        """All metrics as JSON values; precision, recall and F1 without a label are the labels' plain means.

        Precision without predictions of a label and recall without rows of it count as 0.
        """
        right = np.diag(self.confusion)
        precision = _ratio(right, self.confusion.sum(axis=0))
        recall = _ratio(right, self.confusion.sum(axis=1))
        f1 = _ratio(2 * right, self.confusion.sum(axis=0) + self.confusion.sum(axis=1))
        areas = [ranking.auc() for ranking in self.rankings]
        defined = [area for area in areas if area is not None]
        return {
            "rows": self.rows,
            "accuracy": float(right.sum() / self.rows) if self.rows else None,
            "precision": float(precision.mean()),
            "recall": float(recall.mean()),
            "f1": float(f1.mean()),
            "roc_auc": sum(defined) / len(areas) if len(defined) == len(areas) else None,
            "log_loss": self.loss / self.rows if self.rows else None,
            "labels": list(labels),
            "classes": {
                label: {
                    "precision": float(precision[place]),
                    "recall": float(recall[place]),
                    "f1": float(f1[place]),
                    "rows": int(self.confusion[place].sum()),
                }
                for place, label in enumerate(labels)
            },
            "confusion_matrix": self.confusion.tolist(),
        }


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
