"""`sentray embed`: word2vec on a corpus's reviews, by gensim, in memory that follows the vocabulary."""

import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from sentray import cluster
from sentray.config import EmbedSettings, write_settings_beside
from sentray.console import Console, count, duration
from sentray.corpus.dataset import Corpus
from sentray.corpus.source import require_apart
from sentray.embeddings.sentences import write_sentences
from sentray.embeddings.vectors import MAX_DIMENSIONS, Vectors, output, write_vectors
from sentray.errors import SentrayError
from sentray.storage import refused
from sentray.text.cleaning import rules_from
from sentray.text.vocabulary import Vocabulary

_SEEDS = 2**32
_PIECE_WORDS = 10_000
"""Gensim would leave out what follows in a longer sentence."""


def embed(settings: EmbedSettings, console: Console) -> dict[str, Any]:
    """Learn word vectors from the usable training reviews, labelled or not, and write them as word2vec text.

    Words come in the order of their counts, the highest first, then by code points.

    Returns:
        `rows` and `quarantined` of the corpus; `lines` (sentences) and `words` of the reviews; `distinct` words, those
        `kept`, and `dropped` occurrences of the others; `threads`; `mean_norm` of the vectors; `seconds` of learning
        and `words_per_second`.

    Raises:
        SentrayError: the corpus cannot be used, has no review to learn from, no word is left, or the file of
            the vectors cannot be written.
    """
    if settings.seed >= _SEEDS:
        raise SentrayError(f"--seed {settings.seed} is too large for word2vec; take one below {_SEEDS}")
    if settings.dimensions > MAX_DIMENSIONS:
        raise SentrayError(f"--dimensions {settings.dimensions} is too large; take {MAX_DIMENSIONS} at most")
    require_apart(settings.corpus, settings.out)
    rules, note = rules_from(settings)
    if note:
        console.say(note)
    with _scratch(settings.out) as file:
        with cluster.connect(settings.address, cpus=settings.workers, verbose=settings.verbose):
            corpus = Corpus.open(settings.corpus, settings, need_label=False)
            console.say(f"corpus: {corpus.describe()}")
            inspection, counts, lines = write_sentences(corpus, rules, settings.sentence, file, console)
        inspection.check_usable(corpus.name, settings.max_bad_rows)
        if not lines:
            raise SentrayError(
                f"{corpus.name} has no review to learn from; name the right column with --split-column, rename a "
                "file whose name says another split, or take a smaller --test-fraction"
            )
        vocabulary = Vocabulary.from_counts(counts, settings.min_count)
        facts: dict[str, Any] = {
            "rows": inspection.rows,
            "quarantined": inspection.reasons.total(),
            "lines": lines,
            "words": counts.total(),
            "distinct": len(counts),
            "kept": len(vocabulary),
            "dropped": counts.total() - sum(counts[word] for word in vocabulary.words),
            "threads": settings.workers or len(os.sched_getaffinity(0)),
        }
        _say_found(facts, settings, console)
        began = time.monotonic()
        vectors = learn(file, counts, vocabulary, settings, facts["threads"], console)
        facts["seconds"] = time.monotonic() - began
    write_vectors(settings.out, vectors)
    write_settings_beside(settings.out, settings)
    facts["mean_norm"] = float(np.linalg.norm(vectors.rows, axis=1).mean())
    facts["words_per_second"] = facts["words"] * settings.epochs / facts["seconds"]
    console.say(
        f"{count(facts['kept'], 'vector')} of {count(vectors.dimensions, 'number')} in {settings.out}, mean norm "
        f"{facts['mean_norm']:.2f}; learnt in {duration(facts['seconds'])} at {facts['words_per_second']:,.0f} words/s"
    )
    return facts


def learn(
    file: IO[bytes],
    counts: Counter[str],
    vocabulary: Vocabulary,
    settings: EmbedSettings,
    threads: int,
    console: Console,
) -> Vectors:
    """Learn the vectors of a vocabulary's words; the same ones each time with one thread.

    Gensim skips other words before it looks for neighbours, as if they were not in the sentences.

    Args:
        file: the sentences, one a line.
        counts: how often each word occurs.
        vocabulary: the words to learn.
        settings: the algorithm, its sizes, epochs and seed.
        threads: that learn at the same time.
        console: for the progress.

    Raises:
        SentrayError: the vectors do not fit in memory.
    """
    from gensim.models import Word2Vec

    model = Word2Vec(
        vector_size=settings.dimensions,
        window=settings.window,
        sg=int(settings.algorithm == "skip-gram"),
        seed=settings.seed,
        workers=threads,
        min_count=1,
        sorted_vocab=0,
    )
    try:
        model.build_vocab_from_freq({word: counts[word] for word in vocabulary.words})
    except MemoryError as error:
        raise SentrayError(
            f"{count(len(vocabulary), 'word')} of {settings.dimensions} numbers do not fit in memory; take fewer "
            "--dimensions or a greater --min-count"
        ) from error
    sentences = _Sentences(file, counts.total(), settings.epochs, console)
    try:
        model.train(sentences, total_words=counts.total(), epochs=settings.epochs)
    finally:
        # Gensim's threads outlive an interruption, and end with their sentences.
        sentences.stopped = True
    if sentences.failure:
        raise sentences.failure
    return Vectors(list(model.wv.index_to_key), np.asarray(model.wv.vectors, np.float32))


class _Sentences:
    """The sentences of a file as lists of words, again in each epoch; shows how far the learning is.

    Attributes:
        stopped: whether no further sentence is wanted.
        failure: what went wrong: gensim reads in a thread, and would wait for ever for one that an error ended.
    """

    def __init__(self, file: IO[bytes], words: int, epochs: int, console: Console) -> None:
        self._file, self._total, self._epochs, self._console = file, words * epochs, epochs, console
        self._done, self._shown, self._began = 0, 0, time.monotonic()
        self.stopped = False
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[list[str]]:
        try:
            self._file.seek(0)
            for line in self._file:
                words = line.decode().split()
                for start in range(0, len(words), _PIECE_WORDS):
                    if self.stopped:
                        return
                    yield words[start : start + _PIECE_WORDS]
                self._done += len(words)
                if self._done >= self._shown + _PIECE_WORDS or self._done == self._total:
                    self._show()
        except Exception as error:
            self.stopped, self.failure = True, error

    def _show(self) -> None:
        self._shown = self._done
        share, rate = self._done / self._total, self._done / (time.monotonic() - self._began)
        left = duration((self._total - self._done) / rate)
        epoch = min(int(share * self._epochs) + 1, self._epochs)
        self._console.progress(f"learning: epoch {epoch}/{self._epochs}  {rate:,.0f} words/s  ETA {left}", share)


def _say_found(facts: dict[str, Any], settings: EmbedSettings, console: Console) -> None:
    lines, words = count(facts["lines"], f"training {settings.sentence}"), count(facts["words"], "word")
    console.say(f"{facts['rows']:,} rows read, {facts['quarantined']:,} quarantined; {lines}, {words}")
    kept = f"{count(facts['distinct'], 'distinct word')}, {facts['kept']:,} of them kept"
    if rare := facts["distinct"] - facts["kept"]:
        kept += (
            f"; --min-count {settings.min_count} leaves out {rare:,} with {count(facts['dropped'], 'occurrence')} "
            f"({100 * facts['dropped'] / facts['words']:.1f} % of all words)"
        )
    console.say(kept)


def _scratch(out: str) -> IO[bytes]:
    """A file without a name for the sentences, beside a local output; gone with this process at the latest.

    Raises:
        SentrayError: nothing can be written to `out`, which is found before learning for hours.
    """
    target, name = output(out)
    probe = f".{name}.{uuid.uuid4().hex}"
    target.write(probe, b"")
    target.delete(probe)
    with refused(out, "written", "choose another --out"):
        return tempfile.TemporaryFile(dir=target.path("") if target.local else None)
