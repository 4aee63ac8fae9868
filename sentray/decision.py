"""From probabilities to labels: a `Decision` is part of a bundle, `choose_threshold` finds its threshold."""

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

UNSURE = -1
"""Stands for a label's position where a review gets none."""

_Share = Annotated[float, Field(ge=0, le=1)]
Floats = NDArray[np.floating[Any]]


class Decision(BaseModel):
    """How a model's probabilities become labels; without threshold and range the most probable label is taken.

    Attributes:
        threshold: A review gets the second of two labels where that label's probability is above it.
        unsure: From and to where of that probability a review gets no label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: _Share | None = None
    unsure: tuple[_Share, _Share] | None = None

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.unsure is not None and self.unsure[0] > self.unsure[1]:
            raise ValueError("its range of no label ends before it begins")
        return self

    def classes(self, probabilities: Floats) -> NDArray[np.int64]:
        """Position of each review's label, the first of equally probable ones, or `UNSURE`; int64 [reviews].

        Args:
            probabilities: Of each label; [reviews, labels].
        """
        classes: NDArray[np.int64] = np.argmax(probabilities, axis=1)
        if self.threshold is None and self.unsure is None:
            return classes
        # Compared as it is stored: a threshold lies between two probabilities that may be next to each other.
        second = probabilities[:, 1].astype(np.float64)
        if self.threshold is not None:
            classes = (second > self.threshold).astype(np.int64)
        if self.unsure is not None:
            classes[(second >= self.unsure[0]) & (second <= self.unsure[1])] = UNSURE
        return classes


MOST_PROBABLE = Decision()
"""Takes the most probable label."""


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
    # Before the first and behind each distinct probability: how many reviews are above a threshold there.
    above = np.concatenate([[0], np.flatnonzero(np.diff(scores)) + 1, [len(scores)]])
    # No threshold is below 0.
    above = above[(above == 0) | (scores[above - 1] > 0)]
    if len(above) == 1 or positive.all() or not positive.any():
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
