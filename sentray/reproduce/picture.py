"""`draw`: the picture of the table, for each system the accuracy that its tutorial reports and ours with its range."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sentray.reproduce.systems import NO_SOURCE
from sentray.reproduce.table import Row

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
        Whether there was any, and what draws.
    """
    shown = [row for row in rows if row.accuracies]
    if not shown or not available():
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.3 + ROW_INCHES * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    heights, seeds = np.arange(len(shown)), max(len(row.accuracies) for row in shown)
    sources = [100 * (row.system.figure or 0.0) for row in shown]
    means = np.array([100 * np.mean(row.accuracies) for row in shown])
    least, greatest = (np.array([100 * end(row.accuracies) for row in shown]) for end in (min, max))
    above = axes.barh(heights - _BAR / 2, sources, _BAR, color=_SOURCE, label="the tutorial")
    below = axes.barh(
        heights + _BAR / 2,
        means,
        _BAR,
        xerr=[means - least, greatest - means] if seeds > 1 else None,
        error_kw={"ecolor": _RANGE, "capsize": 3, "elinewidth": 1.2},
        color=_OURS,
        label="here" if seeds == 1 else f"here: mean and range of {seeds} seeds",
    )
    said = ["" if row.system.source == NO_SOURCE else row.system.source for row in shown]
    axes.bar_label(above, said, padding=4, fontsize=8)
    axes.bar_label(below, [f"{mean:.1f} %" for mean in means], padding=4, fontsize=8)
    axes.set_yticks(heights, [row.system.name for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 120)
    axes.set_xticks(range(0, 101, 20))
    axes.axvline(50, color=_SOURCE, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel("accuracy, %; of the ten phrases in training, of the others on the test reviews")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(file, dpi=150)
    return True
