"""word2vec on reviews: gensim's vectors, every word once an epoch, nothing dropped without a word about it."""

import io
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray.config import EmbedSettings
from sentray.console import Console
from sentray.embeddings import learn as module
from sentray.embeddings.learn import embed, learn
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError
from sentray.text.vocabulary import Vocabulary


def reviews(count: int, seed: int = 0, words: int = 200) -> list[str]:
    """Sentences of twelve words."""
    chance = random.Random(seed)
    names = [f"w{number}" for number in range(words)]
    weights = [1 / (1 + number) for number in range(words)]
    return [" ".join(chance.choices(names, weights, k=12)) for _ in range(4 * count)]


def vectors_of(lines: list[str], min_count: int = 1, threads: int = 1, **options: Any) -> Vectors:
    options = {"dimensions": 16, "epochs": 3, **options}
    settings = EmbedSettings(corpus="-", out="-", min_count=min_count, **options)
    counts = Counter(word for line in lines for word in line.split())
    file = io.BytesIO("".join(f"{line}\n" for line in lines).encode())
    return learn(file, counts, Vocabulary.from_counts(counts, min_count), settings, threads, Console())


@pytest.mark.parametrize("algorithm", ["cbow", "skip-gram"])
def test_one_thread_gives_gensims_own_vectors(algorithm: str) -> None:
    from gensim.models import Word2Vec

    lines = reviews(400)
    vectors = vectors_of(lines, algorithm=algorithm, seed=3)
    gensim = Word2Vec(
        [line.split() for line in lines],
        vector_size=16, sg=int(algorithm == "skip-gram"), seed=3, workers=1, min_count=1, epochs=3,
    )  # fmt: skip
    assert sorted(vectors.words) == sorted(gensim.wv.index_to_key)
    assert vectors.rows.dtype == np.float32
    # Words that occur equally often stand in another order, and begin with another's random numbers.
    assert np.linalg.norm(vectors.rows) == pytest.approx(np.linalg.norm(gensim.wv.vectors), rel=0.05)


def test_words_come_by_count_then_by_code_points() -> None:
    assert vectors_of(["b b b a a a c", "d d d d e e"], min_count=2).words == ["d", "a", "b", "e"]


def test_rare_words_might_as_well_not_be_there() -> None:
    # Gensim learns ever more slowly by all words passed: a rare word more in each sentence does not change its share.
    lines = reviews(20, words=40)
    with_rare = [line.replace(" ", f" rare{number} ", 1) for number, line in enumerate(lines)]
    frequent, kept = vectors_of(lines), vectors_of(with_rare, min_count=3)
    assert kept.words == frequent.words
    np.testing.assert_array_equal(kept.rows, frequent.rows)


def test_every_word_is_learnt_from_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a line that gensim would cut, and with several threads."""
    from gensim.models import Word2Vec

    lines = [*reviews(50), " ".join(reviews(600)), *reviews(20)]
    total, trained = sum(len(line.split()) for line in lines), []
    train = Word2Vec.train
    # No word is left out by chance for being frequent.
    monkeypatch.setattr(
        Word2Vec, "train", lambda model, *given, **more: trained.append(train(model, *given, **more, report_delay=0.1))
    )
    model = Word2Vec.__init__
    monkeypatch.setattr(Word2Vec, "__init__", lambda self, **more: model(self, **more, sample=0))
    assert np.isfinite(vectors_of(lines, threads=4).rows).all()
    assert trained == [(3 * total, 3 * total)]


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_learn import reviews, vectors_of
print(vectors_of(reviews(200), seed=5).rows.tobytes().hex())
"""


def test_same_vectors_in_another_process_with_another_hash_seed() -> None:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=120)[0] for process in running)
    assert len(first) > 16 * 4 * 2 * 100
    assert first == second
    assert vectors_of(reviews(200), seed=6).rows.tobytes().hex() != first.strip()


class Broken(Console):
    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        raise BrokenPipeError


def test_an_error_while_reading_is_no_endless_wait() -> None:
    settings = EmbedSettings(corpus="-", out="-", epochs=20, dimensions=4)
    counts = Counter(a=20_000, b=20_000)
    with pytest.raises(BrokenPipeError):
        learn(io.BytesIO(b"a b\n" * 20_000), counts, Vocabulary(["a", "b"]), settings, 1, Broken())


def test_progress_shows_speed_share_and_time_left(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    sentences = module._Sentences(io.BytesIO(b"a b\n" * 10_000), 20_000, 2, console)
    assert sum(map(len, sentences)) == 20_000
    assert console.shown == [
        ("learning: epoch 1/2  5,000 words/s  ETA 0:06", 0.25),
        ("learning: epoch 2/2  5,000 words/s  ETA 0:04", 0.5),
    ]


ROWS = (
    "id,text,split,label\n"
    "1,Good good film,train,pos\n"
    '2,"film <i>bad\nbad</i>\n\ngood",train,\n'
    "3,other other other,test,neg\n"
    "4,   ,train,pos\n"
    "5,rare,train,neg\n"
)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "in" / "reviews.csv"
    file.parent.mkdir()
    file.write_text(ROWS)
    yield file
    assert not list(tmp_path.rglob(".*")), "something is left behind"


def test_embed_reports_what_it_takes_and_what_it_leaves_out(
    ray_session: None, corpus: Path, tmp_path: Path, console: Any
) -> None:
    from gensim.models import KeyedVectors

    out = tmp_path / "words" / "vectors.txt"
    settings = EmbedSettings(
        corpus=str(corpus), out=str(out), cleaning="reviews", max_bad_rows=0.5, dimensions=4, workers=8
    )
    facts = embed(settings, console)
    assert facts.pop("seconds") > 0
    assert facts.pop("words_per_second") > 0
    assert 0 < facts.pop("mean_norm") < 1
    assert facts == {
        "rows": 5,
        "quarantined": 1,
        "lines": 6,
        "words": 8,
        "distinct": 4,
        "kept": 3,
        "dropped": 1,
        "threads": 8,
    }
    assert console.lines[2:4] == [
        "5 rows read, 1 quarantined; 6 training lines, 8 words",
        "4 distinct words, 3 of them kept; --min-count 2 leaves out 1 with 1 occurrence (12.5 % of all words)",
    ]
    loaded = KeyedVectors.load_word2vec_format(out)
    assert loaded.index_to_key == ["good", "bad", "film"]
    assert loaded.vectors.shape == (3, 4)
    assert {path.name for path in out.parent.iterdir()} == {"vectors.txt", "vectors.txt.settings.json"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("text,split\ngood,test\n", {}, "has no review to learn from"),
        ("text\ngood film\n", {"test_fraction": 0}, "no word is left for the vocabulary"),
        ("text\n...\n", {"test_fraction": 0}, "no word is left for the vocabulary"),
        ("text\ngood\n \n \n", {"test_fraction": 0}, "2 of 3 rows of"),
    ],
)
def test_nothing_to_learn_from_is_one_sentence_and_writes_nothing(
    ray_session: None, corpus: Path, tmp_path: Path, rows: str, options: dict[str, Any], message: str
) -> None:
    corpus.write_text(rows)
    out = tmp_path / "vectors.txt"
    with pytest.raises(SentrayError, match=message):
        embed(EmbedSettings(corpus=str(corpus), out=str(out), cleaning="reviews", **options), Console())
    assert not out.exists()


def test_what_cannot_work_is_refused_before_the_corpus_is_read(corpus: Path, tmp_path: Path) -> None:
    def refused(message: str, **options: Any) -> None:
        with pytest.raises(SentrayError, match=message):
            embed(EmbedSettings(**{"corpus": "nowhere", "out": str(tmp_path / "v.txt"), **options}), Console())

    refused("is a folder; name a file with --out", out=str(tmp_path))
    refused("cannot be written", out=str(corpus / "vectors.txt"))
    refused("cannot be opened", out="ftp://host/vectors.txt")
    refused("new/ is a folder", out=f"{tmp_path}/new/")
    refused("--seed 4294967296 is too large", seed=2**32)
    refused("--dimensions 100001 is too large; take 100000 at most", dimensions=100_001)


def test_vectors_that_do_not_fit_in_memory_are_one_sentence() -> None:
    with pytest.raises(SentrayError, match=r"words of 1000000000000 numbers do not fit in memory"):
        vectors_of(reviews(5), dimensions=10**12)


def test_the_tutorials_corpus_gives_the_tutorials_figures(
    ray_session: None, nltk_polarity: str, tmp_path: Path, console: Any
) -> None:
    facts = embed(EmbedSettings(corpus=nltk_polarity, out=str(tmp_path / "vectors.txt")), console)
    assert (facts["lines"], facts["distinct"], facts["kept"], facts["words"]) == (58_109, 44_276, 25_767, 631_098)
    assert 0.7 < facts["mean_norm"] < 0.9
    with open(tmp_path / "vectors.txt") as vectors:
        assert vectors.readline() == "25767 100\n"
