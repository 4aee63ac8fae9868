import json

import pytest

from sentray.config import CheckSettings
from sentray.console import Console
from sentray.corpus.check import check, look_at, report
from sentray.corpus.inspect import Inspection
from sentray.text.cleaning import rules_from


@pytest.fixture
def look(read):
    """The report on a corpus, made without Ray from tables of two rows."""

    def look(uri, **names):
        table = read(uri, **names)
        settings = CheckSettings(corpus=str(uri))
        rules, _ = rules_from(settings)
        blocks = [look_at(table.slice(start, 2), rules) for start in range(0, table.num_rows, 2)]
        return report("it", blocks, settings, Console())

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


def test_a_report_as_text(write, look):
    assert look(write("a.csv", ROWS)).lines() == [
        "it",
        "rows            8, usable 7",
        "test            4: neg 1 (25.0%), pos 3 (75.0%)",
        "train           3: neg 1 (33.3%), pos 1 (33.3%), no label 1 (33.3%)",
        "words a review  least 1, mean 2.0, median 2, 95 % up to 3, most 3",
        "bad rows        empty_text 1",
        "  a.csv row 5: empty_text",
        "same text       3 reviews repeat an earlier one",
        "  a.csv:2 is a.csv:1",
        "  a.csv:4 is a.csv:1",
        "  a.csv:7 is a.csv:3",
        "test in train   1 test reviews are in train too",
        "  a.csv:4 is a.csv:1",
        f"training would stop: 1 of 8 rows of {look(write('a.csv', ROWS)).problem.split(' rows of ')[1]}",
    ]


def test_a_report_as_json(write, look):
    values = json.loads(json.dumps(look(write("a.csv", ROWS)).to_dict()))
    assert values["labels"] == {"test": {"neg": 1, "pos": 3}, "train": {"": 1, "neg": 1, "pos": 1}}
    assert values["bad_rows"] == {"empty_text": 1}
    assert values["first_bad_rows"] == [{"file": "a.csv", "row": 5, "reason": "empty_text", "detail": None}]
    assert values["train_test_overlap"] == 1
    assert values["unlabelled_rows"] == 1


def test_a_corpus_without_a_usable_row(write, look):
    seen = look(write("a.csv", 'text\n""\n'))
    assert (seen.inspection.usable, seen.words, seen.duplicates) == (0, {}, 0)
    assert "none is left" in str(seen.problem)
    assert report("it", [], CheckSettings(corpus="x"), Console()).inspection == Inspection()


def test_equal_texts_in_one_split_do_not_overlap(write, look):
    seen = look(write("a.csv", "text,label,split\nx,a,train\nx,b,train\ny,a,test\ny,b,test\n"))
    assert (seen.duplicates, seen.overlap, seen.problem) == (2, 0, None)


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
def test_the_imdb_reviews_hold_copies(shared):
    seen = check(CheckSettings(corpus=str(shared / "data" / "imdb_train.parquet")), Console())
    assert seen.inspection.usable == 25_000
    assert seen.duplicates == 96
    assert 0 < seen.overlap < 40
    assert len(seen.duplicate_examples) == 5
