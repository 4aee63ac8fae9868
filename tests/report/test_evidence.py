"""Which rows are kept, and whose labels are likely wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.errors import SentrayError
from sentray.report import evidence
from sentray.report.evidence import (
    EVIDENCE_FILE,
    Evidence,
    array_of,
    column_of,
    evidence_schema,
    is_right,
    label_errors,
    margin,
    thin,
)
from sentray.report.subject import Subject
from tests.report.conftest import rows


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 20), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_parts_that_are_thinned_give_what_all_rows_give(first: int, second: int, sample: int, shown: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        parts = [rows(number, seed=seed) for seed, number in enumerate((first, second))]
        patch.setattr(evidence, "MAX_SAMPLE", sample)
        patch.setattr(evidence, "MAX_SHOWN", shown)
        whole = thin(pa.concat_tables(parts))
        assert thin(pa.concat_tables([thin(part) for part in parts])) == whole
    assert pa.compute.sum(whole["sampled"]).as_py() in (None, min(sample, first + second))
    assert len(whole) - whole["text"].null_count <= shown


def test_evidence_is_kept_in_a_file(tmp_path: Path, subject: Subject) -> None:
    there = replace(subject.bundle, path=str(tmp_path))
    kept = Evidence(rows(50), "validation", 50, {"seconds": {"training": 1.5}})
    assert Evidence.from_bytes(kept.to_bytes()) == kept
    assert kept.without_texts().shown["text"].null_count == 50
    assert Evidence.beside(there) is None
    (tmp_path / EVIDENCE_FILE).write_bytes(b"nonsense")
    with pytest.raises(SentrayError, match="is damaged"):
        Evidence.beside(there)


def test_margins_are_below_zero_where_another_label_is_more_probable() -> None:
    found = margin(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32), np.array([0, 1]))
    assert found == pytest.approx([0.5, -0.3])


def test_labels_are_doubted_where_another_is_as_probable_as_for_its_own_rows() -> None:
    # Rows of b have it with 0.8 and 0.6, 0.7 on average; of the rows of a one has b with 0.9, one with 0.6 alone.
    of_second = [0.1, 0.2, 0.9, 0.6, 0.8, 0.6]
    truth = np.array([0, 0, 0, 0, 1, 1], np.int32)
    chances = np.array([[1 - share, share] for share in of_second], np.float32)
    number = len(truth)
    columns = {
        **{"id": list("uvwxyz"), "hash": np.arange(number, dtype=np.uint64), "truth": truth},
        **{"probabilities": column_of(chances), "words": np.ones(number, np.int32), "known": np.ones(number, np.int32)},
        **{"sampled": pa.nulls(number, pa.bool_()), "text": pa.array(["t"] * number, pa.large_string())},
    }
    found, likely = label_errors(
        Evidence(thin(pa.table(columns, evidence_schema("classification"))), "test", number), ("a", "b")
    )
    assert likely == 1
    assert [doubt.line() for doubt in found] == ["w is a (0.100), likely b (0.900): t"]


def test_margins_of_each_task_are_below_0_where_a_row_is_wrong() -> None:
    chances = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.8]], np.float32)
    truth = np.array([[1, 0], [1, 0], [1, 1]], np.uint8)
    found = margin(chances, truth)
    assert found == pytest.approx([0.6, -0.4, -0.8])
    assert (is_right(truth, chances > 0.5) == (found > 0)).all()
    off = margin(np.array([[3.0], [1.0]], np.float32), np.array([1.0, 1.5], np.float32))
    assert off.tolist() == [-2.0, -0.5]


@pytest.mark.parametrize("values", [np.arange(3, dtype=np.int32), np.eye(3, dtype=np.uint8), np.ones(3, np.float32)])
def test_what_is_true_goes_into_a_column_and_back(values: np.ndarray) -> None:
    back = array_of(pa.chunked_array([column_of(values[:1]), column_of(values[1:])]))
    assert (back.dtype, back.tolist()) == (values.dtype, values.tolist())
