import os
from pathlib import Path

import pytest
from pyarrow import fs

from sentray import nltk_data
from sentray.corpus.source import resolve
from sentray.errors import SentrayError


def names(uri: object) -> list[str]:
    return [file.name for file in resolve(str(uri)).files]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.json", "jsonl"),
        ("a.parquet", "parquet"),
    ],
)
def test_a_file_is_told_by_its_name(write, name, expected):
    source = resolve(str(write(name, "x")))
    assert source.format == expected
    assert [(file.name, file.size) for file in source.files] == [(name, 1)]


def test_a_relative_path_becomes_absolute(write, tmp_path, monkeypatch):
    write("in/a.csv", "x")
    monkeypatch.chdir(tmp_path)
    assert resolve("in").files[0].path == str(tmp_path / "in" / "a.csv")


def test_a_folder_is_read_in_the_order_of_names_without_hidden_files(write, tmp_path):
    for name in (
        "b.csv",
        "a/z.csv",
        "a.csv",
        ".hidden.csv",
        "_SUCCESS",
        "_tmp/c.csv",
        "a/.git/d.csv",
        "README.md",
    ):
        write(name, "x")
    source = resolve(str(tmp_path))
    assert [file.name for file in source.files] == ["a.csv", "a/z.csv", "b.csv"]
    assert source.ignored == ("README.md",)


def test_a_hidden_file_that_is_named_is_read(write):
    assert names(write("_x/_reviews.csv", "x")) == ["_reviews.csv"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.csv", ["a.csv", "b1.csv"]),
        ("b?.csv", ["b1.csv"]),
        ("[!b]*.csv", ["a.csv"]),
        ("[ab]*.csv", ["a.csv", "b1.csv"]),
        ("**/*.csv", ["a.csv", "b1.csv", "in/c.csv", "in/deep/d.csv"]),
        ("*/*.csv", ["in/c.csv"]),
        ("in/**", ["c.csv", "deep/d.csv"]),
        ("in/*.csv", ["c.csv"]),
    ],
)
def test_globs(write, tmp_path, glob, expected):
    for name in ("a.csv", "b1.csv", "in/c.csv", "in/deep/d.csv", "a.csvx", "x.parquet"):
        write(name, "x")
    assert names(tmp_path / glob) == expected


def test_a_file_whose_name_holds_a_wildcard_is_found(write):
    assert names(write("a[1]*.csv", "x")) == ["a[1]*.csv"]


def test_uris_name_files_folders_and_globs(write, tmp_path):
    write("a.csv", "x")
    write("in/b.csv", "x")
    assert names(f"file://{tmp_path}/a.csv") == ["a.csv"]
    assert names(f"file://{tmp_path}/") == ["a.csv", "in/b.csv"]
    assert names(f"file://{tmp_path}/*.csv") == ["a.csv"]


def test_an_object_store_is_read_with_its_options():
    from sentray.corpus.source import _file_system

    filesystem, path = _file_system("s3://bucket/in/*.csv?endpoint_override=localhost:1&scheme=http&region=x")
    assert isinstance(filesystem, fs.S3FileSystem)
    assert path == "bucket/in/*.csv"


def test_class_folders(write, tmp_path):
    for name in (
        "README.txt",
        "imdb.vocab",
        "train/pos/1_9.txt",
        "train/neg/0_1.txt",
        "train/unsup/2_0.txt",
        "train/urls_pos.txt",
        "test/pos/3_8.txt",
    ):
        write(name, "fine")
    source = resolve(str(tmp_path))
    assert [(file.name, file.label, file.split) for file in source.files] == [
        ("test/pos/3_8.txt", "pos", "test"),
        ("train/neg/0_1.txt", "neg", "train"),
        ("train/pos/1_9.txt", "pos", "train"),
        ("train/unsup/2_0.txt", None, "unsup"),
    ]
    assert source.ignored == ("README.txt", "imdb.vocab", "train/urls_pos.txt")
    assert source.describe().endswith(
        "4 files (text), 0.0 MB, split from names: train 2 files, test 1, unsup 1, "
        "label from names: pos 2 files, neg 1, none 1, 3 others ignored (README.txt, imdb.vocab, train/urls_pos.txt)"
    )


def test_class_folders_without_splits_and_a_folder_of_unlabelled_reviews(write, tmp_path):
    write("tree/neg/1.txt", "bad")
    write("tree/pos/1.txt", "good")
    assert [(file.label, file.split) for file in resolve(str(tmp_path / "tree")).files] == [
        ("neg", None),
        ("pos", None),
    ]
    assert [(file.name, file.label) for file in resolve(str(tmp_path / "tree/pos")).files] == [("1.txt", None)]


def test_a_note_beside_a_table_is_no_review(write, tmp_path):
    write("reviews.csv", "x")
    write("README.txt", "x")
    source = resolve(str(tmp_path))
    assert (source.format, source.ignored) == ("csv", ("README.txt",))


@pytest.mark.parametrize("others", [("b.parquet",), ("pos/1.txt",), ("b.jsonl.gz",)])
def test_mixed_formats_are_refused(write, tmp_path, others):
    for name in ("a.csv", *others):
        write(name, "x")
    with pytest.raises(SentrayError, match=r"mixes formats \(1 csv and 1 \w+ files\): name one"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nothing.csv", "there is no file or folder .*nothing.csv"),
        ("*.csv", r"\*\.csv names no file"),
        ("missing/*.csv", "names no file"),
        ("empty", "empty names no file"),
        ("other", r"holds no file that sentray reads \(a.bin, b.md\): it reads .csv"),
        ("other/a.bin", "it reads .csv"),
        ("zip/a.parquet.zip", "it reads .csv"),
        ("other/one.txt", "is one review: give the folder it lies in, or say how the lines hold reviews: --lines text"),
        ("zero/a.parquet", "zero/a.parquet holds no byte"),
        ("zero", "a.parquet holds no byte"),
        ("nltk:brown", "it reads nltk:movie_reviews"),
        ("nosuch://bucket/a", "nosuch://bucket/a cannot be opened"),
        ("synthetic:", "write synthetic:N"),
        ("synthetic:0", "write synthetic:N"),
        ("synthetic:-5", "write synthetic:N"),
        ("synthetic:5?sed=1", "write synthetic:N"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(write, archive, tmp_path, monkeypatch, uri, message):
    (tmp_path / "empty").mkdir()
    write("other/a.bin", b"\x00\x01")
    write("other/b.md", "# reviews")
    write("zip/a.parquet.zip", archive({"a.parquet": b"PAR1"}))
    write("other/one.txt", "x")
    if uri == "other":
        (tmp_path / "other/one.txt").unlink()
    write("zero/a.parquet", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SentrayError, match=message) as raised:
        resolve(uri)
    assert "\n" not in str(raised.value)


def test_a_folder_of_hidden_files_holds_nothing(write, tmp_path):
    write(".a.csv", "x")
    with pytest.raises(SentrayError, match="holds no file that sentray reads"):
        resolve(str(tmp_path))


def test_what_is_no_regular_file(write, tmp_path):
    write("a.csv", "x")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SentrayError, match=r"pipe\.csv is no regular file"):
        resolve(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(SentrayError, match="cannot be listed"):
        resolve(str(tmp_path / "shut"))


def test_synthetic_rows_and_seed():
    source = resolve("synthetic:1_000?seed=7")
    assert (source.rows, source.seed, source.files) == (1000, 7, ())


def test_nltk_with_the_tutorials_split(nltk_polarity):
    files = resolve(nltk_polarity).files
    assert len(files) == 2000
    assert files[0].name == "neg/cv000_29416.txt"
    assert [file.label for file in files].count("pos") == 1000
    assert {file.name for file in files if file.split == "test"} == {file.name for file in files if "/cv9" in file.name}


def test_nltk_that_is_nowhere(monkeypatch):
    monkeypatch.setattr(nltk_data, "find", lambda resource: None)
    with pytest.raises(SentrayError, match=r"set NLTK_DATA .* or try synthetic:5000"):
        resolve("nltk:movie_reviews")


@pytest.mark.parametrize("content", [b"PK", b""])
def test_nltk_that_is_damaged(monkeypatch, tmp_path: Path, content):
    path = tmp_path / "movie_reviews.zip"
    path.write_bytes(content)
    monkeypatch.setattr(nltk_data, "find", lambda resource: path)
    with pytest.raises(SentrayError, match=r"movie_reviews\.zip is damaged; delete it and download"):
        resolve("nltk:movie_reviews")


def test_links_are_followed_and_not_in_circles(write, tmp_path):
    write("in/pos/a.txt", "good")
    write("elsewhere/b.txt", "bad")
    (tmp_path / "in" / "pos" / "again").symlink_to("..")
    (tmp_path / "in" / "neg").symlink_to("../elsewhere")
    assert names(tmp_path / "in") == ["neg/b.txt", "pos/a.txt"]


def test_a_folder_that_is_linked_is_read_once_and_by_its_own_name(write, tmp_path):
    write("in/pos/a.txt", "good")
    (tmp_path / "in" / "more").symlink_to("pos")
    assert names(tmp_path / "in") == ["pos/a.txt"]
    write("elsewhere/b.txt", "bad")
    for name in ("y", "x"):
        (tmp_path / "in" / name).symlink_to("../elsewhere")
    assert names(tmp_path / "in") == ["pos/a.txt", "x/b.txt"]


def test_links_do_not_make_a_few_folders_into_any_number(write, tmp_path):
    for number in range(20):
        write(f"in/{number}/a.csv", "text\n")
        for name in "lr":
            (tmp_path / "in" / str(number) / name).symlink_to(f"../{number + 1}")
    assert len(names(tmp_path / "in")) == 20


def test_odd_names(write, tmp_path):
    write("in/a\nb\x1b[31m.csv", "text\nx\n")
    assert names(tmp_path / "in") == ["a\nb\x1b[31m.csv"]
    (tmp_path / "in" / os.fsdecode(b"\xff.csv")).write_text("text\nx\n")
    with pytest.raises(SentrayError, match=r"in holds a file whose name is not UTF-8: rename it"):
        resolve(str(tmp_path / "in"))
