"""What `sentray bench score` reads: labelled reviews to learn from, and any number of reviews of the same length.

The labelled ones are the polarity corpus or, where that cannot be had, 2,000 of pseudo-words with the frequencies of a
natural vocabulary. A review to score has as many sentences as one of the labelled reviews, drawn from all of them: it
has their words and lengths, no two are alike, and making a gigabyte takes seconds.
"""

import itertools
import os
import re
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

POLARITY = "nltk:movie_reviews"
FILE_ROWS = 32_768
GROUP_ROWS = 2_048

_REVIEWS, _TEST_EVERY = 2_000, 10
_VOCABULARY, _POLAR_EVERY = 25_000, 40
_WORDS, _WORDS_A_SENTENCE = (200, 1_130), 22
_SYLLABLES: list[str] = re.findall("..", "babecidoelfaguhijokalomaniorperasituvawexiyoza")


def labelled(seed: int = 0) -> tuple[str, pa.Table]:
    """Reviews to train on and to test on.

    Args:
        seed: fixes those that are made where the polarity corpus cannot be had.

    Returns:
        What they are, in words, and `text`, `label` (`neg` or `pos`) and `split` (`train` or `test`), all `string`.
    """
    if nltk_data.find(NLTK_RESOURCE) is None:
        return "made reviews", _made(seed)
    rows = pa.concat_tables([table for shard in shards(POLARITY) for table in shard])
    schema = pa.schema([(name, pa.string()) for name in ("text", "label", "split")])
    return POLARITY, rows.select(schema.names).cast(schema).combine_chunks()


def shards(uri: str) -> Iterator[Iterator[pa.Table]]:
    """The good rows of a corpus (`id`, `text`, `label`, `split`) in tables, shard after shard, read by this process."""
    corpus = Corpus.plan(uri, CheckSettings(corpus=uri), need_label=False)
    for shard in corpus.shards:
        yield (table.filter(table["reason"].is_null()) for table in corpus.read(shard))


def first_texts(uri: str, rows: int) -> pa.Table:
    """The texts of the first good rows of a corpus, as a table with the column `text`."""
    tables: list[pa.Table] = []
    for table in itertools.chain.from_iterable(shards(uri)):
        tables.append(table.select(["text"]))
        if sum(table.num_rows for table in tables) >= rows:
            break
    return pa.concat_tables(tables).slice(0, rows)


def write_reviews(texts: pa.ChunkedArray | pa.Array, folder: Path, rows: int, seed: int = 0) -> int:
    """Write reviews to score as Parquet files (`id`, `text`); the same arguments write the same files.

    Args:
        texts: `string`, the reviews whose sentences to use, a sentence a line.
        folder: where to write; made when absent.
        rows: how many reviews.
        seed: fixes which sentences are drawn.

    Returns:
        UTF-8 bytes of all texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sentences = _Sentences(texts)
    starts = range(0, rows, FILE_ROWS)

    def write(start: int) -> int:
        size = 0
        with pq.ParquetWriter(
            folder / f"reviews-{start // FILE_ROWS:05}.parquet", _SCHEMA, compression="zstd", use_dictionary=False
        ) as writer:
            for table in sentences.tables(start, min(start + FILE_ROWS, rows), seed):
                writer.write_table(table)
                size += pc.sum(pc.binary_length(table["text"])).as_py()
        return size

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return sum(threads.map(write, starts))


_SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


class _Sentences:
    """The sentences of reviews, and how many each review has."""

    def __init__(self, texts: pa.ChunkedArray | pa.Array) -> None:
        lines = pc.split_pattern(pc.utf8_rtrim(texts, "\n"), "\n")
        self._counts = pc.list_value_length(lines).to_numpy().astype(np.int64)
        ended = pc.binary_join_element_wise(pc.list_flatten(lines), "\n", "")
        self._sentences = pa.concat_arrays(ended.chunks) if isinstance(ended, pa.ChunkedArray) else ended

    def tables(self, start: int, stop: int, seed: int) -> Iterator[pa.Table]:
        """The reviews numbered from `start`, where a file begins, to `stop - 1`, a row group a table."""
        random = np.random.default_rng((seed, start))
        for first in range(start, stop, GROUP_ROWS):
            rows = min(GROUP_ROWS, stop - first)
            ends = np.cumsum(random.choice(self._counts, rows))
            drawn = self._sentences.take(pa.array(random.integers(0, len(self._sentences), ends[-1])))
            # The sentences follow each other in memory, so that a review is a longer slice of the same bytes.
            offsets = np.frombuffer(drawn.buffers()[1], np.int32)[np.concatenate([[0], ends])]
            text = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), drawn.buffers()[2])
            numbers = pc.utf8_lpad(pc.cast(pa.array(range(first, first + rows)), pa.string()), 9, "0")
            yield pa.table([pc.binary_join_element_wise("review", numbers, "-"), text], schema=_SCHEMA)


def _made(seed: int) -> pa.Table:
    """Reviews of pseudo-words by Zipf's law; some words are twice as frequent on one side."""
    random = np.random.default_rng(seed)
    words = np.array([_word(rank) for rank in range(_VOCABULARY)])
    chances = 1 / (np.arange(_VOCABULARY) + 3.0) * np.ones((2, 1))
    for side in (0, 1):
        chances[side, 30 + side :: _POLAR_EVERY] *= 2
    chances /= chances.sum(axis=1, keepdims=True)
    sides = np.arange(_REVIEWS) % 2
    texts = []
    for side in sides.tolist():
        drawn = words[random.choice(_VOCABULARY, random.integers(*_WORDS), p=chances[side])]
        sentences = np.array_split(drawn, len(drawn) // _WORDS_A_SENTENCE)
        texts.append("\n".join(" ".join([*sentence, "."]) for sentence in sentences))
    tested = np.arange(_REVIEWS) // 2 % _TEST_EVERY == _TEST_EVERY - 1
    return pa.table(
        {"text": texts, "label": np.array(["neg", "pos"])[sides], "split": np.where(tested, "test", "train")}
    )


def _word(rank: int) -> str:
    """Another word for each number, the longer the greater it is."""
    rest, syllable = divmod(rank, len(_SYLLABLES))
    return _SYLLABLES[syllable] + (_word(rest - 1) if rest else "")
