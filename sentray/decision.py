"""From probabilities to labels: a `Decision` is part of a bundle, `choose_threshold` finds its thresholds."""

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sentray.corpus.limits import MAX_LABELS
from sentray.task import Task

UNSURE = -1
"""Stands for a label's position where a review gets none."""

_Share = Annotated[float, Field(ge=0, le=1)]
Floats = NDArray[np.floating[Any]]


class Decision(BaseModel):
    """How a model's probabilities become labels.

    Of a classification the most probable label is taken, where neither threshold nor range says otherwise; of an
    ordinal scale the median, the first step up to which the probabilities make one half, which has the least mean
    absolute error; of several labels each that is above its threshold.

    Attributes:
        threshold: A review gets the second of two labels where that label's probability is above it.
        unsure: From and to where of that probability a review gets no label.
        thresholds: Of the task multilabel that of each label; 0.5 where not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: _Share | None = None
    unsure: tuple[_Share, _Share] | None = None
    thresholds: Annotated[tuple[_Share, ...], Field(max_length=MAX_LABELS)] | None = None

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.unsure is not None and self.unsure[0] > self.unsure[1]:
            raise ValueError("its range of no label ends before it begins")
        return self

    def require_fits(self, task: Task, labels: int) -> None:
        """Refuse a decision that is none of such a model.

        Raises:
            ValueError: What it cannot have.
        """
        if (self.threshold, self.unsure) != (None, None) and (task, labels) != ("classification", 2):
            raise ValueError("it has a threshold, which only two labels can have")
        if self.thresholds is not None and (task, labels) != ("multilabel", len(self.thresholds)):
            raise ValueError(f"it has {len(self.thresholds)} thresholds for {labels} labels of the task {task}")

    def of(self, probabilities: Floats, task: Task = "classification") -> NDArray[Any]:
        """What each review gets, as a training set has its targets.

        Args:
            probabilities: Of each label, [reviews, labels]; of a regression the numbers, [reviews, 1].
            task: What is asked.

        Returns:
            The position of the label, of equally probable ones the first, or `UNSURE`, int64 [reviews]; multilabel:
            whether it gets each label, bool [reviews, labels]; regression: the number, as given, [reviews].
        """
        if task == "regression":
            return np.asarray(probabilities[:, 0])
        if task == "ordinal":
            return np.asarray(np.argmax(probabilities.cumsum(axis=1, dtype=np.float64) >= 0.5, axis=1))
        # Compared as it is stored: a threshold lies between two probabilities that may be next to each other.
        if task == "multilabel":
            thresholds = np.array(self.thresholds or [0.5] * probabilities.shape[1])
            return np.asarray(probabilities.astype(np.float64) > thresholds)
        classes: NDArray[np.int64] = np.argmax(probabilities, axis=1)
        if self.threshold is None and self.unsure is None:
            return classes
        second = probabilities[:, 1].astype(np.float64)
        if self.threshold is not None:
            classes = (second > self.threshold).astype(np.int64)
        if self.unsure is not None:
            classes[(second >= self.unsure[0]) & (second <= self.unsure[1])] = UNSURE
        return classes


MOST_PROBABLE = Decision()
"""Takes the most probable label, the median step, or each label above 0.5."""


def choose_threshold(rule: str, truth: NDArray[np.integer[Any]], second: Floats) -> float | None:
    """The threshold that a rule asks for, on reviews that the model was not trained on.

    Args:
        rule: `f1` (of the second label) or `balanced` (accuracy): where it is largest; `precision=P`: the lowest
            threshold above which a share P of the reviews are of the second label; or the threshold itself.
        truth: Positions of the true labels, 0 or 1; [reviews].
        second: Probability of the second label; [reviews].

    Returns:
        None where no threshold has such a precision, every probability is 0, or all reviews have one label.
    """
    name, _, value = rule.partition("=")
    if name not in ("f1", "balanced", "precision"):
        return float(rule)
    order = np.argsort(-second, kind="stable")
    scores, positive = second[order].astype(np.float64), truth[order] == 1
    if positive.all() or not positive.any():
        return None
    # Before the first and behind each distinct probability: how many reviews are above a threshold there.
    above = np.concatenate([[0], np.flatnonzero(np.diff(scores)) + 1, [len(scores)]])
    # No threshold is below 0.
    above = above[(above == 0) | (scores[above - 1] > 0)]
    if len(above) == 1:
        return None
    # How many of them rightly.
    right = np.concatenate([[0.0], np.cumsum(positive)])[above]
    positives, negatives = float(positive.sum()), float((~positive).sum())
    if name == "precision":
        fits = np.flatnonzero(right >= float(value) * np.maximum(above, 1))
        if not len(fits):
            return None
        best = int(fits[-1])
    elif name == "f1":
        best = int(np.argmax(2 * right / (above + positives)))
    else:
        best = int(np.argmax(right / max(positives, 1) + (negatives - (above - right)) / max(negatives, 1)))
    between = [scores[max(above[best] - 1, 0)], scores[above[best]] if above[best] < len(scores) else 0.0]
    return float(np.mean(between))


def choose_thresholds(rule: str, truth: NDArray[Any], probabilities: Floats) -> tuple[float, ...]:
    """A threshold for each of several labels, on reviews that the model was not trained on; 0.5 where none fits.

    Args:
        rule: As for `choose_threshold`, of each label by itself.
        truth: 1 for each label that a review has; [reviews, labels].
        probabilities: Of each label; [reviews, labels].
    """
    found = (choose_threshold(rule, *columns) for columns in zip(truth.T, probabilities.T, strict=True))
    return tuple(0.5 if threshold is None else threshold for threshold in found)
