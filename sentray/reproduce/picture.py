"""`draw`: the picture of the table, for each system the accuracy that its tutorial reports and ours with its range."""

from collections.abc import Sequence
from pathlib import Path

from sentray.reproduce.systems import NO_SOURCE
from sentray.reproduce.table import Row

_SOURCE, _OURS = "#b0b7c3", "#1f6f8b"
_BAR = 0.38
ROW_INCHES = 0.62


def draw(rows: Sequence[Row], file: Path) -> bool:
    """Draw the systems that have an accuracy into a PNG file.

    Returns:
        Whether there was any.
    """
    shown = [(row, row.to_dict()) for row in rows if row.accuracies]
    if not shown:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.3 + ROW_INCHES * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for height, (row, values) in enumerate(shown):
        source, mean = 100 * (row.system.figure or 0), 100 * values["mean"]
        ends = [[mean - 100 * values["least"]], [100 * values["greatest"] - mean]]
        said = "" if row.system.source == NO_SOURCE else row.system.source
        for place, width, color, text in ((-1, source, _SOURCE, said), (1, mean, _OURS, f"{mean:.1f} %")):
            bars = axes.barh(height + place * _BAR / 2, width, _BAR, color=color)
            axes.bar_label(bars, [text], padding=4, fontsize=8)
        axes.errorbar(mean, height + _BAR / 2, xerr=ends, color="black", capsize=3)
    axes.set_yticks(range(len(shown)), [row.system.name for row, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 120)
    axes.set_xlabel("accuracy, %: grey as the tutorial reports it, blue here, mean and range of the seeds")
    figure.savefig(file, dpi=150)
    return True
