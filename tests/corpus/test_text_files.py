import pytest

from sentray import nltk_data
from sentray.config import CorpusSettings
from sentray.corpus.readers import read_schema, read_shard, require_columns
from sentray.corpus.source import resolve
from sentray.corpus.splits import Piece, plan_shards
from sentray.errors import SentrayError


def test_a_file_is_a_review_whose_folder_is_the_label(write, read, tmp_path):
    write("train/neg/1.txt", b"\xef\xbb\xbfbad\r\nfilm\x85\n")
    write("train/pos/1.txt", "good\u2028")
    write("train/unsup/1.txt", "who knows")
    write("test/pos/2.txt", "fine")
    table = read(tmp_path, need_label=True)
    ids = ["test/pos/2.txt", "train/neg/1.txt", "train/pos/1.txt", "train/unsup/1.txt"]
    assert table["id"].to_pylist() == table["file"].to_pylist() == ids
    assert table["text"].to_pylist() == ["fine", "bad\r\nfilm\ufffd\n", "good\u2028", "who knows"]
    assert table["label"].to_pylist() == ["pos", "neg", "pos", None]
    assert table["split"].to_pylist() == ["test", "train", "train", "unsup"]
    assert table["row"].to_pylist() == [1] * 4
    assert table["reason"].to_pylist() == [None, "invalid_utf8", None, None]


def test_empty_reviews_and_reviews_without_words(write, read, tmp_path):
    write("pos/1.txt", "")
    write("pos/2.txt", " \r\n\u3000")
    write("neg/3.txt", "x")
    assert read(tmp_path)["reason"].to_pylist() == [None, "empty_text", "empty_text"]


def test_labels_are_needed_only_for_training(write, read, tmp_path):
    write("1.txt", "good")
    assert read(tmp_path)["label"].to_pylist() == [None]
    with pytest.raises(SentrayError, match="has no class folders: lay the reviews out as neg/"):
        read(tmp_path, need_label=True)
    for name in ("lang=en/1.txt", "pos/1.txt", "neg/2.txt"):
        write(f"in/{name}", "good")
    require_columns(str(tmp_path / "in"), CorpusSettings(), need_label=True)


def test_columns_to_keep_are_those_of_folders(write, read, tmp_path):
    write("day=2/pos/1.txt", "good")
    write("day=3/neg/1.txt", "bad")
    assert read(tmp_path, keep=["day"])["day"].to_pylist() == ["2", "3"]
    source = resolve(str(tmp_path))
    piece = Piece(source.files[0].path, source.files[0].name)
    assert read_schema(source, piece, CorpusSettings(), ["day"]).names == ["day"]
    with pytest.raises(SentrayError, match="has no columns to keep: leave out --keep"):
        read_schema(source, piece, CorpusSettings(), ["stars"])


def test_a_review_that_vanished_after_the_plan(write, tmp_path):
    write("neg/1.txt", "x")
    gone = write("pos/gone.txt", "x")
    source = resolve(str(tmp_path))
    (shard,) = plan_shards(source, 1_000_000)
    gone.unlink()
    with pytest.raises(SentrayError, match=r"pos/gone\.txt is not there any more"):
        list(read_shard(source, shard, CorpusSettings()))


def test_the_authors_folders_hold_what_nltk_holds(nltk_polarity, reviews_folder, read):
    from_nltk, from_folder = read(nltk_polarity), read(reviews_folder)
    columns = ["id", "text", "label", "file", "row", "reason"]
    assert from_nltk.num_rows == 2000
    assert from_nltk.select(columns).to_pylist() == from_folder.select(columns).to_pylist()
    assert from_nltk["split"].to_pylist().count("test") == 200
    assert from_nltk["text"].to_pylist()[0].startswith("plot : two teen couples go to a church party")


def test_nltk_data_that_is_unpacked_reads_alike(nltk_polarity, reviews_folder, read, monkeypatch):
    packed = read(nltk_polarity)
    monkeypatch.setattr(nltk_data, "find", lambda resource: reviews_folder)
    assert read(nltk_polarity).to_pylist() == packed.to_pylist()


def test_a_worker_without_nltk_data(nltk_polarity, monkeypatch):
    source = resolve(nltk_polarity)
    shard = plan_shards(source, 1_000_000)[0]
    monkeypatch.setattr(nltk_data, "find", lambda resource: None)
    with pytest.raises(SentrayError, match="set NLTK_DATA on every machine"):
        next(read_shard(source, shard, CorpusSettings()))


def test_generated_reviews_do_not_depend_on_the_shards(read):
    one, many = read("synthetic:300?seed=3"), read("synthetic:300?seed=3", size=50_000)
    assert one.to_pylist() == many.to_pylist()
    assert one["id"].to_pylist()[299] == "synthetic:299"
    assert one["row"].to_pylist() == list(range(1, 301))
    assert one["reason"].null_count == 300
    assert set(one["label"].to_pylist()) == {"neg", "pos"}
    assert one["text"].to_pylist() != read("synthetic:300?seed=4")["text"].to_pylist()


def test_files_in_another_encoding(write, read, tmp_path):
    write("pos/1.txt", "caf\u00e9".encode("cp1252"))
    write("neg/1.txt", "\u201cno\u201d".encode("utf-16"))
    assert read(tmp_path, encoding="cp1252")["reason"].null_count == 2
    (tmp_path / "pos/1.txt").write_text("caf\u00e9", encoding="utf-8")
    assert read(tmp_path)["text"].to_pylist() == ["\u201cno\u201d", "caf\u00e9"]
