"""Results as tables on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from sentray.console import Console


def metrics(console: Console, values: Mapping[str, Any]) -> None:
    """Print an evaluation: the overall numbers, each label's, and the confusion matrix."""
    overall = {name: values[name] for name in ("accuracy", "f1", "roc_auc", "log_loss")}
    console.table(list(overall), [["-" if value is None else value for value in overall.values()]])
    console.say()
    per_label = [
        [label, numbers["precision"], numbers["recall"], numbers["f1"], numbers["rows"]]
        for label, numbers in values["classes"].items()
    ]
    console.table(["label", "precision", "recall", "f1", "rows"], per_label)
    console.say()
    confusion_matrix(console, values["labels"], values["confusion_matrix"])


def confusion_matrix(console: Console, labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    """Print how many reviews of each label (rows) were given which label (columns)."""
    rows = [[f"is {label}", *counts] for label, counts in zip(labels, matrix, strict=True)]
    console.table(["", *(f"scored {label}" for label in labels)], rows)
