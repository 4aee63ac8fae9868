"""The reviews of the bench: natural in words and length, all different, the same for the same seed."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sentray import nltk_data
from sentray.bench import reviews

TEXTS = pa.chunked_array([["a good film .\nit is slow .\n", "bad ."], ["never again !\nnaïve plot"]])


def test_reviews_are_sentences_of_the_given_ones(tmp_path: Path) -> None:
    reviews.write_reviews(TEXTS, tmp_path, 300)
    table = pq.read_table(tmp_path)
    table.validate(full=True)
    assert table["id"].to_pylist()[::299] == ["review-000000000", "review-000000299"]
    sentences = {"a good film .", "it is slow .", "bad .", "never again !", "naïve plot"}
    drawn = [text.split("\n") for text in table["text"].to_pylist()]
    assert {sentence for review in drawn for sentence in review} == sentences
    assert {len(review) for review in drawn} == {1, 2}


def test_the_same_seed_writes_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "FILE_ROWS", 100)
    monkeypatch.setattr(reviews, "GROUP_ROWS", 40)
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        reviews.write_reviews(TEXTS, tmp_path / name, 250, seed)
    files = [sorted((tmp_path / name).iterdir()) for name in ("one", "again")]
    assert [file.name for file in files[0]] == [f"reviews-{index:05}.parquet" for index in range(3)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    one, other = (pq.read_table(tmp_path / name) for name in ("one", "other"))
    assert one["id"].equals(other["id"])
    assert not one["text"].equals(other["text"])
    assert one["text"].slice(0, 100) != one["text"].slice(100, 100)


def test_the_polarity_corpus_gives_reviews_of_its_length(nltk_polarity: str, tmp_path: Path) -> None:
    assert reviews.corpus() == nltk_polarity
    table = reviews.labelled(nltk_polarity)
    assert table.num_rows == 2000
    assert pc.sum(pc.equal(table["split"], "test")).as_py() == 200
    reviews.write_reviews(table["text"], tmp_path, 4000)
    written = pq.read_table(tmp_path)["text"]
    lengths = [pc.mean(pc.binary_length(texts)).as_py() for texts in (written, table["text"])]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.05)
    assert len(pc.unique(written)) == 4000


def test_synthetic_reviews_where_there_is_no_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nltk_data, "find", lambda resource: None)
    table = reviews.labelled(reviews.corpus())
    assert table.num_rows == 2000
    for split in ("train", "test"):
        labels = table.filter(pc.equal(table["split"], split))["label"].to_pylist()
        assert set(labels) == {"neg", "pos"}
    reviews.write_reviews(table["text"], tmp_path, 50)
    assert set(pq.read_table(tmp_path)["text"].to_pylist()) <= set(table["text"].to_pylist())
