"""Labels over files, days and other values: counted, bounded, coarser where there are many."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.scoring import by
from sentray.scoring.by import OTHERS

# The bundle is unsure of the third row.
CLASSES = np.array([1, 0, -1, 1])
MORNING, EVENING = datetime(2026, 1, 1, 7), datetime(2026, 1, 1, 23, 59)
DAYS = {"2026-01-01": {"pos": 1, "neg": 1}, "": {"": 1}, "2026-01-02": {"pos": 1}}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([MORNING, EVENING, None, datetime(2026, 1, 2)]), DAYS),
        (
            pa.array(
                [MORNING.replace(tzinfo=UTC), EVENING.replace(tzinfo=UTC), None, datetime(2026, 1, 2, tzinfo=UTC)]
            ),
            DAYS,
        ),
        (pa.array([date(2026, 1, 1), date(2026, 1, 1), None, date(2026, 1, 2)]), DAYS),
        (pa.array(["2026-01-01T07:00:00Z", "2026-01-01 23", "", "2026-01-02"]), DAYS),
        (pa.array([5, 5, None, 7], pa.int8()), {"5": {"pos": 1, "neg": 1}, "": {"": 1}, "7": {"pos": 1}}),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), {"a": {"pos": 2}, "b": {"neg": 1}, "": {"": 1}}),
        (pa.array([True, True, None, False]), {"true": {"pos": 1, "neg": 1}, "": {"": 1}, "false": {"pos": 1}}),
        (pa.nulls(4), {"": {"": 1, "neg": 1, "pos": 2}}),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_time_counts_as_its_day_and_others_as_they_are(values: pa.Array, wanted: Any) -> None:
    assert by.is_countable(values.type)
    assert by.count(pa.chunked_array([values]), CLASSES, ("neg", "pos")) == wanted


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.binary(), pa.float64(), pa.struct([])])
def test_what_is_not_counted(kind: pa.DataType) -> None:
    assert not by.is_countable(kind)


def test_a_long_value_is_cut() -> None:
    (name,) = by.count(pa.chunked_array([["x" * 5000] * 4]), CLASSES, ("neg", "pos"))
    assert len(name) == 100


def test_many_days_become_weeks_months_and_years() -> None:
    days = {str(date(2026, 1, 1) + timedelta(day)): {"pos": 1} for day in range(400)}
    for most, unit, values, first in (
        (400, "day", 400, "2026-01-01"),
        (60, "week", 58, "2025-12-29"),
        (30, "month", 14, "2026-01"),
        (2, "year", 2, "2026"),
    ):
        found, coarse = by.coarser({**days, "": {"neg": 3}}, most)
        assert (found, len(coarse) - 1, min(coarse.keys() - {""})) == (unit, values, first)
        assert sum(coarse[value].get("pos", 0) for value in coarse) == 400
        assert coarse[""] == {"neg": 3}
    # A shard that had many days gave months, so that all are months.
    assert by.coarser({"2026-01-05": {"pos": 1}, "2026-01": {"pos": 2}}, 60) == ("month", {"2026-01": {"pos": 3}})
    assert by.coarser({"2026-99-99": {"pos": 1}}, 0)[0] == "year"
    assert by.coarser({"a.csv": {"pos": 1}, "2026-01-01": {"pos": 1}}, 1)[0] == "value"


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(max_size=3) | st.dates().map(str) | st.just(OTHERS),
        st.dictionaries(st.sampled_from(["neg", "pos", ""]), st.integers(1, 9), min_size=1),
        max_size=20,
    ),
    st.integers(1, 6),
)
def test_no_row_is_lost_where_values_are_bounded(found: dict[str, dict[str, int]], most: int) -> None:
    bounded = by.bounded(found, most)
    assert len(bounded.keys() - by.SPECIAL) <= most
    for label in ("neg", "pos", ""):
        assert sum(rows.get(label, 0) for rows in bounded.values()) == sum(
            rows.get(label, 0) for rows in found.values()
        )


def test_the_commonest_values_stay_and_many_labels_leave_room_for_fewer() -> None:
    found = {"a": {"x": 1}, "b": {"x": 5}, "c": {"x": 3, "y": 1}}
    assert by.bounded(found, 2) == {"b": {"x": 5}, "c": {"x": 3, "y": 1}, OTHERS: {"x": 1}}
    assert by.bounded(found, 10, cells=2) == {"b": {"x": 5}, OTHERS: {"x": 4, "y": 1}}


def test_times_of_day_are_values() -> None:
    found = by.count(pa.chunked_array([[time(7), time(7), None, time(8)]]), CLASSES, ("neg", "pos"))
    assert len(found) == 3
