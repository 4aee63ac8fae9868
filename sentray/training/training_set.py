"""The encoded training reviews as the workers read them: files in the run's work folder, mapped into memory."""

import contextlib
import dataclasses
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sentray.bundle import ModelSpec
from sentray.errors import SentrayError
from sentray.storage import Folder, first_line, locate
from sentray.text.hashing import Words
from sentray.text.vocabulary import Vocabulary

IDS_FILE = "ids.bin"
"""The reviews' word ids, int32, one after the other."""
_FACTS = "dataset.json"
_VOCABULARY = "vocabulary.txt"
_OFFSETS, _TARGETS, _VECTORS = "offsets.npy", "targets.npy", "embedding.bin"
_COPY_BYTES = 4 << 20


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Facts:
    """What is known of a training set besides its rows.

    Attributes:
        spec: What the model to be trained takes and gives.
        label_rows: Training rows of each label.
        longest: Word ids of the longest training review.
        distinct: Distinct words of the training reviews, in the vocabulary or not.
        coverage: Share of the training reviews' words that have an id, each counted as often as it occurs.
        test_rows: Rows held out for testing.
        quarantined_rows: Rows set aside.
        distinct_estimated: Whether `distinct` is an estimate, with a standard error of 0.4 %.
        sharing_words: Distinct words whose bucket another has too, expected ones where `distinct` is an estimate; None
            where words are not hashed.
        dimensions: Numbers of a word's vector; None for what the architecture has.
        embedding: What the word vectors to start from are (`format`, `rows`, `duplicates`, `bad_rows`, `oov`, `center`)
            and how they cover the vocabulary (as `embeddings.matrix.Coverage`); None where there are none.
    """

    spec: ModelSpec
    label_rows: tuple[int, ...]
    longest: int
    distinct: int
    coverage: float
    test_rows: int
    quarantined_rows: int
    distinct_estimated: bool = False
    sharing_words: int | None = None
    dimensions: int | None = None
    embedding: dict[str, Any] | None = None

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
            raise _unseen(folder, error) from error
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
        targets: int32 [rows], positions of the reviews' labels.
        vectors: float32 [ids, dimensions], word vectors to start from; None where there are none.
    """

    facts: Facts
    vocabulary: Words
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    targets: NDArray[np.int32]
    vectors: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [rows]: word ids of each review, before it is cut."""
        return np.diff(self.offsets)

    def review(self, row: int) -> NDArray[np.int32]:
        """Word ids of a review, cut to the network's length; int32 [words]."""
        start, end, longest = int(self.offsets[row]), int(self.offsets[row + 1]), self.facts.spec.max_length
        if self.facts.spec.truncating == "pre":
            return self.ids[max(start, end - longest) : end]
        return self.ids[start : min(end, start + longest)]

    @classmethod
    def load(cls, folder: str) -> Self:
        """Map a training set that `write` made.

        Args:
            folder: Path or URI. The files of a remote one are copied to the local disk under no name, so that a
                process leaves nothing there however it ends.

        Raises:
            SentrayError: This machine does not see it, or has no room for it.
        """
        facts, vectors = Facts.read(folder), None
        try:
            with contextlib.ExitStack() as stack:

                def local(name: str) -> IO[bytes]:
                    return stack.enter_context(_local(Folder(folder), name))

                offsets, targets = np.load(local(_OFFSETS)), np.load(local(_TARGETS))
                # A file without bytes cannot be mapped.
                ids = np.memmap(local(IDS_FILE), np.int32, "r") if offsets[-1] else np.empty(0, np.int32)
                words = facts.spec.words(local(_VOCABULARY).read() if facts.spec.buckets is None else None)
                if facts.embedding is not None:
                    vectors = np.memmap(local(_VECTORS), np.float32, "r").reshape(words.size, -1)
        except OSError as error:
            raise _unseen(folder, error) from error
        return cls(facts, words, ids, offsets, targets, vectors)


@contextlib.contextmanager
def _local(folder: Folder, name: str) -> Iterator[IO[bytes]]:
    """A file of the training set on this machine's disk."""
    with open(folder.path(name), "rb") if folder.local else tempfile.TemporaryFile() as file:
        if not folder.local:
            with folder.open_file(name) as source:
                shutil.copyfileobj(source, file, _COPY_BYTES)
            file.seek(0)
        yield file


def _unseen(folder: str, error: OSError) -> SentrayError:
    return SentrayError(
        f"the training set in {folder} cannot be read on {socket.gethostname()} ({first_line(error)}); choose an "
        "--out that every training node sees, and where it is remote has room to copy to its temporary folder"
    )


def exists(folder: str) -> bool:
    """Whether a whole training set lies in the folder, local or remote.

    Raises:
        SentrayError: The folder cannot be reached.
    """
    return Folder(folder).read(_FACTS) is not None


def write(
    folder: Path,
    facts: Facts,
    words: Words,
    offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    vectors: NDArray[np.float32] | None = None,
) -> None:
    """Finish the training set whose `IDS_FILE` lies in the folder; the facts come last and mark it as whole."""
    np.save(folder / _OFFSETS, offsets)
    np.save(folder / _TARGETS, targets)
    if vectors is not None:
        vectors.tofile(folder / _VECTORS)
    if isinstance(words, Vocabulary):
        (folder / _VOCABULARY).write_bytes(words.to_text().encode())
    Folder(str(folder)).write(_FACTS, TypeAdapter(Facts).dump_json(facts, indent=1))


def upload(folder: Path, remote: str, show: Callable[[float], None]) -> None:
    """Copy a local training set to a URI; the facts come last there too.

    Args:
        folder: Where it lies.
        remote: Where it goes.
        show: Told again and again which share of its bytes is there, from 0 to 1.

    Raises:
        SentrayError: The folder cannot be written.
    """
    filesystem, path = locate(remote)
    files = sorted(folder.iterdir(), key=lambda file: file.name == _FACTS)
    done, size = 0, sum(file.stat().st_size for file in files)
    try:
        for file in files:
            with file.open("rb") as source, filesystem.open_output_stream(f"{path}/{file.name}") as target:
                while piece := source.read(_COPY_BYTES):
                    target.write(piece)
                    done += len(piece)
                    show(done / size)
    except OSError as error:
        raise SentrayError(
            f"{remote} cannot be written ({first_line(error)}); make room or check the permissions, then run the same "
            "command again"
        ) from error
