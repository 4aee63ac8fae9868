"""What held-out rows say of a trained model: `validated` measures it and gives it its threshold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import bundle, profile
from sentray.bundle import Bundle, Calibration
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.corpus.inspect import warnings_of
from sentray.decision import Decision, choose_threshold
from sentray.metrics import calibration_curve, metrics
from sentray.training.calibration import Mix, cross_fitted, probabilities
from sentray.training.checkpoint import HeldOut, State

BEFORE = ("ece", "brier", "log_loss")
"""Figures of the probabilities that are also given as they were before they were calibrated."""
COMPARED = ("accuracy", "f1", "matthews", "roc_auc")
"""Figures of what the bundle is set beside."""


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
    low, _, high = (settings.unsure or "").partition(":")
    unsure = (float(low), float(high)) if settings.unsure else None
    if held_out is None or state.choice is None or (mix := state.choice.mix) is None:
        threshold = None if settings.threshold is None else float(settings.threshold)
        return bundle.update(trained, decision=Decision(threshold=threshold, unsure=unsure)), {}, None
    logits, labels, names = held_out.logits, held_out.labels, trained.labels
    raw = probabilities(Mix.mean(logits.shape[1]).of(logits))
    calibrated = raw if settings.calibrate == "none" else probabilities(cross_fitted(logits, labels, held_out.weights))
    threshold = None
    if settings.threshold is not None:
        threshold = choose_threshold(settings.threshold, labels, calibrated[:, 1])
        if threshold is None:
            console.note(
                f"no threshold fits --threshold {settings.threshold} on the held-out rows: the more probable label is "
                "taken"
            )
    decision = Decision(threshold=threshold, unsure=unsure)
    found = metrics(labels, calibrated, names, decision.classes(calibrated))
    for line in warnings_of({names[label]: int((labels == label).sum()) for label in set(labels.tolist())}):
        console.say(f"warning: {line}")
    if unknown := int((held_out.weights == 0).sum()):
        console.say(
            f"warning: {unknown:,} held-out rows have a label that no row has which their fit saw (or count nothing): "
            "so few rows of a label, or so many copies of one text, are little to learn from"
        )
    before = metrics(labels, raw, names) if settings.calibrate != "none" else found
    shares = [weight * mix.temperature for weight in mix.weights]
    heads = dict(zip(state.choice.epochs, shares, strict=True))
    calibration = None
    if settings.calibrate != "none":
        calibration = Calibration(temperature=mix.temperature, heads=heads, bias=mix.bias, rows=len(labels))
        console.say(
            f"calibrated: temperature {mix.temperature:.3g}; on held-out rows expected calibration error "
            f"{before['ece']:.4f} before, {found['ece']:.4f} after"
        )
    found |= {
        "threshold": threshold,
        "temperature": mix.temperature,
        "heads": heads,
        "epochs": dict(state.choice.epochs),
        "before_calibration": {
            **{name: before[name] for name in BEFORE},
            "calibration_curve": calibration_curve(labels, raw),
        },
        "calibration_curve": calibration_curve(labels, calibrated),
        "score_histogram": profile.of_scores(calibrated).tolist(),
        "predicted": profile.of_labels(decision.classes(calibrated), len(names)).tolist(),
        "baselines": baselines(held_out, tuple(state.choice.epochs), trained.labels),
    }
    return bundle.update(trained, calibration=calibration, decision=decision), found, calibrated


def baselines(held_out: HeldOut, heads: tuple[str, ...], labels: tuple[str, ...]) -> dict[str, Any]:
    """Figures of what a bundle should be better than on the same rows: one label for all, each head alone.

    Args:
        held_out: Logits and labels.
        heads: Names of the heads.
        labels: Of the bundle.

    Returns:
        By what it is the figures of `COMPARED`, with their `intervals`.
    """
    truth = held_out.labels
    shares = (np.bincount(truth, minlength=len(labels)) / len(truth)).astype(np.float32)
    found = {"most frequent label": np.tile(shares, (len(truth), 1))}
    if len(heads) > 1:
        found |= {f"{head} half alone": probabilities(held_out.logits[:, at]) for at, head in enumerate(heads)}
    figures = {name: metrics(truth, values, labels) for name, values in found.items()}
    return {
        name: {
            **{each: of[each] for each in COMPARED},
            "intervals": {each: of["intervals"][each] for each in COMPARED if each in of["intervals"]},
        }
        for name, of in figures.items()
    }
