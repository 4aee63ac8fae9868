"""What is asked of a review (`Task`): its one label, all labels that fit, its step on a scale, or a number.

A network gives a row of outputs for a review. What they are for each task `wanted` says in training and `probabilities`
in scoring, so that everything between the two computes with rows of outputs and asks nobody for the task.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

# The command line's options need the tasks' names, and not NumPy.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Task = Literal["classification", "multilabel", "ordinal", "regression"]
Floats: TypeAlias = "NDArray[np.floating[Any]]"

VALUE = "value"
"""What the number of a regression is called, where others have a label."""
NO_LABEL = ""
"""Where rows are counted by label, those without one: a bundle is unsure of them, or none of several labels fits."""
SEPARATOR = "\x1f"
"""Between the labels of a row of the task multilabel, in a column of one string a row; sorted, each once."""


def outputs(task: Task, labels: int) -> int:
    """Numbers that a network gives for a review.

    Of two classes that of the second; of several, one each. Multilabel: one each. Ordinal: for each step but the first
    whether the review reaches it (a cumulative link; Frank and Hall 2001, Cheng et al. 2008). Regression: the number.

    Args:
        task: What is asked.
        labels: How many there are; 0 for regression.
    """
    if task == "classification":
        return 1 if labels == 2 else labels
    return {"multilabel": labels, "ordinal": labels - 1, "regression": 1}[task]


def activation(task: Task, labels: int) -> Literal["sigmoid", "softmax", "linear"]:
    """What makes a network's last sums its outputs."""
    if task == "regression":
        return "linear"
    return "softmax" if task == "classification" and labels != 2 else "sigmoid"


def wanted(task: Task, targets: "NDArray[Any]", labels: int) -> "NDArray[Any]":
    """What a network should give for some reviews, as its loss takes it.

    Args:
        task: What is asked.
        targets: Of the reviews. Classification and ordinal: positions of their labels, int32 [reviews]; multilabel: 1
            for each label that they have, uint8 [reviews, labels]; regression: their numbers, float32 [reviews].
        labels: How many there are.

    Returns:
        Classification: the targets. Else float32 [reviews, outputs].
    """
    import numpy as np

    if task == "classification":
        return targets
    if task == "ordinal":
        return (targets[:, None] > np.arange(labels - 1)).astype(np.float32)
    return targets.astype(np.float32).reshape(len(targets), 1 if targets.ndim == 1 else labels)


def hits(task: Task, targets: "NDArray[Any]", labels: int) -> "NDArray[np.float32]":
    """As `wanted`, for a classification too 1 where an output should be high; float32 [reviews, outputs]."""
    import numpy as np

    if task == "classification":
        return np.asarray(targets[:, None] == np.arange(labels)[-outputs(task, labels) :], np.float32)
    return wanted(task, targets, labels)


def probabilities(task: Task, found: Floats) -> Floats:
    """Probability of each label from a network's outputs; of regression the numbers as they are.

    Args:
        task: What is asked.
        found: [reviews, outputs].

    Returns:
        [reviews, labels]. Multilabel: each by itself. Else they sum to 1; a step that is less likely reached than a
        higher one counts as likely as that.
    """
    import numpy as np

    if task == "ordinal":
        reached = np.minimum.accumulate(found, axis=1)
        return np.hstack([1 - reached[:, :1], reached[:, :-1] - reached[:, 1:], reached[:, -1:]])
    if task == "classification" and found.shape[1] == 1:
        return np.hstack([1 - found, found])
    return found


def join(labels: Sequence[str]) -> str:
    """Several labels of a row as one string; see `SEPARATOR`."""
    return SEPARATOR.join(sorted(set(labels)))


def split(joined: str) -> list[str]:
    """The labels of such a string."""
    return joined.split(SEPARATOR) if joined else []
