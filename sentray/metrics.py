"""Classification metrics: `metrics` compares probabilities with the true labels, each with its bootstrap interval.

`differences` compares two models on the same rows. The numbers are those of scikit-learn on the same predictions; a
metric that is not defined is None.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of the expected calibration error (Guo et al. 2017)."""
RESAMPLES, MIN_RESAMPLES, MAX_RESAMPLED, LEVEL = 1000, 200, 10_000, 0.95
"""How often rows are drawn anew for an interval (for very many labels not as often), of how many rows at most, and how
often an interval holds."""
_WORK, _AT_ONCE = 60_000_000, 1 << 17
"""Weights of rows that are looked at for an interval, for every label again, and that are computed with at a time."""

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Metric = tuple[str, int | None]
"""Name of a metric, and the position of the label that it is of; None where it is of all together."""


def metrics(
    truth: Integers,
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
    predicted: Integers | None = None,
) -> dict[str, Any]:
    """All metrics as JSON values; precision, recall and F1 without a label are the labels' plain means.

    Precision without predictions of a label and recall without rows of it count as 0. Rows that got no label count in
    what is about probabilities alone: `roc_auc`, `pr_auc` (average precision; of several labels the mean of each
    against the others), `log_loss`, `brier` and `ece`, the expected calibration error of the most probable label.

    `intervals` are of 95 %, by the percentiles of a bootstrap. Of many rows a part is drawn anew, and its intervals are
    made as narrow as those of all rows; `bootstrap` says how many.

    Args:
        truth: Positions of the rows' true labels; [rows].
        probabilities: Of each label; [rows, labels].
        labels: Names.
        predicted: Positions of the labels that the rows got, -1 for none; the most probable where not given.
    """
    rows, count = probabilities.shape
    if predicted is None:
        predicted = np.argmax(probabilities, axis=1)
    decided = predicted >= 0
    cells = truth[decided] * count + predicted[decided]
    confusion = np.bincount(cells, minlength=count * count).reshape(count, count)

    def measured(some: Integers, weights: Floats) -> dict[Metric, Floats]:
        return _measured(truth[some], probabilities[some], predicted[some], weights)

    found, ends, bootstrap = _bootstrapped(measured, rows, count)

    def those_of(label: int | None) -> dict[str, Any]:
        """The metrics of a label, or of all together, and their intervals."""
        return {
            **{name: _json(values[0]) for (name, at), values in found.items() if at == label},
            "intervals": {name: values for (name, at), values in ends.items() if at == label},
        }

    return {
        "rows": rows,
        **({"unsure_rows": int(rows - decided.sum())} if not decided.all() else {}),
        **those_of(None),
        "bootstrap": bootstrap,
        "labels": list(labels),
        "classes": {label: {**those_of(at), "rows": int(confusion[at].sum())} for at, label in enumerate(labels)},
        "confusion_matrix": confusion.tolist(),
    }


def differences(
    truth: Integers, first: tuple[Floats, Integers], second: tuple[Floats, Integers], labels: int
) -> dict[str, Any]:
    """How much greater each metric of all labels together is of a second model, on the rows of a first.

    The intervals are of 95 %, by the percentiles of a paired bootstrap: each time both are measured on the same rows.

    Args:
        truth: Positions of the rows' true labels; [rows].
        first: Probabilities of each label, [rows, labels], and positions of the labels that the rows got, -1 for none.
        second: The same of the second model.
        labels: How many there are.

    Returns:
        The differences by the metrics' names, None where one is not defined, their `intervals`, and `bootstrap`.
    """

    def measured(some: Integers, weights: Floats) -> dict[Metric, Floats]:
        one, other = (
            _measured(truth[some], probabilities[some], predicted[some], weights)
            for probabilities, predicted in (first, second)
        )
        return {name: other[name] - one[name] for name in one if name[1] is None}

    # Twice as many weights are looked at.
    found, ends, bootstrap = _bootstrapped(measured, len(truth), 2 * labels)
    return {
        **{name: _json(values[0]) for (name, _), values in found.items()},
        "intervals": {name: values for (name, _), values in ends.items()},
        "bootstrap": bootstrap,
    }


def calibration_curve(truth: Integers, probabilities: NDArray[np.floating[Any]]) -> list[dict[str, float]]:
    """Of the rows in each bin of the most probable label's probability: its mean, how often it is right, and `rows`."""
    sure, right, of_bin = _confidence(truth, probabilities)
    rows = np.bincount(of_bin, minlength=BINS)
    sums = [np.bincount(of_bin, values, BINS) for values in (sure, right)]
    return [
        {"probability": float(sums[0][at] / rows[at]), "right": float(sums[1][at] / rows[at]), "rows": int(rows[at])}
        for at in np.flatnonzero(rows)
    ]


def _measured(
    truth: Integers, probabilities: NDArray[np.floating[Any]], predicted: Integers, weights: Floats
) -> dict[Metric, Floats]:
    """The metrics where each row counts as often as its weight says, for several weights of the rows at once.

    Args:
        truth: Positions of the true labels; [rows].
        probabilities: Of each label; [rows, labels].
        predicted: Positions of the labels that the rows got, -1 for none; [rows].
        weights: [times, rows].

    Returns:
        float64 [times] each; not a number where it is not defined.
    """
    (rows, count), kind = probabilities.shape, weights.dtype
    decided = weights * (predicted >= 0)
    # [times, labels] each.
    of_label, as_label, right = (
        np.stack([decided @ (values == label).astype(kind) for label in range(count)], axis=1).astype(np.float64)
        for values in (truth, predicted, np.where(truth == predicted, truth, -1))
    )
    total, hits = of_label.sum(1), right.sum(1)
    of_each = {
        "precision": _ratio(right, as_label),
        "recall": _ratio(right, of_label),
        "f1": _ratio(2 * right, as_label + of_label),
    }
    by_chance = (of_label * as_label).sum(1)
    spread = (total**2 - (of_label**2).sum(1)) * (total**2 - (as_label**2).sum(1))
    ranked = range(1, 2) if count == 2 else range(count)
    areas = [_areas(truth == label, probabilities[:, label], weights) for label in ranked]
    of_truth = probabilities[np.arange(rows), truth].astype(np.float64)
    smallest = np.finfo(probabilities.dtype).eps
    wrong = probabilities.astype(np.float64)
    wrong[np.arange(rows), truth] -= 1
    squares = wrong[:, 1] ** 2 if count == 2 else (wrong**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_all = {
            "accuracy": hits / total,
            "balanced_accuracy": of_each["recall"].sum(1) / (of_label > 0).sum(1),
            **{name: values.mean(1) for name, values in of_each.items()},
            "matthews": _ratio(hits * total - by_chance, np.sqrt(spread)),
            "kappa": (hits * total - by_chance) / (total**2 - by_chance),
            "roc_auc": np.mean([area for area, _ in areas], axis=0),
            "pr_auc": np.mean([precision for _, precision in areas], axis=0),
            "log_loss": weights @ -np.log(np.clip(of_truth, smallest, 1 - smallest)).astype(kind) / weights.sum(1),
            "brier": weights @ squares.astype(kind) / weights.sum(1),
            "ece": _calibration_error(truth, probabilities, weights),
        }
    found: dict[Metric, Floats] = {(name, None): values for name, values in of_all.items()}
    return found | {(name, label): values[:, label] for name, values in of_each.items() for label in range(count)}


def _areas(positive: NDArray[np.bool_], scores: NDArray[np.floating[Any]], weights: Floats) -> tuple[Floats, Floats]:
    """ROC AUC, the chance that a positive row scores above another, ties counting half, and average precision."""
    if not len(scores):
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(scores[order])) + 1)
    of_all = np.add.reduceat(weights[:, order], starts, axis=1)
    of_positive = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    right, above = np.cumsum(of_positive, axis=1), np.cumsum(of_all, axis=1)
    positives, negatives = right[:, -1], above[:, -1] - right[:, -1]
    pairs = ((of_all - of_positive) * (right - of_positive / 2)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs / (positives * negatives), (of_positive * _ratio(right, above)).sum(1) / positives


def _confidence(
    truth: Integers, probabilities: NDArray[np.floating[Any]]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Probability of each row's most probable label, whether that is the true one, and the bin it falls in."""
    sure = probabilities.max(axis=1, initial=0).astype(np.float64)
    return sure, probabilities.argmax(axis=1) == truth, np.minimum((sure * BINS).astype(np.int64), BINS - 1)


def _calibration_error(truth: Integers, probabilities: NDArray[np.floating[Any]], weights: Floats) -> Floats:
    sure, right, of_bin = _confidence(truth, probabilities)
    gaps = [weights @ ((of_bin == each) * (sure - right)).astype(weights.dtype) for each in range(BINS)]
    error: Floats = np.abs(gaps).sum(0) / weights.sum(1)
    return error


def _bootstrapped(
    measured: Callable[[Integers, Floats], dict[Metric, Floats]], rows: int, labels: int
) -> tuple[dict[Metric, Floats], dict[Metric, list[float]], dict[str, float]]:
    """Figures of all rows, by metric the limits of the interval where it is defined, and how they were found.

    Args:
        measured: Gives the figures of some rows, by their positions, for several weights of them, [times, rows].
        rows: How many there are.
        labels: How often the weights are looked at for a figure.
    """
    every = np.arange(rows)
    found = measured(every, np.ones((1, rows)))
    resampled = min(rows, MAX_RESAMPLED, max(1000, 3 * MAX_RESAMPLED // labels))
    resamples = max(MIN_RESAMPLES, min(RESAMPLES, _WORK // (labels * max(resampled, 1))))
    about = {"level": LEVEL, "resamples": resamples, "rows": resampled}
    if not rows:
        return found, {}, about
    generator = np.random.default_rng(0)
    some = generator.choice(rows, resampled, replace=False) if resampled < rows else every
    middle = found if resampled == rows else measured(some, np.ones((1, resampled)))
    drawn: dict[Metric, list[Floats]] = {name: [] for name in found}
    at_once = max(1, _AT_ONCE // resampled)
    for start in range(0, resamples, at_once):
        times = min(at_once, resamples - start)
        draws = generator.integers(0, resampled, (times, resampled)) + resampled * np.arange(times)[:, None]
        counts = np.bincount(draws.ravel(), minlength=times * resampled).reshape(times, resampled)
        for name, values in measured(some, counts.astype(np.float32)).items():
            drawn[name].append(values)
    narrower, tails = np.sqrt(resampled / rows), [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    intervals = {}
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values) and np.isfinite(found[name][0]):
            ends = found[name][0] + (np.percentile(values, tails) - middle[name][0]) * narrower
            intervals[name] = ends.tolist()
    return found, intervals, about


def _json(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Their quotient, and 0 where the divisor is."""
    quotient: Floats = np.divide(part, whole, out=np.zeros(part.shape, np.result_type(part, 1.0)), where=whole > 0)
    return quotient
