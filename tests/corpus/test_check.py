import json

import pytest

from sentray.config import CheckSettings
from sentray.console import Console
from sentray.corpus.check import check, look_at, report
from sentray.corpus.inspect import Inspection, inspect_rows, warnings_of
from sentray.text.cleaning import rules_from


@pytest.fixture
def look(read):
    """The report on a corpus, made without Ray from tables of two rows."""

    def look(uri, **names):
        table = read(uri, **names)
        settings = CheckSettings(corpus=str(uri), **names)
        rules, _ = rules_from(settings)
        blocks = [table.slice(start, 2) for start in range(0, table.num_rows, 2)]

        def again(labels):
            return [inspect_rows(block, labels, need_label=True) for block in blocks]

        return report("it", (look_at(block, rules) for block in blocks), settings, Console(), again)

    return look


ROWS = """text,label,split
a b c,pos,train
a b c,neg,train
d,pos,test
a b c,pos,test
,pos,train
e f,neg,test
d,pos,test
g,,train
"""


def test_a_report(write, look):
    seen = look(write("a.csv", ROWS))
    assert seen.words == {"min": 1, "mean": 2, "median": 2, "p95": 3, "max": 3}
    assert (seen.duplicates, seen.overlap) == (3, 1)
    assert seen.duplicate_examples == (("a.csv:2", "a.csv:1"), ("a.csv:4", "a.csv:1"), ("a.csv:7", "a.csv:3"))
    assert seen.overlap_examples == (("a.csv:4", "a.csv:1"),)
    assert seen.problem is not None
    assert "--max-bad-rows 0.01" in seen.problem


def test_a_report_of_several_labels_and_of_numbers(write, look):
    several = write("m.csv", "text,label\na b,x;y\nc,;\nd,y\n")
    report = look(several, task="multilabel", label_separator=";")
    assert "train           3: x 1 (33.3%), y 2 (66.7%), no label 1 (33.3%)" in report.lines()
    assert report.lines()[-1] == "training would learn 2 labels from 3 reviews"
    numbers = look(write("n.csv", "text,label\na,10.5\nb,2\nc,x\n"), task="regression", max_bad_rows=0.5)
    assert numbers.lines()[-1] == "training would learn numbers from 2 to 10.5 from 2 reviews"


def test_a_report_as_text(write, look):
    assert look(write("a.csv", ROWS)).lines() == [
        "it",
        "rows            8, usable 6",
        "test            4: neg 1 (25.0%), pos 3 (75.0%)",
        "  only 4 rows are measured, so that a single one is 25.0% of them",
        "train           2: neg 1 (50.0%), pos 1 (50.0%)",
        "words a review  least 1, mean 2.0, median 2, 95 % up to 3, most 3",
        "bad rows        empty_text 1, missing_label 1",
        "  a.csv row 5: empty_text",
        "  a.csv row 8: missing_label",
        "same text       3 reviews repeat an earlier one",
        "  a.csv:2 is a.csv:1",
        "  a.csv:4 is a.csv:1",
        "  a.csv:7 is a.csv:3",
        "test in train   1 test reviews are in train too",
        "  a.csv:4 is a.csv:1",
        f"training would stop: 2 of 8 rows of {look(write('a.csv', ROWS)).problem.split(' rows of ')[1]}",
    ]


def test_a_report_as_json(write, look):
    values = json.loads(json.dumps(look(write("a.csv", ROWS)).to_dict()))
    assert values["labels"] == {"test": {"neg": 1, "pos": 3}, "train": {"neg": 1, "pos": 1}}
    assert values["bad_rows"] == {"empty_text": 1, "missing_label": 1}
    assert values["first_bad_rows"] == [
        {"file": "a.csv", "row": 5, "reason": "empty_text", "detail": None},
        {"file": "a.csv", "row": 8, "reason": "missing_label", "detail": None},
    ]
    assert values["train_test_overlap"] == 1
    assert values["unlabelled_rows"] == 0


def test_a_corpus_without_a_usable_row(write, look):
    seen = look(write("a.csv", 'text\n""\n'))
    assert (seen.inspection.usable, seen.words, seen.duplicates) == (0, {}, 0)
    assert "none is left" in str(seen.problem)
    assert report("it", [], CheckSettings(corpus="x"), Console(), list).inspection == Inspection()


def test_equal_texts_in_one_split_do_not_overlap(write, look):
    seen = look(write("a.csv", "text,label,split\nx,a,train\nx,b,train\ny,a,test\ny,b,test\n"))
    assert (seen.duplicates, seen.overlap, seen.problem) == (2, 0, None)


def test_a_corpus_without_labels_is_looked_at_all_the_same(write, look):
    seen = look(write("a.csv", "text\nx\ny\n"), test_fraction=0)
    assert (seen.inspection.usable, seen.inspection.reasons) == (2, {})
    assert seen.lines()[-1].startswith("training would stop: ")
    assert "no labelled review whose split is train" in seen.problem


def test_labels_that_only_test_rows_have(write, look):
    rows = "".join(f"{label},{label},train\n" for label in "abab") + "c,c,test\na,a,test\n"
    seen = look(write("a.csv", "text,label,split\n" + rows))
    assert seen.inspection.reasons == {"unknown_label": 1}
    assert "1 of 6 rows" in seen.problem
    assert "beginning with a.csv row 5 (unknown_label" in seen.problem


def test_what_training_would_do_comes_last(write, look):
    rows = "".join(f"{number},{number % 3},{'dev' if number > 200 else 'train'}\n" for number in range(300))
    lines = look(write("a.csv", "text,label,split\n" + rows)).lines()
    assert lines[-1] == "training would learn 3 labels from 201 reviews"
    assert "validation      99: 0 33 (33.3%), 1 33 (33.3%), 2 33 (33.3%)" in lines


def test_a_wrong_column_of_labels_names_twenty_of_them(write, look):
    rows = "".join(f"good,text {number}\n" for number in range(500))
    seen = look(write("a.csv", "text,label\n" + rows), test_fraction=0)
    lines = seen.lines()
    assert sum(len(line) for line in lines) < 2000
    assert lines[2].endswith("text 115 1 (0.2%) and 480 more")
    assert "a.csv occurs once (500 of 500, in 500 training reviews): is --label-column right?" in lines[-1]


def test_few_rows_and_one_label_are_told():
    assert warnings_of({"pos": 100, "neg": 1}) == []
    assert warnings_of({"pos": 50, "neg": 30}) == ["only 80 rows are measured, so that a single one is 1.2% of them"]
    assert warnings_of({"pos": 100}) == ["all rows that are measured have the label 'pos'"]


@pytest.mark.usefixtures("ray_session")
def test_the_polarity_corpus(nltk_polarity):
    seen = check(CheckSettings(corpus=nltk_polarity), Console())
    assert seen.inspection.labels == {
        ("train", "neg"): 900,
        ("train", "pos"): 900,
        ("test", "neg"): 100,
        ("test", "pos"): 100,
    }
    assert seen.words["max"] == 2678
    assert (seen.duplicates, seen.overlap, seen.problem) == (0, 0, None)


@pytest.mark.usefixtures("ray_session")
def test_the_imdb_reviews_hold_copies(shared, tmp_path):
    # Under a name that says no split.
    (tmp_path / "reviews.parquet").symlink_to(shared / "data" / "imdb_train.parquet")
    seen = check(CheckSettings(corpus=str(tmp_path / "reviews.parquet"), split_by="id", test_fraction=0.1), Console())
    assert seen.inspection.usable == 25_000
    assert seen.duplicates == 96
    assert 0 < seen.overlap < 40
    assert len(seen.duplicate_examples) == 5
