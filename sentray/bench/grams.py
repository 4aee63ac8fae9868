"""`sentray bench grams`: n-grams of many reviews, counted and looked up: time and memory.

The reviews are drawn as ids. Most words follow a word as in a real corpus, so that neighbours are as frequent as in a
language; the others are drawn by Zipf's law from many more words, so that new n-grams never end.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sentray import cluster
from sentray.bench import processes, reviews
from sentray.bench.settings import BenchGramsSettings
from sentray.bench.tables import Rows, show
from sentray.console import Console
from sentray.text.cleaning import preset
from sentray.text.encoding import Encoder
from sentray.text.ngrams import Grams, GramSpec, make_table
from sentray.text.vocabulary import Vocabulary, count_words
from sentray.training.gram_counts import Counting, count_grams, count_partition, least_reviews, partitions
from sentray.training.training_set import IDS_FILE

_MORE_WORDS, _NEW = 500_000, 0.1
"""Words that no text has, and the share of words that are drawn from all."""
_AT_ONCE, _LOOKED_UP, _BATCH = 200_000, 500_000, 1_000


def bench_grams(settings: BenchGramsSettings, console: Console) -> dict[str, Any]:
    """Measure and print; returns the figures."""
    processes.require_own_ray()
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as folder:
        console.progress(f"drawing {settings.reviews:,} reviews")
        write_ids(Path(folder, IDS_FILE), settings)
        parts = ("all parts, with Ray: driver", "one part: a task")
        counted = {part: processes.run(part, _counting, folder, settings, part == parts[0]) for part in parts}
        tables: dict[str, Rows] = {"counting": counted}
        tables["looking up"] = {"one core": processes.run("looking up", _looking_up, folder, settings)}
    show(console, tables)
    return {"cores": len(os.sched_getaffinity(0)), "reviews": settings.reviews, **tables}


def write_ids(file: Path, settings: BenchGramsSettings) -> None:
    """Write the word ids of reviews, int32, one review after the other; see the module."""
    random = np.random.default_rng(settings.seed)
    texts, (rules, _) = reviews.labelled(reviews.corpus())["text"], preset("reviews")
    words = Vocabulary.from_counts(count_words(texts, rules))
    tokens = Encoder(rules, words).encode(texts).ids
    # Where each word occurs, the last token aside, which none follows; the last row is of all words without any.
    order = np.argsort(tokens[:-1], kind="stable")
    first = np.append(np.searchsorted(tokens[:-1], np.arange(len(words) + 2), sorter=order), len(order))
    law = np.cumsum(1 / np.arange(3.0, len(words) + _MORE_WORDS + 3))
    with file.open("wb") as stream:
        for start in range(0, settings.reviews, _AT_ONCE):
            drawn = np.empty((min(_AT_ONCE, settings.reviews - start), settings.words), np.int32)
            for position in range(settings.words):
                drawn[:, position] = np.searchsorted(law, random.random(len(drawn)) * law[-1]) + 1
                if position:
                    before = np.minimum(drawn[:, position - 1], len(words) + 1)
                    many = first[before + 1] - first[before]
                    follows = (many > 0) & (random.random(len(drawn)) > _NEW)
                    at = (first[before] + random.random(len(drawn)) * many).astype(np.int64)
                    drawn[follows, position] = tokens[order[at[follows]] + 1]
            stream.write(drawn.data)


def _counting(folder: str, settings: BenchGramsSettings, whole: bool) -> dict[str, Any]:
    total, offsets = settings.reviews * settings.words, np.arange(settings.reviews + 1) * settings.words
    parts = partitions(total, len(os.sched_getaffinity(0)))
    least, most = least_reviews(total), settings.max_grams
    counting = Counting(folder, GramSpec(), None, settings.words, "pre", least, most, parts)
    if whole:
        with cluster.connect(None, verbose=settings.verbose):
            began, found = time.perf_counter(), count_grams(counting, offsets, Console())
            np.save(f"{folder}/table.npy", make_table(found.keys))
    else:
        began, found = time.perf_counter(), count_partition(counting, offsets, 0)
    figures = {"distinct": found.distinct, "frequent": found.frequent, "kept": len(found.keys)}
    seconds, memory = time.perf_counter() - began, processes.memory_mb("VmHWM")
    return {"parts": parts if whole else 1, "seconds": seconds, "peak_rss_mb": memory, **figures}


def _looking_up(folder: str, settings: BenchGramsSettings) -> dict[str, Any]:
    grams, words = Grams(GramSpec(), np.load(f"{folder}/table.npy", "r"), None), settings.words
    ids = np.fromfile(f"{folder}/{IDS_FILE}", np.int32, min(_LOOKED_UP, settings.reviews) * words)
    seconds, known = [], 0
    with processes.on_cores(1):
        for batch in np.split(ids, range(_BATCH * words, len(ids), _BATCH * words)):
            began = time.perf_counter()
            known += len(grams.of(batch, np.arange(len(batch) // words + 1) * words).rows)
            seconds.append((time.perf_counter() - began) / len(batch))
    # The first compiles; what other processes of the machine take is in few of them.
    median = float(np.median(seconds))
    figures = {"ns_per_word": median * 1e9, "rows_per_s": 1 / median / words}
    return {**figures, "known_per_word": known / len(ids), "table_mb": grams.slots * 8 / 1e6}
