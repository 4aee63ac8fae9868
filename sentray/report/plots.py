"""Pictures of a page, one function a form: `lines`, `bars`, `points` with intervals, a `matrix`.

They are drawn by matplotlib as SVG with words as words, and take their colours from the page, light, dark or on paper.
They are as wide as a phone, so that nothing has to be made smaller there.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sentray.report.page import Picture, harmless

WIDTH, HEIGHT = 5.0, 3.4
"""Inches; 72 of a picture's units each."""
_INK, _SOFT, _LINE, _PAPER = "#1c2127", "#596370", "#d4d9df", "#fffffe"
_SERIES = ("#0072b2", "#d55e00", "#00815c", "#a8508a", "#8a6a00", "#59636f")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), "-", (0, (3, 3)))
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _LINE: "--line", _PAPER: "--paper"} | {
    color: f"--c{index}" for index, color in enumerate(_SERIES)
}
"""The colours of the drawing, and those of the page that they become."""
MAX_SERIES = len(_SERIES)
_MAX_LABEL = 22
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sentray",
    "text.parse_math": False,
    "font.size": 10.0,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
}
_LONG = re.compile(r"(\.\d\d)\d+")
"""More of a number than can be seen."""

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By name the positions across and upwards of a line's points."""


def lines(
    series: Series,
    alt: str,
    caption: str,
    x: str,
    y: str,
    *,
    diagonal: bool = False,
    unit: bool = False,
    marks: bool = False,
    step: bool = False,
    whole: bool = False,
    ticks: Sequence[str] | None = None,
    chosen: Mapping[str, float] | None = None,
) -> Picture:
    """Lines, of which the first `MAX_SERIES` are drawn.

    Args:
        series: Points of each.
        alt: As of a `Picture`.
        caption: Likewise.
        x: What is across.
        y: What is upwards.
        diagonal: Whether to draw the line on which both are equal.
        unit: Whether both axes go from 0 to 1.
        marks: Whether to mark the points.
        step: Whether a line goes up and down in steps.
        whole: Whether only whole numbers stand at the axis across.
        ticks: Words for the positions 0, 1, … across.
        chosen: Positions across that are circled on lines, by their names.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
        for (name, (across, up)), color, dash in zip(series.items(), _SERIES, _DASHES, strict=False):
            axes.plot(
                across,
                up,
                color=color,
                linestyle=dash,
                label=_name(name),
                marker="o" if marks else None,
                markersize=4,
                drawstyle="steps-post" if step else "default",
            )
        for name, at in (chosen or {}).items():
            across, up = series[name]
            axes.plot([at], [up[list(across).index(at)]], "o", markersize=11, fillstyle="none", color=_INK)
        if unit:
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
        if whole:
            axes.xaxis.get_major_locator().set_params(integer=True)
        if ticks is not None:
            _name_ticks(axes, ticks)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            axes.legend()
        return _picture(figure, alt, caption)


def bars(
    series: Mapping[str, Sequence[float]],
    alt: str,
    caption: str,
    x: str,
    y: str,
    *,
    edges: Sequence[float] | None = None,
    ticks: Sequence[str] | None = None,
    stacked: bool = False,
    logarithmic: bool = False,
) -> Picture:
    """Upright bars: a histogram where `edges` are given, else a bar for each of `ticks`.

    Args:
        series: Heights of each kind of bars, by its name.
        alt: As of a `Picture`.
        caption: Likewise.
        x: What is across.
        y: What is upwards.
        edges: Ends of the bins, one more than heights.
        ticks: Names of the bars.
        stacked: Whether the kinds stand on each other, else before each other as outlines.
        logarithmic: Whether heights are by their logarithm.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        size = len(next(iter(series.values())))
        ends = list(edges) if edges is not None else [index - 0.5 for index in range(size + 1)]
        bottom = [0.0] * size
        for index, ((name, heights), color) in enumerate(zip(series.items(), _SERIES, strict=False)):
            if stacked or not index:
                top = [below + height for below, height in zip(bottom, heights, strict=True)] if stacked else heights
                axes.stairs(
                    top,
                    ends,
                    baseline=bottom if stacked else 0,
                    fill=True,
                    color=color,
                    alpha=0.85,
                    label=_name(name),
                    edgecolor=_PAPER,
                    linewidth=0.4,
                )
                bottom = list(top) if stacked else bottom
            else:
                axes.stairs(heights, ends, color=color, linewidth=1.8, label=_name(name))
        if logarithmic:
            axes.set_yscale("log")
        if ticks is not None:
            _name_ticks(axes, ticks)
        axes.set_xlim(ends[0], ends[-1])
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            # Stacked bars leave no room.
            axes.legend(**{"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3} if stacked else {})
        return _picture(figure, alt, caption)


def points(
    rows: Mapping[str, tuple[float, float, float]],
    alt: str,
    caption: str,
    x: str,
    *,
    whole: float | None = None,
    whole_name: str = "",
) -> Picture:
    """A point with its interval for each name, the first on top.

    Args:
        rows: By name a figure and the ends of its interval.
        alt: As of a `Picture`.
        caption: Likewise.
        x: What the figure is.
        whole: The figure of all together, as a line.
        whole_name: What that line is.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(max(2.0, 1.1 + 0.26 * len(rows)))
        if whole is not None:
            axes.axvline(whole, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), label=whole_name)
        for index, (value, low, high) in enumerate(rows.values()):
            axes.plot([low, high], [index, index], color=_SERIES[0], linewidth=2.5, alpha=0.55, solid_capstyle="round")
            axes.plot([value], [index], "o", color=_SERIES[0], markersize=5)
        axes.set_yticks(range(len(rows)), [_name(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(x)
        if whole is not None and whole_name:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)
        return _picture(figure, alt, caption)


def matrix(
    counts: Sequence[Sequence[int]], labels: Sequence[str], alt: str, caption: str, across: str, down: str
) -> Picture:
    """Counts in squares, the darker the greater their share of the row.

    Args:
        counts: By row and column.
        labels: Of both.
        alt: As of a `Picture`.
        caption: Likewise.
        across: What the columns are.
        down: What the rows are.
    """
    with matplotlib.rc_context(_STYLE):
        size = len(labels)
        figure, axes = _axes(min(4.8, 2.0 + 0.45 * size))
        axes.grid(visible=False)
        for row, values in enumerate(counts):
            whole = sum(values) or 1
            for column, value in enumerate(values):
                share = value / whole
                axes.fill(
                    [column - 0.48, column + 0.48, column + 0.48, column - 0.48],
                    [row - 0.48, row - 0.48, row + 0.48, row + 0.48],
                    color=_SERIES[0] if row == column else _SERIES[1],
                    alpha=0.06 + 0.44 * math.sqrt(share),
                    linewidth=0,
                )
                if size <= 8:
                    small = 8 if size > 4 else 10
                    axes.text(column, row, f"{value:,}", ha="center", va="center", fontsize=small)
        names = [_name(label, 12 if size > 3 else _MAX_LABEL) for label in labels]
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if size > 3 else {}
        axes.set_xticks(range(size), names, fontsize=9 if size <= 12 else 7, **turned)
        axes.set_yticks(range(size), names, fontsize=9 if size <= 12 else 7)
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        return _picture(figure, alt, caption)


def _axes(height: float = HEIGHT) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _name(text: str, most: int = _MAX_LABEL) -> str:
    # matplotlib leaves out of a legend what begins with an underscore.
    shown = harmless(text, most)
    return f"\u2060{shown}" if shown.startswith("_") else shown


def _name_ticks(axes: Any, ticks: Sequence[str]) -> None:
    """Name positions across; of many only some, so that they can be read."""
    every = max(1, -(-len(ticks) // 12))
    shown = range(0, len(ticks), every)
    names = [_name(ticks[index]) for index in shown]
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, names)) > 40 else {}
    axes.set_xticks(list(shown), names, **turned)


def _picture(figure: Figure, alt: str, caption: str) -> Picture:
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # The page's fonts draw the letters, not the one that the words are measured with.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        # `savefig` would draw it twice.
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    return Picture(_inline(drawn.getvalue()), alt, caption)


def _inline(content: bytes) -> Markup:
    """An SVG of matplotlib for a page: of no fixed size and colours, with ids that no other picture has."""
    root = ElementTree.fromstring(content)
    prefix = f"p{hashlib.sha256(content).hexdigest()[:8]}-"
    every = list(root.iter())
    referred = {
        part.split(")")[0]
        for element in every
        for value in element.attrib.values()
        for part in value.replace("url(#", "#").split("#")[1:]
    }
    for element in every:
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
        attributes = {}
        for name, value in element.attrib.items():
            name = name.rpartition("}")[2]
            if name == "id":
                if value not in referred:
                    continue
                value = prefix + value
            elif name == "href" or value.startswith("url(#"):
                value = value.replace("#", f"#{prefix}", 1)
            elif name == "style":
                value = _restyled(value)
            elif name in ("d", "x", "y"):
                value = _LONG.sub(r"\1", value)
            attributes[name] = value
        element.attrib.clear()
        element.attrib.update(attributes)
    for unused in ("metadata", "style"):
        for parent in root.iter():
            for child in [child for child in parent if child.tag == unused]:
                parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("aria-hidden", "true")
    return Markup(ElementTree.tostring(root, "unicode"))


def _restyled(style: str) -> str:
    """A style with the page's colours and fonts."""
    found = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = next(part for part in value.split() if part.endswith("px"))
            found.append(f"font-size: {size}")
        elif name and not name.startswith("font-f"):
            found.append(f"{name}: {f'var({_VARIABLES[value]})' if value in _VARIABLES else value}")
    return "; ".join(found)
