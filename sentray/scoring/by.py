"""Labels over files or over a column's values, such as days: counted by the workers, bounded, coarser where many."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentray.corpus.limits import MAX_NAME
from sentray.decision import UNSURE
from sentray.task import NO_LABEL

MAX_VALUES, MAX_CELLS = 1000, 20_000
"""Values that a shard counts each, and with them all their labels; what is rarer counts as `OTHERS`."""
OTHERS = "\0others"
SPECIAL = {"": "(none)", OTHERS: "(others)"}
"""What is no value, and what it is called."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}([T ]|$)")

By = dict[str, dict[str, int]]
"""Rows by value, and by the label that they got; of several labels a row counts for each. Null and an empty text are
one value, the empty one."""


def is_countable(kind: pa.DataType) -> bool:
    """Whether a column of this type has values to count by: texts, days, numbers."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_interval(kind):
        return False
    tests = (pa.types.is_temporal, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
    texts = (pa.string(), pa.large_string(), pa.string_view())
    return kind in texts or any(test(kind) for test in tests)


def count(values: pa.ChunkedArray, decided: NDArray[Any], labels: Sequence[str]) -> By:
    """Scored rows by value and label.

    Args:
        values: Of each row; a time counts as its day.
        decided: Position of each row's label, `UNSURE` where it has none, [rows]; or whether it has each label,
            [rows, labels].
        labels: The bundle's.
    """
    rows, classes = np.arange(len(decided)), decided
    if decided.ndim == 2:
        # Those without a label have one before the first.
        rows, classes = np.nonzero(np.column_stack([~decided.any(axis=1), decided]))
        classes = classes + UNSURE
    plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    encoded = plain.combine_chunks().dictionary_encode("encode")
    texts, names = _texts(encoded.dictionary), (NO_LABEL, *labels)
    cells = encoded.indices.to_numpy().astype(np.int64)[rows] * len(names) + classes - UNSURE
    number = np.bincount(cells)
    found: By = {}
    for cell in np.flatnonzero(number).tolist():
        add(found, {texts[cell // len(names)]: {names[cell % len(names)]: int(number[cell])}})
    return found


def add(total: By, more: Mapping[str, Mapping[str, int]]) -> None:
    """Add rows to those counted."""
    for value, labels in more.items():
        of_value = total.setdefault(value, {})
        for label, rows in labels.items():
            of_value[label] = of_value.get(label, 0) + rows


def bounded(by: By, values: int = MAX_VALUES, cells: int = MAX_CELLS) -> By:
    """So many values at most, beside `SPECIAL`: days become weeks, months or years, of others the commonest stay."""
    labels = len({label for of_value in by.values() for label in of_value})
    values = max(1, min(values, cells // max(1, labels)))
    _, by = coarser(by, values)
    sizes = {value: sum(of_value.values()) for value, of_value in by.items() if value not in SPECIAL}
    kept = set(sorted(sizes, key=lambda value: (-sizes[value], value))[:values])
    return regrouped(by, lambda value: value if value in kept else OTHERS)


def coarser(by: By, values: int) -> tuple[str, By]:
    """Days as the weeks that begin on a Monday, months or years, whichever is finest with at most so many of them.

    Returns:
        What the values are: `day`, `week`, `month`, `year`, or `value` where they are something else, which stays.
    """
    named = by.keys() - SPECIAL
    if not named or not all(re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", value) for value in named):
        return "value", by
    unit, found = "day", by
    for unit, step in _STEPS.items():
        if unit in ("day", "week") and min(map(len, named)) < len("2026-01-01"):
            continue
        found = regrouped(by, step)
        if len(found.keys() - SPECIAL) <= values:
            break
    return unit, found


def regrouped(by: By, name: Callable[[str], str]) -> By:
    """The same rows by other values, which a function gives of each value."""
    found: By = {}
    for value, labels in by.items():
        add(found, {value if value in SPECIAL else name(value): labels})
    return found


def _texts(values: pa.Array) -> list[str]:
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        # A time of day is no whole day, which a safe cast would refuse.
        values = values.cast(pa.date32(), safe=False)
    texts = (text or "" for text in values.cast(pa.string()).to_pylist())
    return [text[: 10 if _DAY.match(text) else MAX_NAME] for text in texts]


def _week(value: str) -> str:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return value
    return (day - timedelta(day.weekday())).isoformat()


_STEPS: dict[str, Callable[[str], str]] = {
    "day": lambda value: value,
    "week": _week,
    "month": lambda value: value[:7],
    "year": lambda value: value[:4],
}
