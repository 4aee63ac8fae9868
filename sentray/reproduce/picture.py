"""`draw`: the picture of the table, for each system the accuracy that its tutorial reports and ours with its range."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sentray.reproduce.table import NONE, Row

MISSING = (
    "no picture is drawn, since matplotlib is not here: pip install 'sentray[reproduce]', then the same command again"
)
_SOURCE, _OURS, _RANGE = "#b0b7c3", "#1f6f8b", "#0b2c3d"
_BAR = 0.38
ROW_INCHES = 0.62


def available() -> bool:
    """Whether a picture can be drawn."""
    return find_spec("matplotlib") is not None


def draw(rows: Sequence[Row], file: Path) -> bool:
    """Draw the systems that have an accuracy into a PNG file.

    Returns:
        Whether there was any.
    """
    shown = [row for row in rows if row.accuracies]
    if not shown:
        return False
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(9, 1.3 + ROW_INCHES * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for height, row in enumerate(shown):
        _pair(axes, height, row)
    axes.set_yticks(range(len(shown)), [row.system.name for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 120)
    axes.set_xticks(range(0, 101, 20))
    axes.axvline(50, color=_SOURCE, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel("accuracy, %; of the ten phrases in training, of the others on the test reviews")
    axes.spines[["top", "right"]].set_visible(False)
    seeds = max(len(row.accuracies) for row in shown)
    ours = "here" if seeds == 1 else f"here: mean and range of {seeds} seeds"
    keys = [Patch(color=_SOURCE, label="the tutorial"), Patch(color=_OURS, label=ours)]
    figure.legend(handles=keys, loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(file, dpi=150)
    return True


def _pair(axes: Any, height: int, row: Row) -> None:
    """Two bars: the tutorial's figure above, ours below; a system of our own has only the latter."""
    below = float(height)
    if row.system.source != NONE:
        above, below = height - _BAR / 2, height + _BAR / 2
        if row.system.figure is not None:
            axes.barh(above, 100 * row.system.figure, _BAR, color=_SOURCE)
        _label(axes, above, 100 * (row.system.figure or 0.0), row.system.source)
    percents = [100 * value for value in row.accuracies]
    mean = sum(percents) / len(percents)
    axes.barh(below, mean, _BAR, color=_OURS)
    if len(percents) > 1:
        reach = [[mean - min(percents)], [max(percents) - mean]]
        axes.errorbar(mean, below, xerr=reach, color=_RANGE, capsize=3, linewidth=1.2)
    _label(axes, below, max(percents), f"{mean:.1f} %")


def _label(axes: Any, height: float, right_of: float, text: str) -> None:
    axes.text(right_of + 1, height, text, va="center", fontsize=8)
