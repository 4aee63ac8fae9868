"""Results as tables on the console: `metrics` of an evaluation, `scores` of a scoring job."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sentray.console import Console, Share, core_time, count
from sentray.task import NO_LABEL, Task

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "exact_match": "exact match",
    "mean_absolute_error": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "quadratic_kappa": "quadratic kappa",
    "f1": "F1, mean of the labels",
    "micro_f1": "F1 of all decisions",
    "hamming_loss": "Hamming loss",
    "matthews": "Matthews",
    "kappa": "Cohen's kappa",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rho",
}
"""The metrics that are printed, and what they are called; the first that a task has says most."""
LOWER_IS_BETTER = ("mean_absolute_error", "rmse", "hamming_loss", "log_loss", "brier", "ece")
WITHOUT_LABEL = dict.fromkeys(get_args(Task), "unsure, without a label") | {"multilabel": "without a label"}
"""What rows without a label are called, by task."""
MAX_DIFFERING = 10
"""Reviews that are printed of those with other labels."""
FAR_BELOW = 0.8
"""Below this share of the training corpus's coverage a warning is printed."""
MIN_COVERAGE = 0.5
"""The same for a bundle that does not know its training corpus's coverage."""
MIN_ROWS = 1000
"""What fewer rows take says nothing of a million."""


def shown(values: Mapping[str, Any]) -> dict[str, str]:
    """Those of `METRICS` that an evaluation has, which its task says."""
    return {name: about for name, about in METRICS.items() if name in values}


def headline(values: Mapping[str, Any]) -> tuple[str, str]:
    """The metric that says most of an evaluation: its name, and what it is called."""
    return next(iter(shown(values).items()))


def metrics(console: Console, values: Mapping[str, Any]) -> None:
    """Print an evaluation: the overall numbers, each label's, and the confusion matrix, as far as the task has them."""
    console.table(
        ["", "", "95 %"],
        [
            [about, "-" if values[name] is None else values[name], _interval(values["intervals"].get(name))]
            for name, about in shown(values).items()
        ],
    )
    if values.get("unsure_rows"):
        console.say(f"{values['unsure_rows']:,} of {count(values['rows'], 'row')} got no label, being unsure")
    if "cardinality" in values:
        console.say(f"labels a row: {values['cardinality']:.2f}, and got {values['predicted_cardinality']:.2f}")
    if not values["classes"]:
        return
    console.say()
    figures = ["precision", "recall", "f1", *([] if "confusion_matrix" in values else ["pr_auc", "roc_auc"])]
    thresholds = values.get("thresholds", {})
    per_label = [
        [
            label,
            *("-" if numbers[name] is None else numbers[name] for name in figures),
            numbers["rows"],
            *([thresholds[label]] if thresholds else []),
        ]
        for label, numbers in values["classes"].items()
    ]
    names = [METRICS[name] if "auc" in name else name for name in figures]
    console.table(["label", *names, "rows", *(["threshold"] if thresholds else [])], per_label)
    if "confusion_matrix" in values:
        console.say()
        confusion_matrix(console, values["labels"], values["confusion_matrix"])


def confusion_matrix(console: Console, labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    """Print how many reviews of each label (rows) were given which label (columns)."""
    rows = [[f"is {label}", *counts] for label, counts in zip(labels, matrix, strict=True)]
    console.table(["", *(f"scored {label}" for label in labels)], rows)


def comparison(console: Console, values: Mapping[str, Any]) -> None:
    """Print a comparison: the metrics of both bundles, the test, the reviews that differ most, and the verdict."""
    console.say(f"A is {values['a']['bundle']}, B is {values['b']['bundle']}")
    console.table(["", "A", "B", "B - A", "95 %", ""], compared(values))
    if (test := values["mcnemar"]) is not None:
        console.say()
        console.say(
            f"right: both {test['both_right']:,}, only A {test['only_a_right']:,}, only B {test['only_b_right']:,}, "
            f"neither {test['neither_right']:,}; McNemar's exact test: p = {test['p_value']:.3g}"
        )
    if differing := values["differing"][:MAX_DIFFERING]:
        console.say()
        got = "labels" if test is not None else "numbers"
        console.say(f"{count(values['differing_rows'], 'review')} got other {got}; those that differ most:")
        rows = [[*judged(row), textwrap.shorten(row["text"] or "", 60, placeholder="…")] for row in differing]
        console.table(["review", "is", "A says", "", "B says", "", "text"], rows)
    console.say()
    console.say(values["verdict"])


def trials(console: Console, figures: Mapping[str, Any]) -> None:
    """Print the trials of `sentray tune`, the best first, and what the best gained on held-out rows."""
    # It is of a room that imports this one.
    from sentray.tuning.records import written

    best, own = figures["trials"][0], next((each for each in figures["trials"] if each["number"] == 1), None)
    name, about = headline(best)
    rows = []
    for record in figures["trials"]:
        cells = ["-", "", "-", "", "-"]
        if record["loss"] is not None:
            ends = record["intervals"]
            cells = [record["loss"], _interval(ends.get("log_loss")), record[name], _interval(ends.get(name))]
            cells.append(record["epochs"])
        status = "" if record["status"] == "ended" else record["status"]
        rows.append([record["number"], *cells, record["seconds"], status, written(record["settings"])])
    header = ["trial", "held-out loss", "95 %", about, "95 %", "epochs", "seconds", "", "settings"]
    console.table(header, rows)
    line = f"best: trial {best['number']}, {written(best['settings'])}"
    if own is not None and own["status"] == "ended" and best is not own:
        line += (
            f"; held-out loss {best['loss']:.4f} instead of {own['loss']:.4f}, {about} {best[name]:.4f} instead of "
            f"{own[name]:.4f}"
        )
    console.say(line)
    console.say(f"these figures are of {figures['of']}")


def compared(values: Mapping[str, Any]) -> list[list[Any]]:
    """A row for each metric: its name, what both bundles have, the difference, its interval, and who is better."""
    rows = []
    for name, about in shown(values["a"]).items():
        figures = [values["a"][name], values["b"][name], values["differences"][name]]
        ends = values["intervals"].get(name)
        better = ""
        if ends is not None and (ends[0] > 0 or ends[1] < 0):
            better = "B is better" if (ends[0] > 0) != (name in LOWER_IS_BETTER) else "A is better"
        rows.append([about, *("-" if figure is None else figure for figure in figures), _interval(ends), better])
    return rows


def judged(row: Mapping[str, Any]) -> list[Any]:
    """Of a review its id, its label, and what each bundle gives it."""
    given = [
        value
        for model in "ab"
        for value in (_or(row[model]["label"], "unsure") or "none", _or(row[model]["probability"], ""))
    ]
    return [row["id"], row["truth"] or "none", *given]


def scores(console: Console, summary: Mapping[str, Any], labels: Sequence[str], task: Task = "classification") -> None:
    """Print the end of a scoring job: rows, labels, how the scores lie, words, speed.

    Args:
        console: Where to print.
        summary: What `sentray.scoring.job.score` gives.
        labels: The bundle's labels in their order.
        task: The bundle's.
    """
    rows, scored = summary["rows"], summary["rows_scored"]
    given = summary["labels"]
    without = given.get(NO_LABEL, 0) if task == "multilabel" else scored - sum(given.values()) if labels else 0
    shares = [
        ("rows", rows, rows),
        ("scored", scored, rows),
        *((f"  as {label}", given.get(label, 0), scored) for label in labels),
        *([(f"  {WITHOUT_LABEL[task]}", without, scored)] if without else []),
        ("quarantined", summary["rows_quarantined"], rows),
        *((f"  {reason}", number, rows) for reason, number in summary["quarantined"].items()),
    ]
    console.say()
    console.table(["", "rows", ""], [[name, number, _percent(number, whole)] for name, number, whole in shares])
    console.say()
    bins, span = summary["score_histogram"], summary.get("value_span") or (0, 1)
    if any(bins) or labels:
        _histogram(console, bins, span, labels, task)
    _coverage(console, summary)
    if summary["rows_per_s"]:
        console.say(
            f"{summary['rows_per_s']:,.0f} reviews/s and {summary['mb_per_s']:,.1f} MB/s with "
            f"{count(summary['workers'], 'worker')}, after {summary['start_seconds']:.1f} s to start"
        )
    if summary["core_hours_per_million"] is not None:
        million = f", {core_time(summary['core_hours_per_million'])} a million reviews" if rows >= MIN_ROWS else ""
        console.say(f"{core_time(summary['core_hours'])}{million}")


def _histogram(console: Console, bins: Sequence[int], span: Sequence[float], labels: Sequence[str], task: Task) -> None:
    two, (low, high) = task == "classification" and len(labels) == 2, span
    ends = [low + (high - low) * number / len(bins) for number in range(len(bins) + 1)]
    # The best of n probabilities that sum to 1 is at least 1 / n.
    least = 1 / len(labels) if task in ("classification", "ordinal") and not two else low
    largest = max(bins) or 1
    console.table(
        [binned(labels, task), "rows", ""],
        [
            [f"{begin:.2f} to {end:.2f}", rows, Share(rows / largest)]
            for begin, end, rows in zip(ends, ends[1:], bins, strict=False)
            if rows or end > least
        ],
    )
    console.say()


def binned(labels: Sequence[str], task: Task) -> str:
    """What the bins of `profile.of_scores` are of."""
    if task == "regression":
        return "value, at both ends and beyond"
    if task in ("multilabel", "ordinal"):
        return "probability of the most probable label"
    return (
        f"probability of {labels[1]}" if len(labels) == 2 and task == "classification" else "probability of the label"
    )


def _or(value: Any, other: Any) -> Any:
    return other if value is None else value


def _coverage(console: Console, summary: Mapping[str, Any]) -> None:
    # It loads pyarrow, which help needs nothing of.
    from sentray.text.coverage import Left

    found, trained, scored = summary["coverage"], summary["training_coverage"], summary["rows_scored"]
    if summary["spaced_words"]:
        left = Left(
            scored, summary["spaced_words"], summary["words"], summary["known_words"], summary["rows_without_words"]
        )
        cure = "; a bundle trained with --cleaning unicode keeps them" if left.is_little else ""
        if left.is_lost:
            console.say(f"{'warning: ' if cure else ''}{left.line()}{cure}")
    if lost := summary["rows_without_known_words"]:
        console.say(
            f"{lost:,} of {count(scored, 'row')} have no word that the bundle knows, and get the score of an empty text"
        )
    if found is None:
        return
    beside = "" if trained is None else f", of the training reviews' {trained:.1%}"
    console.say(f"words known: {found:.1%}{beside}")
    if found < (MIN_COVERAGE if trained is None else FAR_BELOW * trained):
        console.say(
            "warning: the bundle knows so few of these words that its scores mean little; is this the language and the "
            "kind of text that it was trained on?"
        )


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"


def _percent(number: int, whole: int) -> str:
    return f"{number / whole:.1%}".rjust(6) if whole else ""
