"""What held-out rows say of a trained model: `validated` measures it and gives it its threshold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import bundle, profile
from sentray.bundle import Bundle, Calibration
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.corpus.inspect import warnings_of
from sentray.decision import Decision, choose_threshold, choose_thresholds
from sentray.metrics import calibration_curve, metrics
from sentray.task import Task, join
from sentray.training.calibration import PARTS, Mix, cross_fitted
from sentray.training.checkpoint import HeldOut, State

PROBABILITIES = ("ece", "brier", "log_loss")
BEFORE: dict[Task, tuple[str, ...]] = {"regression": ("mean_absolute_error", "rmse")}
"""Figures that are also given as they were before the outputs were calibrated; of probabilities `PROBABILITIES`."""
COMPARED: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "matthews", "roc_auc"),
    "ordinal": ("accuracy", "f1", "mean_absolute_error", "quadratic_kappa"),
    "multilabel": ("exact_match", "f1", "micro_f1", "roc_auc"),
    "regression": ("mean_absolute_error", "rmse", "r2", "spearman"),
}
"""Figures of what the bundle is set beside."""
CONSTANT: dict[Task, str] = {
    "classification": "most frequent label",
    "ordinal": "median label",
    "multilabel": "same labels for all",
    "regression": "mean number",
}
"""What says the same of every row."""


def validated(
    trained: Bundle, state: State, held_out: HeldOut | None, settings: TrainSettings, console: Console
) -> tuple[Bundle, dict[str, Any], NDArray[np.float32] | None]:
    """The bundle with its threshold and calibration, the held-out rows' figures and, where any, their probabilities.

    Args:
        trained: The bundle.
        state: In which training ended.
        held_out: Logits and labels of the held-out rows; None where there are none.
        settings: Of the run.
        console: Where to say what was found.
    """
    task, names = trained.spec.task, trained.labels
    if held_out is None or state.choice is None or (mix := state.choice.mix) is None:
        threshold = None if settings.threshold is None else float(settings.threshold)
        decision = Decision(threshold=threshold, unsure=_unsure(settings))
        if task == "multilabel":
            decision = Decision(thresholds=None if threshold is None else (threshold,) * len(names))
        return bundle.update(trained, decision=decision), {}, None
    logits, labels = held_out.logits, held_out.labels
    raw = held_out.scores(Mix.mean(logits.shape[1]).of(logits), task)
    calibrated = raw
    if settings.calibrate != "none":
        calibrated = held_out.scores(cross_fitted(logits, held_out.wanted, held_out.weights, task), task)
    decision = decision_of(settings, labels, calibrated, task)
    if task != "multilabel" and settings.threshold is not None and decision.threshold is None:
        console.note(
            f"no threshold fits --threshold {settings.threshold} on the held-out rows: the more probable label is taken"
        )
    decided = decision.of(calibrated, task)
    rule = (settings.threshold or "f1") if task == "multilabel" else None
    found = metrics(labels, calibrated, names, decided if rule is None else by_others(rule, labels, calibrated), task)
    values, rows = np.unique(labels, axis=0, return_counts=True) if names else ((), ())
    told = {_told(value, names): int(count) for value, count in zip(values, rows, strict=True)}
    for line in warnings_of(told, len(labels)):
        console.say(f"warning: {line}")
    if unknown := int((held_out.weights == 0).sum()):
        console.say(
            f"warning: {unknown:,} held-out rows have a label that no row has which their fit saw (or count nothing): "
            "so few rows of a label, or so many copies of one text, are little to learn from"
        )
    before = metrics(labels, raw, names, task=task) if settings.calibrate != "none" else found
    shares = [weight * mix.temperature for weight in mix.weights]
    heads = dict(zip(state.choice.epochs, shares, strict=True))
    calibration, curves = None, task != "regression"
    if settings.calibrate != "none":
        calibration = Calibration(temperature=mix.temperature, heads=heads, bias=mix.bias, rows=len(labels))
        by, what = (
            ("ece", "expected calibration error") if curves else ("rmse", "root of the mean square of the errors")
        )
        console.say(
            f"calibrated: temperature {mix.temperature:.3g}; on held-out rows {what} {before[by]:.4f} before, "
            f"{found[by]:.4f} after"
        )
    span = profile.span_of(calibrated[:, 0]) if task == "regression" else None
    found |= {
        "threshold": decision.threshold,
        **({} if decision.thresholds is None else {"thresholds": dict(zip(names, decision.thresholds, strict=True))}),
        "temperature": mix.temperature,
        "heads": heads,
        "epochs": dict(state.choice.epochs),
        "before_calibration": {
            **{name: before[name] for name in BEFORE.get(task, PROBABILITIES)},
            **({"calibration_curve": calibration_curve(labels, raw)} if curves else {}),
        },
        **({"calibration_curve": calibration_curve(labels, calibrated)} if curves else {}),
        **({} if span is None else {"span": span}),
        "score_histogram": profile.of_scores(calibrated, task, span).tolist(),
        "predicted": [] if task == "regression" else profile.of_labels(decided, len(names)).tolist(),
        **({"predicted_none": int((~decided.any(axis=1)).sum())} if task == "multilabel" else {}),
        "baselines": baselines(held_out, tuple(state.choice.epochs), names, task, rule),
    }
    return bundle.update(trained, calibration=calibration, decision=decision), found, calibrated


def _told(value: NDArray[Any], names: tuple[str, ...]) -> str:
    """What is true of a row, in words."""
    if np.ndim(value):
        return join([name for name, has in zip(names, value, strict=True) if has])
    return names[int(value)]


def decision_of(settings: TrainSettings, labels: NDArray[Any], chances: NDArray[np.float32], task: Task) -> Decision:
    """How probabilities become labels, as held-out rows say."""
    rule = settings.threshold or ("f1" if task == "multilabel" else None)
    if rule is None:
        return Decision(unsure=_unsure(settings))
    if task == "multilabel":
        return Decision(thresholds=choose_thresholds(rule, labels, chances))
    return Decision(threshold=choose_threshold(rule, labels, chances[:, 1]), unsure=_unsure(settings))


def _unsure(settings: TrainSettings) -> tuple[float, float] | None:
    low, _, high = (settings.unsure or "").partition(":")
    return (float(low), float(high)) if settings.unsure else None


def by_others(rule: str, truth: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of several labels each row gets by thresholds that other rows chose: those of four parts of five.

    Args:
        rule: Of the thresholds; see `choose_thresholds`.
        truth: 1 for each label that a row has, [rows, labels].
        probabilities: Of each label, [rows, labels].
    """
    part, found = np.arange(len(truth)) % PARTS, np.zeros(truth.shape, np.bool_)
    for number in range(PARTS):
        mine = part == number
        chosen = Decision(thresholds=choose_thresholds(rule, truth[~mine], probabilities[~mine]))
        found[mine] = chosen.of(probabilities[mine], "multilabel")
    return found


def baselines(
    held_out: HeldOut,
    heads: tuple[str, ...],
    labels: tuple[str, ...],
    task: Task = "classification",
    rule: str | None = None,
) -> dict[str, Any]:
    """Figures of what a bundle should be better than on the same rows: one answer for all, each head alone.

    Args:
        held_out: Logits and labels.
        heads: Names of the heads.
        labels: Of the bundle.
        task: What is asked.
        rule: Of the thresholds of several labels, which each has of its own, as the bundle; see `by_others`.

    Returns:
        By what it is the figures of `COMPARED`, with their `intervals`.
    """
    truth = held_out.labels
    if task in ("classification", "ordinal"):
        answer = np.bincount(truth, minlength=len(labels)) / len(truth)
    else:
        answer = np.atleast_1d(truth.mean(axis=0, dtype=np.float64))
    found = {CONSTANT[task]: np.tile(answer.astype(np.float32), (len(truth), 1))}
    if len(heads) > 1:
        found |= {f"{head} half alone": held_out.scores(held_out.logits[:, at], task) for at, head in enumerate(heads)}
    figures = {
        name: metrics(truth, values, labels, None if rule is None else by_others(rule, truth, values), task)
        for name, values in found.items()
    }
    compared = COMPARED[task]
    return {
        name: {
            **{each: of[each] for each in compared},
            "intervals": {each: of["intervals"][each] for each in compared if each in of["intervals"]},
        }
        for name, of in figures.items()
    }
