"""`sentray embed`: word2vec on a corpus's reviews, by gensim's compiled loops, in memory that follows the vocabulary.

Gensim's own `train(corpus_file=…)` gives each thread a range of bytes of one file, which may begin within a word, and
stops the thread after its share of all words and up to 10,000 more. So 8 threads learn from a file of ten lines 4.5
times an epoch; they never reach the end of a range whose words are shorter than elsewhere; and progress is reported
only at the end of an epoch. Here the sentences are in many small files and each thread takes the next one: what gensim
calls an epoch is one of these files. Every word is learnt from once an epoch, and with one file and one thread the
vectors are gensim's own, bit for bit.
"""

import fcntl
import itertools
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from sentray import cluster
from sentray.config import EmbedSettings, write_settings_beside
from sentray.console import Console, count, duration
from sentray.corpus.dataset import Corpus
from sentray.embeddings.sentences import FILE_WORDS, SentenceFiles, write_sentences
from sentray.embeddings.vectors import MAX_DIMENSIONS, Vectors, local_path, output, write_vectors
from sentray.errors import SentrayError
from sentray.storage import first_line
from sentray.text.cleaning import rules_from
from sentray.text.vocabulary import Vocabulary

_POLL_SECONDS = 0.5
_SEEDS = 2**32
_SCRATCH = ".sentray-embed-"


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
    rules, note = rules_from(settings)
    if note:
        console.say(note)
    with _scratch(settings.out) as folder:
        with cluster.connect(settings.address, cpus=settings.workers, verbose=settings.verbose):
            corpus = Corpus.open(settings.corpus, settings, need_label=False)
            console.say(f"corpus: {corpus.describe()}")
            inspection, found = write_sentences(corpus, rules, settings.sentence, folder, console)
        inspection.check_usable(corpus.name, settings.max_bad_rows)
        if not found.lines:
            raise SentrayError(
                f"{corpus.name} has no review to learn from; name the right column with --split-column, or take a "
                "smaller --test-fraction"
            )
        vocabulary = Vocabulary.from_counts(found.counts, settings.min_count)
        facts: dict[str, Any] = {
            "rows": inspection.rows,
            "quarantined": inspection.reasons.total(),
            "lines": found.lines,
            "words": found.counts.total(),
            "distinct": len(found.counts),
            "kept": len(vocabulary),
            "dropped": found.counts.total() - sum(found.counts[word] for word in vocabulary.words),
        }
        _say_found(facts, settings, console)
        facts["threads"] = _threads(settings.workers, len(found.files), console)
        began = time.monotonic()
        vectors = learn(found, vocabulary, settings, facts["threads"], console)
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
    sentences: SentenceFiles, vocabulary: Vocabulary, settings: EmbedSettings, threads: int, console: Console
) -> Vectors:
    """Learn the vectors of a vocabulary's words; the same ones each time with one thread.

    Gensim skips other words before it looks for neighbours, as if they were not in the sentences; it cuts a sentence
    of more than 10,000 words into several and learns from all of them.

    Args:
        sentences: files with their words, and how often each word occurs.
        vocabulary: the words to learn.
        settings: the algorithm, its sizes, epochs and seed.
        threads: files that are learnt from at the same time.
        console: for the progress.

    Raises:
        SentrayError: the vectors do not fit in memory.
    """
    from gensim.models import Word2Vec

    steps = settings.epochs * len(sentences.files)
    # One worker, since gensim divides the words of a file by the workers to know where to stop.
    model = Word2Vec(
        vector_size=settings.dimensions,
        window=settings.window,
        sg=int(settings.algorithm == "skip-gram"),
        epochs=steps,
        seed=settings.seed,
        workers=1,
        min_count=1,
        sorted_vocab=0,
    )
    try:
        model.build_vocab_from_freq({word: sentences.counts[word] for word in vocabulary.words})
    except MemoryError as error:
        raise SentrayError(
            f"{count(len(vocabulary), 'word')} of {settings.dimensions} numbers do not fit in memory; take fewer "
            "--dimensions or a greater --min-count"
        ) from error
    step = _step(model, sentences.files)
    words, total = [0] * threads, sentences.counts.total() * settings.epochs
    numbers, stop = itertools.count(), threading.Event()

    def work(thread: int) -> None:
        try:
            # The interpreter takes the next number whole, so that no two threads get the same.
            while not stop.is_set() and (number := next(numbers)) < steps:
                words[thread] += step(number)
        finally:
            stop.set()

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work, thread) for thread in range(threads)]
        try:
            while wait(running, timeout=_POLL_SECONDS).not_done:
                _show(sum(words), total, settings.epochs, time.monotonic() - began, console)
        finally:
            stop.set()
    for thread in running:
        thread.result()
    return Vectors(list(model.wv.index_to_key), np.asarray(model.wv.vectors, np.float32))


def _step(model: Any, files: list[tuple[Path, int]]) -> Callable[[int], int]:
    """A function that learns from one file, given the number of the step, and returns the number of its words."""
    from gensim.models import word2vec
    from gensim.models.word2vec_corpusfile import CythonVocab

    learn_file = word2vec.train_epoch_sg if model.sg else word2vec.train_epoch_cbow
    vocabulary = CythonVocab(model.wv)

    def step(number: int) -> int:
        path, words = files[number % len(files)]
        path.open("rb").close()  # gensim would wait for ever for a file that cannot be opened
        work, mean = np.zeros((2, model.layer1_size), np.float32)
        _, _, learnt = learn_file(model, str(path), 0, vocabulary, number, None, words, work, mean, False)
        return int(learnt)

    return step


def _threads(asked: int | None, files: int, console: Console) -> int:
    """How many threads learn: as many as were asked for, or CPUs, and not more than there are files."""
    # Not every system knows which of its CPUs this process may use.
    wanted = asked or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if asked is not None and asked > files:
        console.say(
            f"{count(files, 'thread')} instead of {asked}: each needs about {FILE_WORDS:,} words to have enough to do"
        )
    return min(wanted, files)


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


def _show(done: int, total: int, epochs: int, seconds: float, console: Console) -> None:
    share = done / total
    left = duration(seconds * (1 - share) / share) if done else "?"
    epoch = min(int(share * epochs) + 1, epochs)
    console.progress(f"learning: epoch {epoch}/{epochs}  {done / seconds:,.0f} words/s  ETA {left}", share)


@contextmanager
def _scratch(out: str) -> Iterator[Path]:
    """A temporary folder for the sentences, beside a local output; gone afterwards, at the latest by the next run.

    Raises:
        SentrayError: nothing can be written under that name.
    """
    target, name = output(out)
    beside = target.path("")
    if local_path(out) is None:
        # Learning may take hours, and would be lost.
        probe, beside = f".{name}.{uuid.uuid4().hex}", tempfile.gettempdir()
        target.write(probe, b"")
        target.delete(probe)
    try:
        os.makedirs(beside, exist_ok=True)
        for left in Path(beside).glob(f"{_SCRATCH}*"):
            with _locked(left) as ours:
                if ours:
                    shutil.rmtree(left, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(dir=beside, prefix=_SCRATCH)
    except OSError as error:
        raise SentrayError(f"{out} cannot be written ({first_line(error)}); choose another --out") from error
    with folder as path, _locked(Path(path)):
        yield Path(path)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder until the process ends, however it does; yields whether no other process has it locked."""
    handle, ours = -1, False
    # Another user's folder cannot be opened, nor one that is gone by now.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = True
    try:
        yield ours
    finally:
        if handle >= 0:
            os.close(handle)
