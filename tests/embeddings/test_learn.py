"""word2vec on reviews: gensim's vectors, every word once an epoch, nothing dropped without a word about it."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sentray.config import EmbedSettings
from sentray.console import Console
from sentray.embeddings import learn as module
from sentray.embeddings import sentences as sentence_files
from sentray.embeddings import vectors as vectors_module
from sentray.embeddings.learn import embed, learn
from sentray.embeddings.sentences import SentenceFiles, sentences
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary

RULES = preset("reviews")[0]


def reviews(count: int, seed: int = 0, words: int = 200) -> list[str]:
    chance = random.Random(seed)
    names = [f"w{number}" for number in range(words)]
    weights = [1 / (1 + number) for number in range(words)]
    return ["\n".join(" ".join(chance.choices(names, weights, k=12)) for _ in range(4)) for _ in range(count)]


def prepared(folder: Path, texts: list[str]) -> SentenceFiles:
    folder.mkdir()
    files = SentenceFiles(folder)
    for text in texts:
        files.add(sentences(pa.array([text]), RULES))
    files.finish()
    return files


def vectors_of(files: SentenceFiles, min_count: int = 1, threads: int = 1, **options: Any) -> Vectors:
    options = {"dimensions": 16, "epochs": 3, **options}
    settings = EmbedSettings(corpus="-", out="-", min_count=min_count, **options)
    return learn(files, Vocabulary.from_counts(files.counts, min_count), settings, threads, Console())


@pytest.mark.parametrize("algorithm", ["cbow", "skip-gram"])
def test_one_file_and_one_thread_give_gensims_own_vectors(tmp_path: Path, algorithm: str) -> None:
    from gensim.models import Word2Vec

    files = prepared(tmp_path / "sentences", reviews(400))
    vectors = vectors_of(files, algorithm=algorithm, seed=3)
    gensim = Word2Vec(vector_size=16, sg=int(algorithm == "skip-gram"), seed=3, workers=1, min_count=1, sorted_vocab=0)
    gensim.build_vocab_from_freq({word: files.counts[word] for word in vectors.words})
    ((file, words),) = files.files
    assert words > 15_000  # several batches of gensim's, so that its learning rate falls within a file
    gensim.train(corpus_file=str(file), total_words=words, epochs=3)
    assert vectors.words == gensim.wv.index_to_key
    assert vectors.rows.dtype == np.float32
    np.testing.assert_array_equal(vectors.rows, gensim.wv.vectors)


def test_words_come_by_count_then_by_code_points(tmp_path: Path) -> None:
    files = prepared(tmp_path / "sentences", ["b b b a a a c", "d d d d e e"])
    assert vectors_of(files, min_count=2).words == ["d", "a", "b", "e"]


def test_rare_words_might_as_well_not_be_there(tmp_path: Path) -> None:
    texts = reviews(20, words=40)
    with_rare = [text.replace(" ", f" rare{number} ", 2) for number, text in enumerate(texts)]
    frequent = vectors_of(prepared(tmp_path / "frequent", texts))
    kept = vectors_of(prepared(tmp_path / "all", with_rare), min_count=3)
    assert kept.words == frequent.words
    np.testing.assert_array_equal(kept.rows, frequent.rows)


def test_every_word_is_learnt_from_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a line that gensim cuts, and with more threads than lines."""
    monkeypatch.setattr(sentence_files, "FILE_WORDS", 1_000)
    files = prepared(tmp_path / "sentences", [*reviews(300), " ".join(reviews(600)).replace("\n", " "), *reviews(100)])
    assert len(files.files) > 8
    assert max(words for _, words in files.files) > 25_000
    made, learnt = module._step, []

    def step_of(*arguments: Any) -> Any:
        step = made(*arguments)

        def counted(number: int) -> int:
            learnt.append((number % len(files.files), step(number)))
            return learnt[-1][1]

        return counted

    monkeypatch.setattr(module, "_step", step_of)
    vectors = vectors_of(files, threads=8)
    assert sorted(learnt) == sorted([(number, words) for number, (_, words) in enumerate(files.files)] * 3)
    assert np.isfinite(vectors.rows).all()


PROGRAM = """
import sys
from pathlib import Path
import pyarrow as pa
sys.path.insert(0, {tests!r})
from test_learn import prepared, reviews, vectors_of
from sentray.embeddings import sentences
sentences.FILE_WORDS = 2_000
print(vectors_of(prepared(Path(sys.argv[1]), reviews(200)), seed=5).rows.tobytes().hex())
"""


def test_same_vectors_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=120)[0] for process in running)
    assert len(first) > 16 * 4 * 2 * 100
    assert first == second
    other = vectors_of(prepared(tmp_path / "other", reviews(200)), seed=6)
    assert other.rows.tobytes().hex() != first.strip()


class Impatient(Console):
    def progress(self, line: str, share: float | None = None) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_ends_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    files = prepared(tmp_path / "sentences", reviews(200))
    settings = EmbedSettings(corpus="-", out="-", epochs=1_000_000)
    with pytest.raises(KeyboardInterrupt):
        learn(files, Vocabulary.from_counts(files.counts), settings, 1, Impatient())


def test_a_file_that_is_gone_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    files = prepared(tmp_path / "sentences", reviews(5))
    files.files[0][0].unlink()
    with pytest.raises(FileNotFoundError):
        vectors_of(files, threads=2)


def test_progress_shows_speed_share_and_time_left(console: Any) -> None:
    module._show(done=0, total=1_000, epochs=5, seconds=1.0, console=console)
    module._show(done=500, total=1_000, epochs=5, seconds=2.0, console=console)
    module._show(done=1_000, total=1_000, epochs=5, seconds=4.0, console=console)
    assert console.shown == [
        ("learning: epoch 1/5  0 words/s  ETA ?", 0.0),
        ("learning: epoch 3/5  250 words/s  ETA 0:02", 0.5),
        ("learning: epoch 5/5  250 words/s  ETA 0:00", 1.0),
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
    assert not list(tmp_path.rglob(".sentray-embed-*")), "the sentences are left behind"


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
        "threads": 1,
    }
    assert console.lines[1:4] == [
        "5 rows read, 1 quarantined; 6 training lines, 8 words",
        "4 distinct words, 3 of them kept; --min-count 2 leaves out 1 with 1 occurrence (12.5 % of all words)",
        "1 thread instead of 8: each needs about 100,000 words to have enough to do",
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
    refused("an empty name is a folder", out="")
    refused("new/ is a folder", out=f"{tmp_path}/new/")
    refused("--seed 4294967296 is too large", seed=2**32)
    refused("--dimensions 100001 is too large; take 100000 at most", dimensions=100_001)


def test_a_remote_output_is_tried_before_the_corpus_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_path", lambda _: None)
    monkeypatch.setattr(vectors_module, "local_path", lambda _: None)
    (tmp_path / "file").touch()
    with pytest.raises(SentrayError, match="cannot be written"):
        embed(EmbedSettings(corpus="nowhere", out=f"file://{tmp_path}/file/v.txt"), Console())
    with module._scratch(f"file://{tmp_path}/v.txt"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_vectors_that_do_not_fit_in_memory_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match=r"words of 1000000000000 numbers do not fit in memory"):
        vectors_of(prepared(tmp_path / "sentences", reviews(5)), dimensions=10**12)


def test_sentences_of_a_killed_run_are_removed_by_the_next_and_no_others(tmp_path: Path) -> None:
    (tmp_path / ".sentray-embed-killed").mkdir()
    (tmp_path / ".sentray-embed-killed" / "000000.txt").write_text("good film")
    with module._scratch(str(tmp_path / "a.txt")) as first:
        assert list(tmp_path.iterdir()) == [first]
        with module._scratch(str(tmp_path / "b.txt")) as second:
            assert set(tmp_path.iterdir()) == {first, second}
    assert list(tmp_path.iterdir()) == []


def test_the_tutorials_corpus_gives_the_tutorials_figures(
    ray_session: None, nltk_polarity: str, tmp_path: Path, console: Any
) -> None:
    facts = embed(EmbedSettings(corpus=nltk_polarity, out=str(tmp_path / "vectors.txt")), console)
    assert (facts["lines"], facts["distinct"], facts["kept"], facts["words"]) == (58_109, 44_276, 25_767, 631_098)
    assert 0.7 < facts["mean_norm"] < 0.9
    with open(tmp_path / "vectors.txt") as vectors:
        assert vectors.readline() == "25767 100\n"
