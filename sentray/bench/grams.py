"""`sentray bench grams`: n-grams of many reviews, counted and looked up: time and memory.

The reviews are drawn as ids, since text is not what is measured. Most words follow a word as in a real corpus, so that
neighbours are as frequent as in a language; the others are drawn by Zipf's law from many more words, so that new
n-grams never end.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import cluster
from sentray.bench import processes, reviews
from sentray.bench.settings import BenchGramsSettings
from sentray.bench.tables import Rows, show
from sentray.console import Console
from sentray.text.cleaning import preset
from sentray.text.encoding import Encoder
from sentray.text.ngrams import Grams, GramSpec, make_table
from sentray.text.vocabulary import Vocabulary, count_words
from sentray.training.gram_counts import Counting, _count_partition, count_grams, least_reviews, partitions
from sentray.training.training_set import IDS_FILE

_MORE_WORDS, _NEW = 500_000, 0.1
"""Words that no text has, and the share of words that are drawn from all."""
_AT_ONCE, _LOOKED_UP = 200_000, 500_000


def bench_grams(settings: BenchGramsSettings, console: Console) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The figures of counting and of looking up.
    """
    processes.require_own_ray()
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as folder:
        console.progress(f"drawing {settings.reviews:,} reviews")
        write_ids(Path(folder, IDS_FILE), settings)
        counted = processes.run("counting", _counting, folder, settings)
        one_part = processes.run("counting a part", _one_part, folder, settings)
        looked_up = processes.run("looking up", _looking_up, folder, settings)
    tables: dict[str, Rows] = {"counting": {"driver": counted, "a task": one_part}, "looking up": {"1 core": looked_up}}
    show(console, tables)
    return {"cores": len(os.sched_getaffinity(0)), "reviews": settings.reviews, **tables}


def write_ids(file: Path, settings: BenchGramsSettings) -> None:
    """Write the word ids of reviews, int32, one review after the other; see the module."""
    random = np.random.default_rng(settings.seed)
    texts, (rules, _) = reviews.labelled(reviews.corpus())["text"], preset("reviews")
    words = Vocabulary.from_counts(count_words(texts, rules))
    tokens = Encoder(rules, words).encode(texts).ids
    # Where each word occurs, the last token aside, which none follows.
    order = np.argsort(tokens[:-1], kind="stable")
    first = np.searchsorted(tokens[:-1], np.arange(len(words) + 2), sorter=order)
    law = np.cumsum(1 / np.arange(3.0, len(words) + _MORE_WORDS + 3))
    with file.open("wb") as stream:
        for start in range(0, settings.reviews, _AT_ONCE):
            drawn = np.empty((min(_AT_ONCE, settings.reviews - start), settings.words), np.int32)
            for position in range(settings.words):
                drawn[:, position] = np.searchsorted(law, random.random(len(drawn)) * law[-1]) + 1
                if position:
                    before = np.minimum(drawn[:, position - 1], len(words) + 1)
                    many = (first[np.minimum(before, len(words)) + 1] - first[before]) * (before <= len(words))
                    follows = (many > 0) & (random.random(len(drawn)) > _NEW)
                    at = first[before] + (random.random(len(drawn)) * many).astype(np.int64)
                    drawn[follows, position] = tokens[order[at[follows]] + 1]
            stream.write(drawn.data)


def _plan(folder: str, settings: BenchGramsSettings) -> tuple[Counting, NDArray[np.int64]]:
    words = settings.reviews * settings.words
    least, parts = least_reviews(words), partitions(words, len(os.sched_getaffinity(0)))
    counting = Counting(folder, GramSpec(), None, settings.words, "pre", least, settings.max_grams, parts)
    return counting, np.arange(settings.reviews + 1) * settings.words


def _counting(folder: str, settings: BenchGramsSettings) -> dict[str, Any]:
    with cluster.connect(None, verbose=settings.verbose):
        began = time.perf_counter()
        counting, offsets = _plan(folder, settings)
        found = count_grams(counting, offsets, Console())
        table = make_table(found.keys)
        seconds = time.perf_counter() - began
    np.save(f"{folder}/table.npy", table)
    memory = processes.memory_mb("VmHWM")
    figures = {"distinct": found.distinct, "frequent": found.frequent, "known": len(found.keys)}
    return {"seconds": seconds, "peak_rss_mb": memory, **figures, "parts": counting.partitions}


def _one_part(folder: str, settings: BenchGramsSettings) -> dict[str, Any]:
    began, found = time.perf_counter(), _count_partition(*_plan(folder, settings), 0)
    seconds, memory = time.perf_counter() - began, processes.memory_mb("VmHWM")
    return {"seconds": seconds, "peak_rss_mb": memory, "distinct": found.distinct, "frequent": found.frequent}


def _looking_up(folder: str, settings: BenchGramsSettings) -> dict[str, Any]:
    table = np.load(f"{folder}/table.npy", "r")
    grams, rows = Grams(GramSpec(), table, None), min(_LOOKED_UP, settings.reviews)
    ids = np.fromfile(f"{folder}/{IDS_FILE}", np.int32, rows * settings.words)
    offsets = np.arange(rows + 1) * settings.words
    grams.of(ids[: settings.words], offsets[:2])
    with processes.on_cores(1):
        began = time.perf_counter()
        found = grams.of(ids, offsets)
        seconds = time.perf_counter() - began
    figures = {"ns_per_word": seconds / len(ids) * 1e9, "rows_per_s": rows / seconds}
    return {**figures, "known_per_word": len(found.rows) / len(ids), "table_mb": grams.slots * 8 / 1e6}
