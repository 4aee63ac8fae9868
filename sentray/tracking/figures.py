"""What trackers show of a training: `epoch_figures` of each epoch of a fit, and `final_figures` of the bundle."""

from collections.abc import Mapping, Sequence
from typing import Any

from sentray.tables import shown

History = Sequence[Mapping[str, Any]]
"""Records of epochs, as in `State.history`."""
_RIGHT = ("accuracy", "r2")
"""What an epoch says besides its loss, by the task."""


def fit_name(record: Mapping[str, Any], fits: int) -> str:
    """What the fit of an epoch is called, of so many: `fit-1` and on those that hold rows out, `last` the last."""
    return "last" if record["fit"] + 1 == fits else f"fit-{record['fit'] + 1}"


def ended_at(record: Mapping[str, Any]) -> float:
    """When an epoch ended, Unix time."""
    return float(record["started_at"] + record["seconds"])


def epoch_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch by name: losses, accuracy, speed, time by part and memory of the first worker."""
    seconds = record["seconds"]
    return {
        "loss": record["loss"],
        **{name: record[name] for name in _RIGHT if name in record},
        **{f"held_out_loss/{head}": loss for head, loss in record.get("held_out", {}).items()},
        **{
            f"held_out_{name}/{head}": share
            for name in _RIGHT
            for head, share in record.get(f"held_out_{name}", {}).items()
        },
        "rows_per_second": record["rows_seen"] / max(seconds, 1e-3),
        "seconds/epoch": seconds,
        "seconds/first_step": record["first_step_seconds"],
        **{f"seconds/{part}": value for part, value in record["parts"].items()},
        "peak_rss_mb": record["peak_rss_mb"],
    }


def final_figures(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of the validation and the test rows, where there are any, the metrics that are defined."""
    return {
        split: {name: metrics[split][name] for name in shown(metrics[split]) if metrics[split][name] is not None}
        for split in ("validation", "test")
        if split in metrics
    }
