"""The encoded training reviews as the workers read them: files in the run's work folder, mapped into memory."""

import contextlib
import dataclasses
import io
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sentray import task
from sentray.bundle import GRAMS, TEXTS, ModelSpec, TrainedOn
from sentray.corpus.identity import TextHashes, files_of
from sentray.corpus.rows import Hashes
from sentray.corpus.source import Source
from sentray.errors import SentrayError
from sentray.storage import Folder, first_line, locate
from sentray.text.encoding import cut
from sentray.text.hashing import Words
from sentray.text.ngrams import Grams, Keys
from sentray.text.vocabulary import Vocabulary
from sentray.training.batches import Reviews
from sentray.training.folds import NEVER, Folds

IDS_FILE = "ids.bin"
"""The reviews' word ids, int32, one after the other."""
_FACTS, _VOCABULARY = "dataset.json", "vocabulary.txt"
_OFFSETS, _TARGETS, _HELD, _VECTORS, _WEIGHTS, _HASHES, _NUMBERS = (
    f"{name}.bin" for name in ("offsets", "targets", "held", "embedding", "weights", "hashes", "numbers")
)
_START = "start.npz"
_KINDS: dict[task.Task, Any] = {
    "classification": np.int32,
    "multilabel": np.uint8,
    "ordinal": np.int32,
    "regression": np.float32,
}
"""Of the targets."""
FILES_FILE = "files.parquet"
"""The corpus's files as they were; see `files_of`."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Facts:
    """What is known of a training set besides its rows.

    Attributes:
        spec: What the model to be trained takes and gives.
        rows: Training rows.
        label_rows: Those of them that have each label.
        held_out: Rows that each fold holds out; see `folds.hold_out`.
        dimensions: Numbers of a word's vector; None for what the architecture has.
        metrics: What `metrics.json` says of words and rows: `vocabulary_distinct` words of the training reviews, in the
            vocabulary or not; `vocabulary_distinct_estimated`; `coverage`, the share of the training reviews' words
            that have an id, each counted as often as it occurs; `sharing_words`, whose bucket another word has too,
            None where words are not hashed; `unknown_words`, the commonest that are not in the vocabulary and occur
            more than once, and how often; `embedding`, what the word vectors to start from are (`format`, `rows`,
            `duplicates`, `bad_rows`, `oov`, `center`) and how they cover the vocabulary (as
            `embeddings.matrix.Coverage`), None where there are none; word ids of the `longest_review`;
            `grams`, what n-grams there are (as `gram_counts.Chosen.metrics`), None where the network looks at none;
            `cleaning_left`, what the cleaning and the vocabulary left (as `text.coverage.Left`); `test_rows`;
            `quarantined_rows`.
        trained_on: What the reviews are and what was held out.
        mean: Of a regression the mean of the rows' numbers; else 0.
        scale: Their standard deviation, 1 where they are all the same; else 1.
    """

    spec: ModelSpec
    rows: int
    label_rows: tuple[int, ...]
    held_out: tuple[int, ...]
    dimensions: int | None
    metrics: dict[str, Any]
    trained_on: TrainedOn
    mean: float = 0.0
    scale: float = 1.0

    def wanted(self, targets: NDArray[Any]) -> NDArray[Any]:
        """What a network should give for reviews of these targets, as `task.wanted`; numbers are standardised."""
        return task.wanted(self.spec.task, self._standardised(targets), len(self.spec.labels))

    def hits(self, targets: NDArray[Any]) -> NDArray[np.float32]:
        """The same as `task.hits`."""
        return task.hits(self.spec.task, self._standardised(targets), len(self.spec.labels))

    def _standardised(self, targets: NDArray[Any]) -> NDArray[Any]:
        if self.spec.task != "regression":
            return targets
        return ((targets - self.mean) / self.scale).astype(np.float32)

    @classmethod
    def read(cls, folder: str) -> Self:
        """What is known of the training set in a folder, local or remote.

        Raises:
            SentrayError: It cannot be read.
        """
        try:
            with Folder(folder).open_file(_FACTS) as file:
                return TypeAdapter(cls).validate_json(file.readall())
        except OSError as error:
            raise unseen(folder, error) from error
        except ValidationError as error:
            raise SentrayError(
                f"the training set in {folder} was made by another version of sentray; remove the folder to start anew"
            ) from error


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """Encoded training reviews.

    Attributes:
        facts: What is known of them.
        vocabulary: How their words got ids.
        ids: int32 [total], the reviews' word ids, one review after the other.
        offsets: int64 [rows + 1], where each review starts in `ids`, and the end of the last.
        targets: What the reviews have: positions of their labels, int32 [rows]; of several labels 1 for each, uint8
            [rows, labels]; of a regression numbers in the corpus's units, float32 [rows].
        held: uint8 [rows], the fold that holds a review out; see `folds.hold_out`.
        texts: Hashes of their texts.
        vectors: float32 [ids, dimensions], word vectors to start from; None where there are none.
        grams: The n-grams that the network looks at; None where it looks at none.
        weights: float32 [rows], how much each review counts; None where they count alike.
        numbers: float32 [rows, columns], standardised numbers besides the text; None where there are none.
        start: Weights to start from, see `continuing.Start`; None where training does not go on with a bundle.
    """

    facts: Facts
    vocabulary: Words
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    targets: NDArray[Any]
    held: Folds
    texts: TextHashes
    vectors: NDArray[np.float32] | None = None
    grams: Grams | None = None
    weights: NDArray[np.float32] | None = None
    numbers: NDArray[np.float32] | None = None
    start: dict[str, NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [rows]: word ids of each review, before it is cut."""
        return np.diff(self.offsets)

    def reviews(self, rows: NDArray[np.int64]) -> Reviews:
        """Word ids of some reviews, cut to the network's length; int32 [words] each."""
        spec = self.facts.spec
        return [self.ids[where] for where in cut(self.offsets, rows, spec.max_length, spec.truncating)]

    def numbers_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Numbers of some reviews besides their texts, float32 [len(rows), columns]; None where there are none."""
        return None if self.numbers is None else self.numbers[rows]

    @classmethod
    def load(cls, folder: str) -> Self:
        """Map a training set that `write` made.

        Args:
            folder: Path or URI. The files of a remote one are copied to the local disk, where they have no name once
                they are mapped.

        Raises:
            SentrayError: This machine does not see it, or has no room for it.
        """
        facts, vectors, grams, weights, numbers = Facts.read(folder), None, None, None, None
        start: dict[str, NDArray[np.float32]] | None = None
        try:
            with _on_disk(folder) as path:
                ids, offsets, targets, held = (
                    _mapped(path / name, kind)
                    for name, kind in (
                        (IDS_FILE, np.int32),
                        (_OFFSETS, np.int64),
                        (_TARGETS, _KINDS[facts.spec.task]),
                        (_HELD, np.uint8),
                    )
                )
                if facts.spec.task == "multilabel":
                    targets = targets.reshape(-1, len(facts.spec.labels))
                texts = TextHashes.from_bytes((path / TEXTS).read_bytes(), facts.trained_on.sampled)
                words = facts.spec.words((path / _VOCABULARY).read_bytes() if facts.spec.buckets is None else None)
                if facts.metrics["embedding"] is not None:
                    vectors = _mapped(path / _VECTORS, np.float32).reshape(words.size, -1)
                if facts.spec.grams is not None:
                    listed = words if isinstance(words, Vocabulary) else None
                    grams = Grams(facts.spec.grams, _mapped(path / GRAMS, np.uint64), listed)
                if (path / _WEIGHTS).exists():
                    weights = _mapped(path / _WEIGHTS, np.float32)
                if (path / _START).exists():
                    with np.load(path / _START) as arrays:
                        start = dict(arrays)
                if columns := len(facts.spec.numeric):
                    numbers = _mapped(path / _NUMBERS, np.float32).reshape(-1, columns)
        except OSError as error:
            raise unseen(folder, error) from error
        return cls(facts, words, ids, offsets, targets, held, texts, vectors, grams, weights, numbers, start)


@contextlib.contextmanager
def _on_disk(folder: str) -> Iterator[Path]:
    """The folder, or for the block a copy of a remote one."""
    place = Folder(folder)
    if place.local:
        yield Path(place.path(""))
        return
    filesystem, path = locate(folder)
    with tempfile.TemporaryDirectory(prefix="sentray-train-") as copy:
        fs.copy_files(path, copy, filesystem, fs.LocalFileSystem())
        yield Path(copy)


@contextlib.contextmanager
def ids_in(folder: str) -> Iterator[NDArray[np.int32]]:
    """The word ids of an unfinished training set for the block, int32 [total].

    Raises:
        SentrayError: This machine does not see them, or has no room for them.
    """
    try:
        with _on_disk(folder) as path:
            yield _mapped(path / IDS_FILE, np.int32)
    except OSError as error:
        raise unseen(folder, error) from error


def _mapped(file: Path, kind: Any) -> NDArray[Any]:
    # A file without bytes cannot be mapped; a plain array is cut into reviews in a tenth of the time.
    return np.asarray(np.memmap(file, kind, "r")) if file.stat().st_size else np.empty(0, kind)


def unseen(folder: str, error: OSError) -> SentrayError:
    """What to tell the user where a training set cannot be read on this machine."""
    return SentrayError(
        f"the training set in {folder} cannot be read on {socket.gethostname()} ({first_line(error)}); choose an "
        "--out that every training node sees, and where it is remote has room to copy to its temporary folder"
    )


def held_out_hashes(folder: str) -> tuple[NDArray[np.intp], Hashes]:
    """Positions of the rows that some fit holds out, and the hashes of their texts.

    Raises:
        SentrayError: An earlier version made the training set and kept no hashes, or it cannot be read.
    """
    held, hashes = (Folder(folder).read(name) for name in (_HELD, _HASHES))
    if held is None or hashes is None:
        raise SentrayError(f"the training set in {folder} has no hashes of its rows' texts")
    rows = np.flatnonzero(np.frombuffer(held, np.uint8) != NEVER)
    return rows, np.frombuffer(hashes, "<u8")[rows]


def exists(folder: str) -> bool:
    """Whether a whole training set lies in the folder, local or remote.

    Raises:
        SentrayError: The folder cannot be reached.
    """
    return Folder(folder).read(_FACTS) is not None


def write(
    folder: Folder,
    facts: Facts,
    words: Words,
    offsets: NDArray[np.int64],
    targets: NDArray[Any],
    held: Folds,
    texts: TextHashes,
    source: Source,
    vectors: NDArray[np.float32] | None = None,
    grams: Keys | None = None,
    weights: NDArray[np.float32] | None = None,
    hashes: Hashes | None = None,
    numbers: NDArray[np.float32] | None = None,
    start: dict[str, NDArray[np.float32]] | None = None,
) -> None:
    """Finish the training set whose `IDS_FILE` lies in the folder; the facts come last and mark it as whole.

    Raises:
        SentrayError: The folder cannot be written.
    """
    arrays = {
        **{_OFFSETS: offsets, _TARGETS: targets, _HELD: held},
        **{_VECTORS: vectors, GRAMS: grams, _WEIGHTS: weights, _HASHES: hashes, _NUMBERS: numbers},
    }
    for name, array in arrays.items():
        if array is not None:
            folder.write(name, pa.py_buffer(np.ascontiguousarray(array)))
    if isinstance(words, Vocabulary):
        folder.write(_VOCABULARY, words.to_text().encode())
    folder.write(TEXTS, texts.to_bytes())
    if start is not None:
        weights_file = io.BytesIO()
        np.savez(weights_file, **start)  # type: ignore[arg-type]
        folder.write(_START, weights_file.getvalue())
    with folder.create(FILES_FILE) as stream:
        pq.write_table(files_of(source), stream, compression="zstd")
    folder.write(_FACTS, TypeAdapter(Facts).dump_json(facts, indent=1))
