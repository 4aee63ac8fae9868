"""From held-out logits to calibrated outputs: `fit_mix` finds the weight of each head and so the temperature.

Temperature scaling (Guo et al. 2017) divides logits by one number, so that a probability of 0.9 is right nine times in
ten on rows that the network has not seen. Several heads are mixed by a logistic regression over their logits, whose
weights say how much of each is taken and, together, how sure the sum is. Of the outputs of several labels and of steps
each is a decision of its own, and all share the weights; the numbers of a regression are mixed by least squares.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import task as tasks
from sentray.task import Task

Floats = NDArray[np.floating[Any]]
Wanted = NDArray[Any]

RIDGE = 1.0
"""Holds the weights near the heads' plain mean where few held-out rows say otherwise; some hundred rows outweigh it."""
MIN_WEIGHT = 1e-3
"""Of a single head: one that is worth nothing says so, and keeps its order of the reviews."""
PARTS = 5
"""For honest figures a row's mix is fitted on the other rows: those of four parts of five."""
MAX_NUMBERS = 1 << 20
"""Of the rows that a mix is fitted on, labels and heads together; of more rows every second one is taken, and so on."""
_STEPS, _NEAR, _TINY = 100, 1e-7, 1e-12


@dataclass(frozen=True)
class Mix:
    """One logit of several heads' logits: their weighted sum and a bias.

    Attributes:
        weights: Of each head.
        bias: Added to the sum; 0 where there is one head, or a softmax of more than two labels.
    """

    weights: tuple[float, ...]
    bias: float = 0.0

    @classmethod
    def mean(cls, heads: int) -> "Mix":
        """The heads' plain mean: what is taken as long as no held-out row says otherwise."""
        return cls((1 / heads,) * heads)

    @property
    def temperature(self) -> float:
        """What the heads' weighted mean is divided by."""
        return 1 / sum(self.weights)

    def scaled(self, mean: float, scale: float) -> "Mix":
        """The mix that gives numbers of such a mean and scale, in place of standardised ones."""
        return Mix(tuple(scale * weight for weight in self.weights), scale * self.bias + mean)

    def of(self, logits: Floats) -> Floats:
        """The mixed logits, float64 [rows, n], of float32 [rows, heads, n]."""
        mixed: Floats = np.tensordot(logits.astype(np.float64), np.array(self.weights), (1, 0)) + self.bias
        return mixed


def fit_mix(logits: Floats, wanted: Wanted, weights: Floats | None = None, task: Task = "classification") -> Mix:
    """The mix with the least loss on held-out rows, a convex problem; no head counts against the others.

    Args:
        logits: Of each head, float32 [rows, heads, outputs].
        wanted: What the outputs should be; see `sentray.task.wanted`.
        weights: Of the rows; all alike where not given.
        task: What is asked.
    """
    some = slice(None, None, -(-logits.size // MAX_NUMBERS) or 1)
    logits, wanted, weights = logits[some], wanted[some], None if weights is None else weights[some]
    if task != "classification":
        # Each output is a row of its own.
        weights = None if weights is None else np.repeat(weights, logits.shape[2])
        logits, wanted = logits.transpose(0, 2, 1).reshape(-1, logits.shape[1], 1), wanted.ravel()
    rows, heads, outputs = logits.shape
    if task == "regression":
        columns = np.concatenate([logits[:, :, 0], np.ones((rows, 1))], axis=1)
        targets, solve = wanted.astype(np.float64), _least_squares
    else:
        if outputs == 1:
            # Two labels of which the first has the logit 0; and of several heads the last column is the bias.
            columns = np.zeros((rows, 2, heads + (heads > 1)))
            columns[:, 1, :heads] = logits[:, :, 0]
            columns[:, 1, heads:] = 1
        else:
            columns = logits.transpose(0, 2, 1).astype(np.float64)
        targets, solve = np.zeros(columns.shape[:2]), _newton
        targets[np.arange(rows), wanted.astype(np.int64)] = 1
    each = np.ones(rows) if weights is None else weights.astype(np.float64)
    start = np.zeros(columns.shape[-1])
    start[:heads] = 1 / heads
    used = np.ones(len(start), bool)
    while True:
        found = np.zeros(len(start))
        found[used] = solve(columns[..., used], targets, each, start[used])
        worst = int(np.argmin(found[:heads]))
        if found[worst] >= 0 or used[:heads].sum() == 1:
            break
        used[worst] = False
    mixed = (
        found[:heads] if used[:heads].sum() > 1 else np.where(used[:heads], np.maximum(found[:heads], MIN_WEIGHT), 0)
    )
    return Mix(tuple(mixed.tolist()), float(found[heads:].sum()))


def cross_fitted(
    logits: Floats, wanted: Wanted, weights: Floats | None = None, task: Task = "classification"
) -> Floats:
    """Mixed logits of held-out rows, each by a mix that was fitted on the others; float64 [rows, outputs]."""
    part = np.arange(len(wanted)) % PARTS
    mixed = np.zeros((len(wanted), logits.shape[2]))
    for number in range(PARTS):
        others, mine = part != number, part == number
        mix = fit_mix(logits[others], wanted[others], None if weights is None else weights[others], task)
        mixed[mine] = mix.of(logits[mine])
    return mixed


def probabilities(logits: Floats, task: Task = "classification") -> NDArray[np.float32]:
    """Of each label, float32 [rows, labels], from logits as the network's last layer has them, [rows, outputs].

    Of a regression the numbers as they are, float32 [rows, 1].
    """
    logits = logits.astype(np.float64)
    if task == "regression":
        return logits.astype(np.float32)
    if task != "classification":
        return tasks.probabilities(task, 0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    return np.exp(_log_softmax(logits)).astype(np.float32)


def log_loss(logits: Floats, wanted: Wanted, weights: Floats | None = None, task: Task = "classification") -> float:
    """Mean loss of logits [rows, outputs], as training has it; see `sentray.training.losses.loss_of`."""
    logits = logits.astype(np.float64)
    if task == "regression":
        losses = ((logits - wanted) ** 2).sum(1) / 2
    elif task != "classification":
        losses = (np.logaddexp(0, logits) - logits * wanted).sum(1)
    else:
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        losses = -_log_softmax(logits)[np.arange(len(wanted)), wanted]
    return float(np.average(losses, weights=weights))


def right_share(logits: Floats, wanted: Wanted, task: Task = "classification") -> float:
    """Share of the rows whose own class is the most probable, or all of whose outputs are on the right side of a half.

    Of a regression of standardised numbers the share of their variance that is explained, R².
    """
    if task == "regression":
        return 1 - 2 * log_loss(logits, wanted, task=task)
    if task != "classification":
        return float(np.mean(((logits > 0) == (wanted > 0.5)).all(axis=1)))
    return float(np.mean(probabilities(logits).argmax(axis=1) == wanted))


def _log_softmax(logits: Floats) -> Floats:
    shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    logs: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _least_squares(columns: Floats, wanted: Floats, each: Floats, start: Floats) -> Floats:
    """The least of half the rows' squares and the ridge around `start`; the arguments are those of `_newton`."""
    weighted = columns * each[:, None]
    curve = weighted.T @ columns + RIDGE * np.eye(len(start))
    found: Floats = np.linalg.solve(curve, weighted.T @ wanted + RIDGE * start)
    return found


def _newton(columns: Floats, wanted: Floats, each: Floats, start: Floats) -> Floats:
    """The least of the rows' cross-entropies and the ridge around `start`, by Newton's steps, halved where too long.

    Args:
        columns: float64 [rows, labels, unknowns].
        wanted: 1 for each row's label and 0 for others; [rows, labels].
        each: Weight of each row.
        start: First values, which the ridge pulls to; [unknowns].
    """

    def value(unknowns: Floats) -> float:
        losses = (_log_softmax(columns @ unknowns) * wanted).sum(1)
        return float(RIDGE / 2 * ((unknowns - start) ** 2).sum() - each @ losses)

    flat, found, now = columns.reshape(-1, len(start)), start.copy(), value(start)
    for _ in range(_STEPS):
        chances = np.exp(_log_softmax(columns @ found))
        slope = ((chances - wanted) * each[:, None]).ravel() @ flat + RIDGE * (found - start)
        weighted = columns * (chances * each[:, None])[:, :, None]
        # Of each row the mean over its labels, which their spread is around.
        means = weighted.sum(1)
        curve = weighted.reshape(flat.shape).T @ flat - means.T @ (means / np.maximum(each, _TINY)[:, None])
        step = np.linalg.solve(curve + RIDGE * np.eye(len(start)), slope)
        if np.abs(step).max() < _NEAR:
            break
        while (then := value(found - step)) > now and np.abs(step).max() > _NEAR:
            step = step / 2
        found, now = found - step, then
    return found
