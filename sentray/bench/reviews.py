"""What `sentray bench score` reads: labelled reviews to learn from, and any number of reviews of the same length.

A review to score has as many sentences as one of the labelled reviews, drawn from all of them, or a single one: it has
their words and lengths, and making a gigabyte takes seconds.
"""

import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import nltk_data
from sentray.config import CheckSettings
from sentray.corpus.dataset import Corpus
from sentray.corpus.source import NLTK_RESOURCE

POLARITY, SYNTHETIC = "nltk:movie_reviews", "synthetic:2000"
FILE_ROWS, GROUP_ROWS = 32_768, 2_048


def corpus() -> str:
    """The polarity corpus or, where that cannot be had, synthetic reviews."""
    return POLARITY if nltk_data.find(NLTK_RESOURCE) else SYNTHETIC


def labelled(uri: str) -> pa.Table:
    """The good rows of a corpus as `text`, `label` and `split` (`train` or `test`), all `string`."""
    schema = pa.schema([(name, pa.string()) for name in ("text", "label", "split")])
    return pa.concat_tables(good_rows(uri)).select(schema.names).cast(schema).combine_chunks()


def good_rows(uri: str, max_rows: int | None = None) -> Iterator[pa.Table]:
    """The first good rows of a corpus (`id`, `text`, `label`, `split`) in tables, read by this process."""
    corpus = Corpus.plan(uri, CheckSettings(corpus=uri, test_fraction=0.1), need_label=False)
    left = sys.maxsize if max_rows is None else max_rows
    for table in itertools.chain.from_iterable(map(corpus.read, corpus.shards)):
        good = table.filter(table["reason"].is_null()).slice(0, left)
        yield good
        left -= len(good)
        if not left:
            break


def write_reviews(texts: pa.ChunkedArray, folder: Path, rows: int, seed: int = 0, single: bool = False) -> None:
    """Write reviews to score as Parquet files (`id`, `text`); the same arguments write the same files.

    Args:
        texts: `string`, the reviews whose sentences to use, a sentence a line.
        folder: where to write; made when absent.
        rows: how many reviews.
        seed: fixes which sentences are drawn.
        single: whether each review is a single sentence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = pc.split_pattern(pc.utf8_rtrim(texts, "\n"), "\n").combine_chunks()
    lengths, sentences = pc.list_value_length(lines).to_numpy(), pc.list_flatten(lines)

    def write(start: int) -> None:
        random, count = np.random.default_rng((seed, start)), min(FILE_ROWS, rows - start)
        ends = np.cumsum([0, *([1] * count if single else random.choice(lengths, count))], dtype=np.int32)
        drawn = sentences.take(pa.array(random.integers(0, len(sentences), ends[-1])))
        reviews = {
            "id": [f"review-{number:09}" for number in range(start, start + count)],
            "text": pc.binary_join(pa.ListArray.from_arrays(ends, drawn), "\n"),
        }
        file = folder / f"reviews-{start // FILE_ROWS:05}.parquet"
        group = FILE_ROWS if single else GROUP_ROWS
        pq.write_table(pa.table(reviews), file, group, compression="zstd", use_dictionary=False)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(write, range(0, rows, FILE_ROWS)))
