"""Words with a vector each, and the file format that every other tool reads: word2vec's text."""

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sentray.errors import SentrayError
from sentray.storage import Folder, locate

MAX_DIMENSIONS = 100_000
"""More numbers a word are no vector but a damaged file."""
_NUMBERS_AT_ONCE = 400_000
_SEPARATOR = re.compile(r"[ \t\n\v\f\r]")


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


def output(file: str) -> tuple[Folder, str]:
    """The folder and the name under which a file, named by its path or a URI, is to be written.

    Raises:
        SentrayError: the name is none of a file, or what has it is no regular file; or no file system has the URI.
    """
    filesystem, path = locate(file)
    if not isinstance(filesystem, fs.LocalFileSystem):
        address, mark, query = file.partition("?")
        folder, _, name = address.rpartition("/")
        if not name or folder.endswith("/"):
            raise SentrayError(f"{file} names no file: give one, as in s3://BUCKET/vectors.txt")
        return Folder(f"{folder}{mark}{query}"), name
    if file.endswith("/") or os.path.isdir(path):
        raise SentrayError(f"{file or 'an empty name'} is a folder; name a file with --out")
    if os.path.exists(path) and not os.path.isfile(path):
        # The new file would replace it.
        raise SentrayError(f"{file} is no regular file; name another with --out")
    path = os.path.realpath(path)
    return Folder(os.path.dirname(path)), os.path.basename(path)


def write_vectors(file: str, vectors: Vectors) -> None:
    r"""Write word2vec's text format: `N D\n`, then for each word `word number … number\n`.

    Each number is the shortest decimal that reads back as the same float32, also where it is read as a float64 first,
    as gensim does. A local file appears under its name when it is whole or not at all.

    Args:
        file: path, or URI of a pyarrow file system; what was there is replaced.
        vectors: what to write.

    Raises:
        SentrayError: a word or number that the format cannot hold, or a file that cannot be written.
    """
    folder, name = output(file)
    for word in vectors.words:
        if not word or _SEPARATOR.search(word):
            raise SentrayError(f"the word {word!r} cannot be written to {file}: white space parts the fields there")
    finite = np.isfinite(vectors.rows).all(axis=1)
    if not finite.all():
        word = vectors.words[int(np.argmin(finite))]
        raise SentrayError(
            f"the vector of {word!r} cannot be written to {file}: it holds nan or infinity; train again with a "
            "smaller --learning-rate"
        )
    with folder.create(name) as stream:
        stream.write(b"%d %d\n" % vectors.rows.shape)
        step = max(_NUMBERS_AT_ONCE // max(vectors.dimensions, 1), 1)
        for start in range(0, len(vectors.words), step):
            rows = slice(start, start + step)
            stream.write(_lines(vectors.words[rows], vectors.rows[rows]))


def _lines(words: list[str], rows: npt.NDArray[np.float32]) -> bytes:
    numbers = _decimals(rows.reshape(-1))
    joined = pc.binary_join(pa.FixedSizeListArray.from_arrays(numbers, rows.shape[1]).cast(pa.list_(pa.string())), " ")
    lines = pc.binary_join_element_wise(pa.array(words, pa.string()), joined, " ").to_pylist()
    return ("\n".join(lines) + "\n").encode()


def _decimals(numbers: npt.NDArray[np.float32]) -> Any:
    shortest = pa.array(numbers).cast(pa.string())
    # The float64 that a decimal is read as may be so near the middle of two float32 that it rounds to the other.
    astray = shortest.cast(pa.float64()).to_numpy().astype(np.float32) != numbers
    if not astray.any():
        return shortest
    return pc.if_else(pa.array(astray), pa.array(numbers.astype(np.float64)).cast(pa.string()), shortest)
