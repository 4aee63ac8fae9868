"""From a corpus to a training set: words listed or hashed, and with the vectors of a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import models
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.text.cleaning import clean, preset
from sentray.text.hashing import HashedWords, word_code
from sentray.text.ngrams import GramSpec
from sentray.text.vocabulary import Vocabulary
from sentray.training import prepare, training_set
from sentray.training.training_set import IDS_FILE, TrainingSet

TEXTS = ["a good good film", "a bad film", "no bad words here", "good words", "unseen test words"]
LABELS = ["pos", "neg", "neg", "pos", "pos"]
SPLITS = ["train"] * 4 + ["test"]
RULES, _ = preset("reviews")
VECTORS = "good 1 0 0.5\nbad -1 0 0.5\nwords 0 1 0\nelsewhere 9 9 9\n"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    # A file for each two reviews, so that what blocks know has to be put together.
    folder = tmp_path / "reviews"
    folder.mkdir()
    for start in range(0, len(TEXTS), 2):
        rows = slice(start, start + 2)
        columns = {"text": TEXTS[rows], "label": LABELS[rows], "split": SPLITS[rows]}
        pq.write_table(pa.table(columns), folder / f"{start}.parquet")
    return folder


def prepared(corpus: Path, folder: Path, console: Console | None = None, **values: Any) -> TrainingSet:
    defaults: dict[str, Any] = {"model": "embedding-mlp", "cleaning": "reviews", "min_count": 1}
    settings = TrainSettings(corpus=str(corpus), out="unused", **defaults | values)
    prepare.prepare(settings, models.architecture(settings.model), str(folder), console or Console())
    return TrainingSet.load(str(folder))


def ids(rows: TrainingSet) -> list[list[int]]:
    return [review.tolist() for review in rows.reviews(np.arange(len(rows)))]


@pytest.mark.usefixtures("ray_session")
def test_listed_and_hashed_words_make_the_same_set(reviews: Path, tmp_path: Path, console: Any) -> None:
    listed = prepared(reviews, tmp_path / "listed")
    hashed = prepared(reviews, tmp_path / "hashed", console, encoder="hash", buckets=1000)
    words = [clean(text, RULES) for text in TEXTS[:4]]
    assert isinstance(listed.vocabulary, Vocabulary)
    assert ids(listed) == [[listed.vocabulary.ids[word] for word in row] for row in words]
    assert hashed.vocabulary == HashedWords(1000)
    assert ids(hashed) == [[1 + (word_code(word) - 1) % 1000 for word in row] for row in words]
    for found in (listed, hashed):
        facts, metrics = found.facts, found.facts.metrics
        assert found.targets.tolist() == [1, 0, 0, 1]
        assert (facts.spec.labels, facts.label_rows) == (("neg", "pos"), (2, 2))
        assert (metrics["test_rows"], metrics["longest_review"]) == (1, 4)
        assert (metrics["vocabulary_distinct"], metrics["coverage"]) == (7, 1.0)
        assert metrics["vocabulary_distinct_estimated"] == (found is hashed)
        assert found.vectors is None
    assert (listed.facts.spec.buckets, listed.facts.metrics["sharing_words"]) == (None, None)
    assert (hashed.facts.spec.buckets, hashed.facts.metrics["sharing_words"]) == (1000, 0)
    assert not (tmp_path / "hashed" / "vocabulary.txt").exists()
    assert listed.facts.metrics["cleaning_left"] | {"letters": 0} == {
        **{"reviews": 4, "spaced": 13, "words": 13, "known": 13, "wordless": 0, "unknown": 0},
        **{"letters": 0, "unspaced": 0},
    }
    assert not any(line.startswith("the cleaning leaves") for line in console.lines)
    assert any(
        "about 7 distinct, hashed into 1,000 buckets, where about 0 share theirs" in line for line in console.lines
    )


@pytest.mark.usefixtures("ray_session")
def test_n_grams_are_counted(reviews: Path, tmp_path: Path, console: Any) -> None:
    def texts(found: TrainingSet) -> set[str]:
        assert found.grams is not None
        return set(found.grams.gram_texts((np.flatnonzero(found.grams.table) + 1).tolist()))

    whole = prepared(reviews, tmp_path / "whole", model="wide", characters=False, min_gram_reviews=1)
    words = [clean(text, RULES) for text in TEXTS[:4]]
    grams = {
        " ".join(part) for row in words for n in (1, 2, 3) for part in zip(*(row[i:] for i in range(n)), strict=False)
    }
    skips = {f"{first} _ {third}" for row in words for first, third in zip(row, row[2:], strict=False)}
    assert texts(whole) == grams | skips
    assert whole.facts.spec.grams == GramSpec(scale=5.0)
    assert whole.facts.metrics["grams"] == {"known": 26, "distinct": 26, "frequent": 26, "min_reviews": 1}
    twice = prepared(reviews, tmp_path / "twice", model="wide", characters=False)
    assert texts(twice) == {"good", "bad", "words", "film", "a"}
    most = prepared(reviews, tmp_path / "most", console, model="wide", max_grams=2)
    assert most.grams is not None
    assert (most.grams.known, most.facts.spec.grams) == (2, GramSpec(characters=True, scale=5.0))
    assert any(line.startswith("n-grams: 2 of ") for line in console.lines)
    hashed = prepared(reviews, tmp_path / "hashed", model="wide", encoder="hash", buckets=1000, min_gram_reviews=1)
    assert hashed.grams is not None
    assert (hashed.grams.known, hashed.grams.spec.characters) == (26, False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "wide", "dimensions": 9}, "are about word vectors, which --model wide does not have"),
        ({"model": "wide-deep", "gpu": True}, "--model wide-deep is trained on CPUs"),
        ({"max_grams": 9}, "are about n-grams, at which --model tutorial-cnn does not look"),
        ({"model": "wide", "encoder": "hash", "characters": True}, "--characters needs --encoder vocabulary"),
        ({"model": "wide", "encoder": "hash", "buckets": 2**21}, "--buckets is at most 2,097,150"),
    ],
)
def test_settings_of_n_grams_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SentrayError, match=message):
        prepare.require_files(TrainSettings(**{"corpus": "x", "out": "y", "model": "tutorial-cnn"} | values))


def test_one_long_review_does_not_make_the_network_as_long() -> None:
    assert prepare.usual_length(np.array([50_000, *range(1, 1000)])) == 995
    assert prepare.usual_length(np.array([7, 9])) == 9


@pytest.mark.usefixtures("ray_session")
def test_hashing_meets_bad_rows_as_listing_does(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": [*TEXTS, None, "odd"],
            "label": [*LABELS, "pos", "excellent"],
            "split": [*SPLITS, "train", "test"],
        }
    )
    pq.write_table(table, tmp_path / "reviews.parquet")
    found = prepared(tmp_path / "reviews.parquet", tmp_path / "set", encoder="hash", max_bad_rows=0.5)
    assert found.facts.metrics["quarantined_rows"] == 2
    reasons = pq.read_table(tmp_path / "set" / "quarantine.parquet")["reason"].to_pylist()
    assert reasons == ["null_text", "unknown_label"]
    with pytest.raises(SentrayError, match=r"more than --max-bad-rows 0\.1 allows"):
        prepared(tmp_path / "reviews.parquet", tmp_path / "refused", encoder="hash", max_bad_rows=0.1)
    assert (tmp_path / "refused" / "quarantine.parquet").exists()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["--", "!?"], ["neg", "pos"], "cleaning leaves no word of the 2 reviews"),
        (["good", "fine"], ["pos", "pos"], "only the class 'pos'"),
    ],
)
def test_hashing_refuses_what_cannot_be_learnt(
    tmp_path: Path, texts: list[str], labels: list[str], message: str
) -> None:
    pq.write_table(pa.table({"text": texts, "label": labels, "split": ["train"] * 2}), tmp_path / "reviews.parquet")
    with pytest.raises(SentrayError, match=message):
        prepared(tmp_path / "reviews.parquet", tmp_path / "set", encoder="hash")
    assert not training_set.exists(str(tmp_path / "set"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": "hash", "buckets": 2**31 - 1, "dimensions": 1000}, r"^the vectors of .* fewer --buckets or"),
        ({"dimensions": 10**11}, r"^the vectors of 8 ids .* fewer --max-words or fewer --dimensions$"),
    ],
)
def test_more_vectors_than_memory_are_refused_before_reviews_are_encoded(
    reviews: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(SentrayError, match=message):
        prepared(reviews, tmp_path / "set", **values)
    assert not (tmp_path / "set" / IDS_FILE).exists()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("unknown", ["drop", "share"])
def test_vectors_are_laid_out_by_id(reviews: Path, tmp_path: Path, console: Any, unknown: str) -> None:
    (tmp_path / "vectors.txt").write_text(VECTORS)
    found = prepared(reviews, tmp_path / "set", console, embedding=str(tmp_path / "vectors.txt"), unknown=unknown)
    assert isinstance(found.vocabulary, Vocabulary)
    assert found.vectors is not None
    assert (found.vectors.dtype, found.vectors.shape) == (np.float32, (found.vocabulary.size, 3))
    assert found.facts.dimensions == 3
    wanted = {"good": [1, 0, 0.5], "bad": [-1, 0, 0.5], "words": [0, 1, 0]}
    for word, row in found.vocabulary.ids.items():
        assert found.vectors[row].tolist() == wanted.get(word, [0, 0, 0])
    assert not found.vectors[0].any()
    embedding = found.facts.metrics["embedding"]
    assert embedding is not None
    assert (embedding["words"], embedding["words_found"], embedding["tokens"], embedding["tokens_found"]) == (
        7,
        3,
        13,
        7,
    )
    assert json.loads(json.dumps(embedding)) == embedding
    assert any("3 of 7" in line for line in console.lines)


@pytest.mark.parametrize(
    ("content", "dimensions", "message"),
    [
        (None, None, "there is no file"),
        (b"", None, "holds no"),
        (b"<html><body>404</body></html>\n", None, "a web page"),
        (VECTORS.encode(), 5, "have 3 numbers, not the 5 of --dimensions"),
    ],
)
def test_wrong_vectors_are_refused_before_the_corpus_is_read(
    tmp_path: Path, content: bytes | None, dimensions: int | None, message: str
) -> None:
    # Without Ray, which reading a corpus needs.
    if content is not None:
        (tmp_path / "vectors.txt").write_bytes(content)
    with pytest.raises(SentrayError, match=message):
        prepared(
            tmp_path / "no corpus",
            tmp_path / "set",
            embedding=str(tmp_path / "vectors.txt"),
            dimensions=dimensions,
        )
    assert not (tmp_path / "set" / IDS_FILE).exists()


@pytest.mark.usefixtures("ray_session")
def test_rows_are_held_out_by_their_split_or_group_and_count_as_their_weight_says(tmp_path: Path, console: Any) -> None:
    films = [f"film {row // 4}" for row in range(40)]
    columns = {"text": [f"good {row}" for row in range(40)], "label": (["neg"] * 4 + ["pos"] * 4) * 5, "film": films}
    file = tmp_path / "reviews.parquet"
    pq.write_table(pa.table(columns | {"stars": [str(row % 5) for row in range(40)]}), file)
    grouped = prepared(file, tmp_path / "grouped", console, group_column="film", weight_column="stars")
    folds = grouped.held.reshape(-1, 4)
    assert (folds == folds[:, :1]).all()
    assert grouped.facts.held_out == tuple(np.bincount(grouped.held).tolist())
    assert sum(grouped.facts.held_out) == 40
    assert grouped.weights is not None
    assert grouped.weights.tolist() == [float(row % 5) for row in range(40)]
    assert any(line.startswith("held out: each training row once, by one of 5 fits") for line in console.lines)
    assert any(line.endswith("by whole film") for line in console.lines)
    with pytest.raises(SentrayError, match="--weight-column film holds no numbers"):
        prepared(file, tmp_path / "refused", weight_column="film")

    splits = [("train", "validation", "test", "dev")[row % 4] for row in range(40)]
    pq.write_table(pa.table(columns | {"split": splits}), file)
    given = prepared(file, tmp_path / "given", console)
    assert (len(given), given.facts.held_out) == (30, (20,))
    assert (given.held == 255).sum() == 10
    assert given.facts.metrics["test_rows"] == 10
    assert "held out: the 20 rows whose split is validation" in console.lines
    assert len(given.texts.values) == 30
    # Without a refit they are not trained on, and without held-out rows not even read.
    assert len(prepared(file, tmp_path / "once", refit=False).texts.values) == 10
    assert len(prepared(file, tmp_path / "none", validation_fraction=0)) == 10


@pytest.mark.parametrize(
    ("task", "column", "labels", "targets"),
    [
        ("classification", ["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        ("ordinal", ["10", "-1", "2"], ["-1", "2", "10"], [2, 0, 1]),
        ("multilabel", ["a\x1fb", "", "b\x1fc"], ["a", "b", "c"], [[1, 1, 0], [0, 0, 0], [0, 1, 1]]),
        ("regression", ["1.5", "-2", "1e3"], [], [1.5, -2, 1000]),
    ],
)
def test_targets_are_what_the_task_asks(task: Any, column: list[str], labels: list[str], targets: Any) -> None:
    found, numbers = prepare._targets(pa.chunked_array([column[:1], column[1:]], pa.string()), task, None)
    assert found == labels
    assert numbers.tolist() == targets
    assert numbers.dtype == training_set._KINDS[task]
