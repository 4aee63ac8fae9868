"""Metrics by task: `metrics` compares what a model says with what is true, each with its bootstrap interval.

`differences` compares two models on the same rows. The numbers are those of scikit-learn on the same predictions; a
metric that is not defined is None.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentray.decision import MOST_PROBABLE
from sentray.task import Task

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
    truth: NDArray[Any],
    probabilities: Floats,
    labels: Sequence[str],
    predicted: NDArray[Any] | None = None,
    task: Task = "classification",
    intervals: bool = True,
) -> dict[str, Any]:
    """All metrics as JSON values; precision, recall and F1 without a label are the labels' plain means.

    Precision without predictions of a label and recall without rows of it count as 0. Rows that got no label count in
    what is about probabilities alone: `roc_auc`, `pr_auc` (average precision; of several labels the mean of each
    against the others), `log_loss`, `brier` and `ece`, the expected calibration error of the most probable label.

    An ordinal scale also has `mean_absolute_error`, in the labels' numbers, and `quadratic_kappa`, Cohen's kappa with
    the squares of the steps between as weights. Multilabel: `exact_match` is the share of rows that got all their
    labels and no other, `hamming_loss` that of wrong decisions; of log loss, Brier score and calibration each decision
    is one of two labels, and areas are the mean of the labels that some rows have and some have not. Regression:
    `mean_absolute_error`, `rmse`, `r2`, `pearson` and `spearman`.

    `intervals` are of 95 %, by the percentiles of a bootstrap. Of many rows a part is drawn anew, and its intervals are
    made as narrow as those of all rows; `bootstrap` says how many.

    Args:
        truth: Of each row what a training set has: the position of its label, [rows]; multilabel: 1 for each label that
            it has, [rows, labels]; regression: its number, [rows].
        probabilities: Of each label, [rows, labels]; regression: the numbers, [rows, 1].
        labels: Names; those of an ordinal scale are numbers.
        predicted: What each row got, as `Decision.of` gives it, which is asked without thresholds where not given.
        task: What is asked.
        intervals: Whether to find them, which takes most of the time.
    """
    rows, count = probabilities.shape
    if predicted is None:
        predicted = MOST_PROBABLE.of(probabilities, task)
    given = _Given(truth, probabilities, predicted)
    found, ends, bootstrap = _bootstrapped(
        lambda some, weights: _FIGURES[task](given.rows(some), weights, labels), rows, count, intervals
    )

    def those_of(label: int | None) -> dict[str, Any]:
        """The metrics of a label, or of all together, and their intervals."""
        return {
            **{name: _json(values[0]) for (name, at), values in found.items() if at == label},
            "intervals": {name: values for (name, at), values in ends.items() if at == label},
        }

    about: dict[str, Any] = {}
    of_label = truth.sum(0) if task == "multilabel" else np.zeros(0, int)
    if task in ("classification", "ordinal"):
        decided = predicted >= 0
        cells = truth[decided] * count + predicted[decided]
        confusion = np.bincount(cells, minlength=count * count).reshape(count, count)
        about, of_label = {"confusion_matrix": confusion.tolist()}, confusion.sum(1)
        unsure = int(rows - decided.sum())
        about |= {"unsure_rows": unsure} if unsure else {}
    return {
        "rows": rows,
        **those_of(None),
        "bootstrap": bootstrap,
        "labels": list(labels),
        "classes": {label: {**those_of(at), "rows": int(of_label[at])} for at, label in enumerate(labels)},
        **about,
    }


def differences(
    truth: NDArray[Any],
    first: tuple[Floats, NDArray[Any]],
    second: tuple[Floats, NDArray[Any]],
    labels: Sequence[str],
    task: Task = "classification",
) -> dict[str, Any]:
    """How much greater each metric of all labels together is of a second model, on the rows of a first.

    The intervals are of 95 %, by the percentiles of a paired bootstrap: each time both are measured on the same rows.

    Args:
        truth: As for `metrics`.
        first: Probabilities and what the rows got, as for `metrics`.
        second: The same of the second model.
        labels: Names.
        task: What is asked.

    Returns:
        The differences by the metrics' names, None where one is not defined, their `intervals`, and `bootstrap`.
    """
    both = [_Given(truth, *each) for each in (first, second)]

    def measured(some: Integers, weights: Floats) -> dict[Metric, Floats]:
        one, other = (_FIGURES[task](given.rows(some), weights, labels) for given in both)
        return {name: other[name] - one[name] for name in one if name[1] is None}

    # Twice as many weights are looked at.
    found, ends, bootstrap = _bootstrapped(measured, len(truth), 2 * max(len(labels), 1))
    return {
        **{name: _json(values[0]) for (name, _), values in found.items()},
        "intervals": {name: values for (name, _), values in ends.items()},
        "bootstrap": bootstrap,
    }


def calibration_curve(truth: NDArray[Any], probabilities: Floats) -> list[dict[str, float]]:
    """Of the rows in each bin of the most probable label's probability: its mean, how often it is right, and `rows`.

    Of the task multilabel these are the decisions, one a row and label.
    """
    sure, right, of_bin = (each.ravel() for each in _confidence(truth, probabilities))
    rows = np.bincount(of_bin, minlength=BINS)
    sums = [np.bincount(of_bin, values, BINS) for values in (sure, right)]
    return [
        {"probability": float(sums[0][at] / rows[at]), "right": float(sums[1][at] / rows[at]), "rows": int(rows[at])}
        for at in np.flatnonzero(rows)
    ]


class _Given(NamedTuple):
    """Of some rows what is true, the probabilities and what they got; see `metrics`."""

    truth: NDArray[Any]
    probabilities: Floats
    predicted: NDArray[Any]

    def rows(self, some: Integers) -> "_Given":
        """Some of the rows, by their positions."""
        return _Given(*(values[some] for values in self))


def _of_classes(given: _Given, weights: Floats, labels: Sequence[str]) -> dict[Metric, Floats]:
    """The metrics where each row counts as often as its weight says, for several weights of the rows at once.

    Args:
        given: Of the rows.
        weights: [times, rows].
        labels: Names.

    Returns:
        float64 [times] each; not a number where it is not defined.
    """
    truth, probabilities, predicted = given
    (rows, count), kind = probabilities.shape, weights.dtype
    decided = weights * (predicted >= 0)
    # [times, labels] each.
    of_label, as_label, right = (
        np.stack([decided @ (values == label).astype(kind) for label in range(count)], axis=1).astype(np.float64)
        for values in (truth, predicted, np.where(truth == predicted, truth, -1))
    )
    total, hits = of_label.sum(1), right.sum(1)
    of_each = _of_each(right, as_label, of_label)
    by_chance = (of_label * as_label).sum(1)
    spread = (total**2 - (of_label**2).sum(1)) * (total**2 - (as_label**2).sum(1))
    ranked = range(1, 2) if count == 2 else range(count)
    areas = [_areas(truth == label, probabilities[:, label], weights) for label in ranked]
    of_truth = probabilities[np.arange(rows), truth].astype(np.float64)
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
            "log_loss": weights @ _surprise(of_truth, probabilities).astype(kind) / weights.sum(1),
            "brier": weights @ squares.astype(kind) / weights.sum(1),
            "ece": _calibration_error(truth, probabilities, weights),
        }
    return _by_metric(of_all, of_each)


def _of_steps(given: _Given, weights: Floats, labels: Sequence[str]) -> dict[Metric, Floats]:
    """As `_of_classes`, of an ordinal scale."""
    numbers = np.array(labels, np.float64)
    truth, predicted = given.truth.astype(np.float64), given.predicted.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [_mean(values, weights) for values in (truth, predicted, truth**2 + predicted**2, truth * predicted)]
        apart = means[2] - 2 * means[3]
        steps = {
            "mean_absolute_error": _mean(np.abs(numbers[given.truth] - numbers[given.predicted]), weights),
            # The mean square of the steps between, and what it would be of truths and predictions paired at random.
            "quadratic_kappa": 1 - apart / (means[2] - 2 * means[0] * means[1]),
        }
    return {**_of_classes(given, weights, labels), **_by_metric(steps, {})}


def _of_label_sets(given: _Given, weights: Floats, labels: Sequence[str]) -> dict[Metric, Floats]:
    """As `_of_classes`, of the task multilabel."""
    probabilities, kind = given.probabilities, weights.dtype
    truth, predicted = given.truth.astype(bool), given.predicted.astype(bool)
    # [times, labels] each.
    of_label, as_label, right = (
        (weights @ values.astype(kind)).astype(np.float64) for values in (truth, predicted, truth & predicted)
    )
    of_each = _of_each(right, as_label, of_label)
    areas = np.array([_areas(*each, weights) for each in zip(truth.T, probabilities.T, strict=True)])
    # Of labels that all rows have, or none, there is no area, nor would their precision say anything.
    areas[:, 1][np.isnan(areas[:, 0])] = np.nan
    of_each |= {"roc_auc": areas[:, 0].T, "pr_auc": areas[:, 1].T}
    of_truth = np.where(truth, probabilities, 1 - probabilities).astype(np.float64)
    micro = [values.sum(1) for values in (right, as_label, of_label)]
    of_rows = {
        "exact_match": (truth == predicted).all(1),
        "hamming_loss": (truth != predicted).mean(1),
        "log_loss": _surprise(of_truth, probabilities).mean(1),
        "brier": ((1 - of_truth) ** 2).mean(1),
        "cardinality": truth.sum(1),
        "predicted_cardinality": predicted.sum(1),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        of_all = {
            **{name: _mean(values, weights) for name, values in of_rows.items()},
            **{f"micro_{name}": values for name, values in _of_each(*micro).items()},
            **{name: _defined_mean(values) for name, values in of_each.items()},
            "ece": _calibration_error(truth, probabilities, weights),
        }
    return _by_metric(of_all, of_each)


def _of_numbers(given: _Given, weights: Floats, labels: Sequence[str]) -> dict[Metric, Floats]:
    """As `_of_classes`, of a regression."""
    # About the middle, so that nothing is lost to large numbers.
    middle = given.truth.mean(dtype=np.float64) if len(given.truth) else 0.0
    truth, predicted = given.truth - middle, given.predicted - middle
    errors = predicted - truth
    with np.errstate(invalid="ignore", divide="ignore"):
        of_all = {
            "mean_absolute_error": _mean(np.abs(errors), weights),
            "rmse": np.sqrt(_mean(errors**2, weights)),
            "r2": 1 - _mean(errors**2, weights) / _covariance(truth, truth, weights),
            "pearson": _correlation(truth, predicted, weights),
            "spearman": _correlation(_ranks(truth, weights), _ranks(predicted, weights), weights),
        }
    return _by_metric(of_all, {})


_FIGURES: dict[Task, Callable[[_Given, Floats, Sequence[str]], dict[Metric, Floats]]] = {
    "classification": _of_classes,
    "ordinal": _of_steps,
    "multilabel": _of_label_sets,
    "regression": _of_numbers,
}


def _by_metric(of_all: Mapping[str, Floats], of_each: Mapping[str, Floats]) -> dict[Metric, Floats]:
    """Figures of all labels together, [times], and of each, [times, labels], as one."""
    found: dict[Metric, Floats] = {(name, None): values for name, values in of_all.items()}
    return found | {(name, at): values[:, at] for name, values in of_each.items() for at in range(values.shape[1])}


def _of_each(right: Floats, given: Floats, had: Floats) -> dict[str, Floats]:
    """Precision, recall and F1 by how many rows got a label rightly, how many got it and how many have it."""
    return {
        "precision": _ratio(right, given),
        "recall": _ratio(right, had),
        "f1": _ratio(2 * right, given + had),
    }


def _surprise(of_truth: Floats, probabilities: Floats) -> Floats:
    """Log loss of each probability of what is true; none is infinite, as those of scikit-learn."""
    smallest = np.finfo(probabilities.dtype).eps
    loss: Floats = -np.log(np.clip(of_truth, smallest, 1 - smallest))
    return loss


def _mean(values: NDArray[Any], weights: Floats) -> Floats:
    """Weighted means of values of the rows, which may differ from time to time."""
    weighted = weights @ values.astype(np.float64) if values.ndim == 1 else (weights * values).sum(1, dtype=np.float64)
    mean: Floats = weighted / weights.sum(1)
    return mean


def _defined_mean(values: Floats) -> Floats:
    """Means over the labels of which a figure is defined."""
    defined = np.isfinite(values)
    mean: Floats = np.where(defined, values, 0).sum(1) / defined.sum(1)
    return mean


def _covariance(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Of two values of the rows, [rows] or [times, rows]."""
    return _mean(one * other, weights) - _mean(one, weights) * _mean(other, weights)


def _correlation(one: Floats, other: Floats, weights: Floats) -> Floats:
    spread = _covariance(one, one, weights) * _covariance(other, other, weights)
    # Values that are all alike leave what rounding makes of nothing.
    spread = np.where(spread > 1e-14 * _mean(one**2, weights) * _mean(other**2, weights), spread, np.nan)
    return _covariance(one, other, weights) / np.sqrt(spread)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Ranks of values where each row counts as often as its weight says, those alike at their middle; [times, rows]."""
    if not len(values):
        return np.zeros(weights.shape)
    _, which = np.unique(values, return_inverse=True)
    order = np.argsort(which, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(which[order])) + 1)
    alike = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    return (alike.cumsum(1) - alike / 2)[:, which]


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


def _confidence(truth: NDArray[Any], probabilities: Floats) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Probability of each row's most probable label, whether that is the true one, and the bin it falls in; [rows, 1].

    Of the task multilabel the same of each label by itself, which a row has or not; [rows, labels].
    """
    if truth.ndim == 2:
        sure, right = np.maximum(probabilities, 1 - probabilities), (probabilities > 0.5) == truth.astype(bool)
    else:
        sure = probabilities.max(axis=1, initial=0, keepdims=True)
        right = (probabilities.argmax(axis=1) == truth)[:, None]
    sure = sure.astype(np.float64)
    return sure, right, np.minimum((sure * BINS).astype(np.int64), BINS - 1)


def _calibration_error(truth: NDArray[Any], probabilities: Floats, weights: Floats) -> Floats:
    sure, right, of_bin = _confidence(truth, probabilities)
    gaps = [weights @ ((of_bin == each) * (sure - right)).mean(1).astype(weights.dtype) for each in range(BINS)]
    error: Floats = np.abs(gaps).sum(0) / weights.sum(1)
    return error


def _bootstrapped(
    measured: Callable[[Integers, Floats], dict[Metric, Floats]], rows: int, labels: int, intervals: bool = True
) -> tuple[dict[Metric, Floats], dict[Metric, list[float]], dict[str, float]]:
    """Figures of all rows, by metric the limits of the interval where it is defined, and how they were found.

    Args:
        measured: Gives the figures of some rows, by their positions, for several weights of them, [times, rows].
        rows: How many there are.
        labels: How often the weights are looked at for a figure.
        intervals: Whether to find any.
    """
    every = np.arange(rows)
    found = measured(every, np.ones((1, rows)))
    resampled = min(rows, MAX_RESAMPLED, max(1000, 3 * MAX_RESAMPLED // labels))
    resamples = max(MIN_RESAMPLES, min(RESAMPLES, _WORK // (labels * max(resampled, 1))))
    about = {"level": LEVEL, "resamples": resamples, "rows": resampled}
    if not rows or not intervals:
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
    limits = {}
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values) and np.isfinite(found[name][0]):
            ends = found[name][0] + (np.percentile(values, tails) - middle[name][0]) * narrower
            limits[name] = ends.tolist()
    return found, limits, about


def _json(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Their quotient, and 0 where the divisor is."""
    quotient: Floats = np.divide(part, whole, out=np.zeros(part.shape, np.result_type(part, 1.0)), where=whole > 0)
    return quotient
