"""`show`: what a bench found, as tables whose first row is the baseline of the others."""

from typing import Any

from sentray.console import Console

Rows = dict[str, dict[str, Any]]
"""Figures by name, for each thing that was measured."""


def with_ratios(rows: Rows, by: str) -> Rows:
    """The rows with `ratio`: how many times the first row's figure each has."""
    first = next(iter(rows.values()))[by]
    return {name: {**row, "ratio": row[by] / first} for name, row in rows.items()}


def show(console: Console, tables: dict[str, Rows]) -> None:
    """Print tables by their titles; a figure that a row lacks is a dash."""
    for title, rows in tables.items():
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        cells = [[_rounded(row.get(name)) for name in names] for row in rows.values()]
        console.say()
        console.table([title, *names], [[name, *row] for name, row in zip(rows, cells, strict=True)])


def _rounded(value: Any) -> Any:
    if value is None:
        return "-"
    return round(value) if isinstance(value, float) and abs(value) >= 100 else value
