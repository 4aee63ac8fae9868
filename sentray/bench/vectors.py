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
from sentray.console import Console, count
from sentray.embeddings.read import read_vectors
from sentray.embeddings.vectors import Vectors, write_vectors

GENSIM, FULL, FILTERED = "gensim", "full", "filtered"
READERS = {
    GENSIM: "gensim's load_word2vec_format",
    FULL: "sentray, every word",
    FILTERED: "sentray, only the words wanted",
}

_NUMBER_BYTES = 10
_MIN_MB = 0.01
_SPREAD = 0.4
"""Standard deviation of the numbers, about that of GloVe's."""


def bench_vectors(settings: BenchVectorsSettings, console: Console) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The figures with stable keys: for each reader seconds, and the greatest memory above what the process had
        before it read and in all, in MB; how much faster and smaller than gensim; whether the vectors are the same.

    Raises:
        SentrayError: the disk is too small.
    """
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as scratch:
        file, words = Path(scratch, "vectors.txt"), Path(scratch, "words.txt")
        size = settings.rows * (settings.dimensions + 1) * _NUMBER_BYTES
        processes.require_room(scratch, size, f"{settings.rows:,} vectors")
        console.progress(f"writing {settings.rows:,} rows of {settings.dimensions:,} numbers")
        write_file(file, words, settings)
        size = file.stat().st_size
        found = {}
        for reader, title in READERS.items():
            console.progress(f"reading {size / 1e6:,.0f} MB: {title}")
            # Else only the first reader would wait for the disk.
            shutil.copyfile(file, os.devnull)
            with processes.on_cores(1):
                found[reader] = processes.run(title, measure, reader, str(file), str(words))
    figures = {
        "rows": settings.rows,
        "dimensions": settings.dimensions,
        "words": min(settings.words, settings.rows),
        "mb": size / 1e6,
        "same_vectors": found[FULL]["sha256"] == found[GENSIM]["sha256"],
    }
    for reader, measured in found.items():
        figures |= {f"{name}_{reader}": measured[name] for name in ("seconds", "mb", "peak_mb")}
        figures[f"faster_{reader}"] = found[GENSIM]["seconds"] / measured["seconds"]
        figures[f"smaller_{reader}"] = found[GENSIM]["mb"] / measured["mb"]
    _show(console, figures)
    return figures


def _show(console: Console, figures: dict[str, Any]) -> None:
    shown = ("seconds", "faster", "mb", "smaller", "peak_mb")
    console.table(
        [
            f"{count(figures['rows'], 'row')} of {count(figures['dimensions'], 'number')}, {figures['mb']:,.0f} MB",
            "seconds", "times as fast", "MB above start", "times as small", "peak MB in all",
        ],
        [[title, *(round(figures[f"{name}_{reader}"], 2) for name in shown)] for reader, title in READERS.items()],
    )  # fmt: skip
    console.say()
    same = "the same vectors to the last bit" if figures["same_vectors"] else "DIFFERENT vectors: this is a defect"
    console.say(f"{figures['words']:,} words wanted; one core, warm file cache; all rows: {same}")


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
        `seconds`, `mb` above what the process had, `peak_mb` in all, and `sha256` of words and vectors.
    """
    if reader == GENSIM:
        from gensim.models import KeyedVectors

    wanted = Path(words).read_text().split()

    def read(name: str) -> tuple[list[str], Any]:
        if reader == GENSIM:
            keyed = KeyedVectors.load_word2vec_format(name)
            return keyed.index_to_key, keyed.vectors
        vectors, _ = read_vectors(name, wanted if reader == FILTERED else None)
        return vectors.words, vectors.rows

    # What is imported late is imported now.
    with tempfile.TemporaryDirectory() as folder:
        small = f"{folder}/small.txt"
        write_vectors(small, Vectors(wanted[:2], np.ones((2, 2), np.float32)))
        read(small)
    # The kernel forgets the peak so far.
    Path("/proc/self/clear_refs").write_text("5")
    before, began = processes.memory_mb("VmRSS"), time.perf_counter()
    names, rows = read(file)
    seconds, peak = time.perf_counter() - began, processes.memory_mb("VmHWM")
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(np.ascontiguousarray(rows).data)
    # The system counts whole pages, with a delay.
    return {"seconds": seconds, "mb": max(peak - before, _MIN_MB), "peak_mb": peak, "sha256": digest.hexdigest()}
