"""Words with a vector each, and the file format that every other tool reads: word2vec's text."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sentray.errors import SentrayError
from sentray.storage import first_line, locate

_NUMBERS_AT_ONCE = 400_000
_PARTS_FIELDS = re.compile(r"[ \t\n\v\f\r]")


@dataclass(frozen=True, eq=False)
class Vectors:
    """Words and their vectors.

    Attributes:
        words: each once.
        rows: float32[words, dimensions].
    """

    words: list[str]
    rows: npt.NDArray[np.float32]

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return int(self.rows.shape[1])


def local_place(file: str) -> str | None:
    """Where a local file, named by its path or a URI, is to be written; None for another file system's URI.

    Raises:
        SentrayError: the name is none of a file, or what has it is no regular file; or no file system has the URI.
    """
    path = file
    if "://" in file:
        filesystem, path = locate(file)
        if not isinstance(filesystem, fs.LocalFileSystem):
            return None
    if not os.path.basename(path) or os.path.isdir(path):
        raise SentrayError(f"{file or 'an empty name'} is a folder; name a file with --out")
    if os.path.exists(path) and not os.path.isfile(path):
        # The new file would take its place.
        raise SentrayError(f"{file} is no regular file; name another with --out")
    return os.path.realpath(path)


def write_vectors(file: str, vectors: Vectors) -> None:
    r"""Write word2vec's text format: `N D\n`, then for each word `word number … number\n`.

    Each number is the shortest decimal that reads back as the same float32, also where it is read as a float64 first,
    as gensim does. A local file appears under its name when it is whole or not at all.

    Args:
        file: path, or URI of a pyarrow file system; what was there is replaced.
        vectors: what to write.

    Raises:
        SentrayError: a word that the format cannot hold, a number that is none, or a place that cannot be written.
    """
    place = local_place(file)
    for word in vectors.words:
        if not word or _PARTS_FIELDS.search(word):
            raise SentrayError(f"the word {word!r} cannot be written to {file}: white space parts the fields there")
    finite = np.isfinite(vectors.rows).all(axis=1)
    if not finite.all():
        word = vectors.words[int(np.argmin(finite))]
        raise SentrayError(
            f"the vector of {word!r} cannot be written to {file}: it holds nan or infinity; train again with a "
            "smaller --learning-rate"
        )
    try:
        with _uploaded(file) if place is None else _renamed(place) as stream:
            stream.write(b"%d %d\n" % vectors.rows.shape)
            step = max(_NUMBERS_AT_ONCE // max(vectors.dimensions, 1), 1)
            for start in range(0, len(vectors.words), step):
                rows = slice(start, start + step)
                stream.write(_lines(vectors.words[rows], vectors.rows[rows]))
    except (OSError, pa.ArrowException) as error:
        raise SentrayError(f"{file} cannot be written ({first_line(error)}); choose another place") from error


def _lines(words: list[str], rows: npt.NDArray[np.float32]) -> bytes:
    numbers = _decimals(rows.reshape(-1))
    joined = pc.binary_join(pa.FixedSizeListArray.from_arrays(numbers, rows.shape[1]).cast(pa.list_(pa.string())), " ")
    lines = pc.binary_join_element_wise(pa.array(words, pa.string()), joined, " ").to_pylist()
    return ("\n".join(lines) + "\n").encode()


def _decimals(numbers: npt.NDArray[np.float32]) -> Any:
    shortest = pa.array(numbers).cast(pa.string())
    # A float64 between two float32 may lie so near their middle that it is rounded the other way.
    astray = shortest.cast(pa.float64()).to_numpy().astype(np.float32) != numbers
    if not astray.any():
        return shortest
    return pc.if_else(pa.array(astray), pa.array(numbers.astype(np.float64)).cast(pa.string()), shortest)


@contextlib.contextmanager
def _renamed(path: str) -> Iterator[IO[bytes]]:
    folder, base = os.path.split(path)
    half = f"{folder}/.{base}.{uuid.uuid4().hex}"
    os.makedirs(folder, exist_ok=True)
    try:
        with open(half, "wb") as stream:
            yield stream
            # Else a machine that loses power may keep the name and lose the content.
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(half, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(half)
        raise


@contextlib.contextmanager
def _uploaded(file: str) -> Iterator[Any]:
    filesystem, path = locate(file)
    with filesystem.open_output_stream(path) as stream:
        yield stream
