import operator
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sentray.corpus.inspect import Inspection, as_trained, by_label, inspect_rows
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, mark
from sentray.errors import SentrayError


@pytest.fixture
def table(write, read):
    rows = ["x,pos,train", "y,neg,train", "z,neg,test", ",pos,train", "w,,train", "v,odd,test", "u,pos,train"]
    path = write("a.csv", "text,label,split\n" + "\n".join(rows) + "\nbroken\n")
    return read(path)


def inspected(table, **labels):
    return Inspection.of(inspect_rows(table, **labels))


def test_counts(table):
    seen = inspected(table)
    assert (seen.rows, seen.usable) == (8, 6)
    assert seen.labels == {
        ("train", "pos"): 2,
        ("train", "neg"): 1,
        ("test", "neg"): 1,
        ("train", None): 1,
        ("test", "odd"): 1,
    }
    assert seen.of_split("train") == {"pos": 2, "neg": 1}
    assert seen.classes("train") == ["neg", "pos"]
    assert seen.reasons == {"empty_text": 1, "invalid_record": 1}
    assert seen.bad.schema == QUARANTINE_SCHEMA
    assert seen.bad.to_pylist() == [
        {"file": "a.csv", "row": 4, "id": "a.csv:4", "reason": "empty_text", "detail": None, "text": ""},
        {
            "file": "a.csv",
            "row": 8,
            "id": None,
            "reason": "invalid_record",
            "detail": "1 field, the header has 3",
            "text": "broken",
        },
    ]


def test_labels_that_a_model_does_not_know(table):
    seen = inspected(table, labels=["pos", "neg"])
    assert seen.reasons == {"empty_text": 1, "unknown_label": 1, "invalid_record": 1}
    assert seen.usable == 5


def test_labels_of_an_older_bundle_are_met_in_its_own_form(table):
    rows = table.slice(0, 2).set_column(2, "label", pa.chunked_array([["0", "true"]]))
    seen = inspected(rows, labels=["0.0", "True"])
    assert seen.labels == {("train", "0.0"): 1, ("train", "True"): 1}


def test_an_unknown_label_is_named_beside_some_of_the_known(table):
    seen = inspected(table, labels=["neg", *map(str, range(30))])
    (detail,) = {row["detail"] for row in seen.bad.to_pylist() if row["reason"] == "unknown_label" and row["row"] == 1}
    assert detail.startswith("label 'pos' is none of 'neg', '0', '1', ")
    assert detail.endswith(", '18' and 11 more")
    with pytest.raises(
        SentrayError, match=r"beginning with a\.csv row 1 \(unknown_label: label 'pos' is none of 'neg', "
    ):
        seen.check_usable("a.csv", 0.1)


def test_ids_that_are_none(table):
    ids = mark(table, np.arange(8) > 0, Reason.DUPLICATE_ID)
    with pytest.raises(SentrayError, match=r"allows; most rows repeat an earlier one's id, .*: give --id-column none"):
        inspected(ids).check_usable("a.csv", 0.1)


def test_parts_add_up_to_the_whole(table):
    parts = [inspected(table.slice(start, 3)) for start in range(0, 8, 3)]
    assert reduce(operator.add, parts, Inspection()) == inspected(table)


def test_too_many_bad_rows(table):
    seen = inspected(table)
    seen.check_usable("a.csv", 0.25)
    with pytest.raises(SentrayError) as raised:
        seen.check_usable("a.csv", 0.2)
    assert str(raised.value) == (
        "2 of 8 rows of a.csv cannot be used (empty_text 1, invalid_record 1), more than --max-bad-rows 0.2 "
        "allows; mend the input or allow more, beginning with a.csv row 4 (empty_text)"
    )


def test_no_row_and_no_good_row(table):
    with pytest.raises(SentrayError, match="x holds no row"):
        Inspection().check_usable("x", 1)
    with pytest.raises(SentrayError, match=r"1 of 1 rows .* so that none is left; mend the input,"):
        inspected(table.slice(3, 1)).check_usable("x", 1)


def test_nothing_to_train_on(table):
    inspected(table).check_trainable("x", 1)
    with pytest.raises(SentrayError, match=r"no labelled review whose split is train \(its splits: test\)"):
        inspected(table.slice(2, 1)).check_trainable("x", 1)
    with pytest.raises(SentrayError, match="only the class 'pos' to train on: give reviews of two classes"):
        inspected(table.slice(0, 1)).check_trainable("x", 1)
    with pytest.raises(SentrayError, match="no labelled review"):
        inspected(table.slice(4, 1)).check_trainable("x", 1)


def test_each_of_several_labels_counts_and_must_be_known(write, read):
    rows = ["x,a;b,train", "y,b,train", "z,;,train", "v,b;c,test"]
    table = read(write("m.csv", "text,label,split\n" + "\n".join(rows) + "\n"), task="multilabel", label_separator=";")
    seen = inspected(table)
    assert (seen.usable, seen.classes("train")) == (4, ["a", "b"])
    assert by_label(seen.of_split("train")) == {"a": 1, "b": 2}
    seen.check_trainable("m", 0, "multilabel")
    met = as_trained(seen, lambda labels: [inspect_rows(table, labels)], task="multilabel")
    (bad,) = met.bad.to_pylist()
    assert (bad["row"], bad["reason"], bad["detail"]) == (4, "unknown_label", "label 'c' is none of 'a', 'b'")
    alike = inspected(table.filter(pc.equal(table["label"], "b")))
    with pytest.raises(SentrayError, match="all training reviews of m have the same labels"):
        alike.check_trainable("m", 0, "multilabel")


def test_numbers_may_be_many_and_each_once(write, read):
    rows = "".join(f"x,{number / 7}\n" for number in range(60))
    table = read(write("n.csv", f"text,label\n{rows}"), task="regression")
    seen = inspected(table)
    seen.check_trainable("n", 0, "regression")
    assert as_trained(seen, lambda labels: [], task="regression") is seen
    with pytest.raises(SentrayError, match="nearly every label of n occurs once"):
        seen.check_trainable("n", 0)
