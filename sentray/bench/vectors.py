"""`sentray bench vectors`: the reader of word-vector files beside gensim's loader, on the same file."""

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sentray.bench import processes
from sentray.bench.settings import BenchVectorsSettings
from sentray.bench.tables import Rows, show, with_ratios
from sentray.console import Console, count
from sentray.embeddings.read import read_vectors
from sentray.embeddings.vectors import Vectors, write_vectors

GENSIM, FILTERED = "gensim's load_word2vec_format", "sentray, only the words wanted"
READERS = (GENSIM, "sentray, every word", FILTERED)
_SPREAD = 0.4
"""Standard deviation of the numbers, about that of GloVe's."""


def bench_vectors(settings: BenchVectorsSettings, console: Console) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The figures of each reader as `measure` has them, and `ratio`, how many times as fast as gensim it is; and
        whether the vectors are the same.
    """
    found: Rows = {}
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as scratch:
        file, words = Path(scratch, "vectors.txt"), Path(scratch, "words.txt")
        console.progress(f"writing {settings.rows:,} rows of {settings.dimensions:,} numbers")
        write_file(file, words, settings)
        for reader in READERS:
            console.progress(f"reading {file.stat().st_size / 1e6:,.0f} MB: {reader}")
            # Else only the first reader would wait for the disk.
            shutil.copyfile(file, os.devnull)
            with processes.on_cores(1):
                found[reader] = processes.run(reader, measure, reader, str(file), str(words))
    digests = [row.pop("sha256") for row in found.values()]
    same = digests[0] == digests[1]
    title = f"{count(settings.rows, 'row')} of {count(settings.dimensions, 'number')}"
    tables = {title: with_ratios(found, "mb_per_s")}
    show(console, tables)
    all_rows = "the same vectors to the last bit" if same else "DIFFERENT vectors: this is a defect"
    console.say(f"{settings.words:,} words wanted; one core, warm file cache; all rows: {all_rows}")
    return {"words": settings.words, "same_vectors": same, **tables}


def write_file(file: Path, words: Path, settings: BenchVectorsSettings) -> None:
    """Write vectors of six decimals in word2vec's text format, and the words of them to keep, one a line.

    As in a vocabulary that is ordered by frequency, the first words are short, and those to keep are denser towards
    the beginning.
    """
    random = np.random.default_rng(settings.seed)
    names = [f"w{rank:x}" for rank in range(settings.rows)]
    numbers = random.standard_normal((settings.rows, settings.dimensions), np.float32)
    write_vectors(str(file), Vectors(names, (_SPREAD * numbers).round(6)))
    chances = 1 / np.arange(1.0, settings.rows + 1)
    wanted = random.choice(settings.rows, min(settings.words, settings.rows), replace=False, p=chances / chances.sum())
    words.write_text("".join(f"{names[index]}\n" for index in wanted.tolist()))


def measure(reader: str, file: str, words: str) -> dict[str, Any]:
    """Read a file in this process, which has not read it yet.

    Args:
        reader: one of `READERS`.
        file: in word2vec's text format.
        words: file of the words to keep, one a line.

    Returns:
        `mb_per_s` of the file, `memory_mb` above what the process had, and `sha256` of words and vectors.
    """
    if reader == GENSIM:
        from gensim.models import KeyedVectors

    wanted = Path(words).read_text().split()
    before, began = processes.memory_mb("VmHWM"), time.perf_counter()
    if reader == GENSIM:
        keyed = KeyedVectors.load_word2vec_format(file)
        names, rows = keyed.index_to_key, keyed.vectors
    else:
        vectors, _ = read_vectors(file, wanted if reader == FILTERED else None)
        names, rows = vectors.words, vectors.rows
    seconds, memory = time.perf_counter() - began, processes.memory_mb("VmHWM") - before
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(np.ascontiguousarray(rows).data)
    return {
        "mb_per_s": os.path.getsize(file) / 1e6 / seconds,
        "memory_mb": memory,
        "sha256": digest.hexdigest(),
    }
