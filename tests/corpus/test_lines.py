import gzip

import pytest

from sentray.config import CorpusSettings
from sentray.corpus.readers import read_schema, read_shard
from sentray.corpus.source import resolve
from sentray.corpus.splits import Piece, plan_shards
from sentray.errors import SentrayError


def found(table):
    return [tuple(row.values()) for row in table.select(["label", "text", "reason"]).to_pylist()]


def test_fasttext_is_recognised(write, read):
    path = write("train.ft", "\n__label__pos  a film\r\n__label__a __label__b two\nnone\n__label__very_bad\n")
    table = read(path, need_label=True)
    assert found(table) == [
        ("pos", "a film", None),
        (None, "__label__a __label__b two", "invalid_record"),
        (None, "none", "missing_label"),
        ("very_bad", "", "empty_text"),
    ]
    assert table["row"].to_pylist() == [2, 3, 4, 5]
    assert table["id"][0].as_py() == "train.ft:2"
    assert "1 file (fasttext lines)" in resolve(str(path)).describe()


class Scored(CorpusSettings):
    unused = frozenset({"label_column"})


def test_several_labels_are_kept_where_none_is_needed(write):
    source = resolve(str(write("a.ft", "__label__a  __label__b __label__c two\n__label__d one\nnone\n")))
    (shard,), settings = plan_shards(source, 1 << 20), Scored()
    (table,) = read_shard(source, shard, settings, keep=["label"])
    assert table["kept label"].to_pylist() == ["a b c", "d", ""]
    assert table["text"].to_pylist() == ["two", "one", "none"]


@pytest.mark.parametrize(
    ("lines", "content", "rows"),
    [
        ("text", 'one "line\n\ntwo\tx\n', [(None, 'one "line', None), (None, "two\tx", None)]),
        ("label-first", "ham\tGo on\n spam  x y \n", [("ham", "Go on", None), ("spam", "x y", None)]),
        ("label-first", "alone\n", [("alone", "", "empty_text")]),
        (
            "label-last",
            "So good.\t1\na\tb\t0 \r\nno tab\n\t1\nx\t\n",
            [
                ("1", "So good.", None),
                ("0", "a\tb", None),
                (None, "no tab", "invalid_record"),
                ("1", "", "empty_text"),
                (None, "x", None),
            ],
        ),
        ("fasttext", "plain\n", [(None, "plain", None)]),
    ],
)
def test_what_a_line_holds_is_said_by_an_option(write, read, lines, content, rows):
    assert found(read(write("a.txt", content), lines=lines)) == rows


def test_invalid_utf8_is_told_and_kept_from_its_neighbours(write, read):
    table = read(write("a.dat", b"pos caf\xe9\nneg bad\n"), lines="label-first")
    assert found(table) == [("pos", "caf\ufffd", "invalid_utf8"), ("neg", "bad", None)]


def test_labels_by_file(write, read, tmp_path):
    write("rt/rt-polarity.pos", "good\nfine\n")
    write("rt/rt-polarity.neg.gz", gzip.compress(b"bad\n"))
    write("rt/README.1.0.txt", "about")
    table = read(tmp_path / "rt", lines="text", label_from="name")
    assert found(table) == [("neg-gz", "bad", None), ("pos", "good", None), ("pos", "fine", None)]


def test_lines_in_parts(write, read):
    path = write("a.txt", "".join(f"pos line {number}\n\n" for number in range(50_000)))
    whole = read(path, lines="label-first")
    parts = read(path, lines="label-first", size=100_000)
    assert parts.to_pylist() == whole.to_pylist()
    assert whole["row"][-1].as_py() == 99_999


def test_a_folder_of_texts_is_a_review_a_file_unless_its_lines_begin_with_labels(write, read, tmp_path):
    write("reviews/1.txt", "a film\nof two lines\n")
    write("fasttext/about.txt", "These are data\n")
    write("fasttext/train.txt", "__label__pos a\n__label__neg b\n")
    write("fasttext/test.txt", "__label__pos c\n")
    assert read(tmp_path / "reviews")["text"].to_pylist() == ["a film\nof two lines\n"]
    assert read(tmp_path / "fasttext")["text"].to_pylist() == ["These are data", "c", "a", "b"]
    assert read(tmp_path / "fasttext")["split"].to_pylist()[1:] == ["test", "train", "train"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "in/rt.pos", "in/part-0"])
def test_text_needs_the_option(write, tmp_path, name):
    content = b"good, but long\n"
    path = write(name, gzip.compress(content) if name.endswith(".gz") else content)
    write("in/README", "about")
    with pytest.raises(SentrayError, match=r"say how the lines hold reviews: --lines text, label-first"):
        resolve(str(path if name.startswith("a") else tmp_path / "in"))


def test_the_columns_to_keep_are_those_of_folders(write, tmp_path):
    write("in/day=2/a.txt", "x\n")
    settings = CorpusSettings(lines="text")
    source = resolve(str(tmp_path / "in"), settings)
    piece = Piece(source.files[0].path, source.files[0].name)
    assert read_schema(source, piece, settings, ["day"]).names == ["day"]
    with pytest.raises(SentrayError, match="has no columns to keep: leave out --keep"):
        read_schema(source, piece, settings, ["day", "stars"])


def test_large_files_are_cut(write):
    source = resolve(str(write("a.ft", "__label__pos good film\n" * 100_000)))
    assert len(plan_shards(source, 500_000)) > 1
