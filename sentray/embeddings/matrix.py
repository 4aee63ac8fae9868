"""Which words of a vocabulary have a vector, and the matrix that a network's embedding starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sentray.console import count
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError

Oov = Literal["zero", "random", "mean"]
"""What becomes of a word without a vector (out of vocabulary)."""

SHOWN_MISSING = 20


@dataclass(frozen=True)
class Coverage:
    """How well word vectors fit a vocabulary.

    Attributes:
        words: of the vocabulary.
        words_found: of them with a vector.
        tokens: occurrences of the vocabulary's words.
        tokens_found: of them of words with a vector.
        missing: the commonest words without a vector and their occurrences, at most 20.
        norms: shortest, mean and longest length of the vectors found.
    """

    words: int
    words_found: int
    tokens: int
    tokens_found: int
    missing: tuple[tuple[str, int], ...]
    norms: tuple[float, float, float]

    def lines(self) -> list[str]:
        """For the console."""
        shortest, mean, longest = self.norms
        shown = [
            f"words with a vector: {self.words_found:,} of {self.words:,} ({self.words_found / self.words:.1%}), "
            f"of their occurrences {self.tokens_found / max(self.tokens, 1):.1%}",
            f"norm of a vector: {mean:.2f} on average, {shortest:.2f} to {longest:.2f}",
        ]
        if self.missing:
            words = ", ".join(f"{word} {number:,}" for word, number in self.missing)
            without = self.words - self.words_found
            shown.append(f"{count(without, 'word')} without a vector, the commonest: {words}")
        return shown

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes by their names."""
        return asdict(self)


def coverage(vocabulary_words: Sequence[str], counts: Mapping[str, int], vectors: Vectors) -> Coverage:
    """Find which words have a vector.

    Args:
        vocabulary_words: each once.
        counts: how often each occurs; a word that is not in it never does.
        vectors: may hold other words as well.

    Raises:
        SentrayError: no word has one.
    """
    rows = _rows_of(vocabulary_words, vectors)
    found = rows >= 0
    occurrences = np.array([counts.get(word, 0) for word in vocabulary_words], np.int64)
    missing = np.flatnonzero(~found)
    commonest = missing[np.argsort(-occurrences[missing], kind="stable")[:SHOWN_MISSING]].tolist()
    norms = np.linalg.norm(vectors.rows[rows[found]].astype(np.float64), axis=1)
    return Coverage(
        words=len(rows),
        words_found=int(found.sum()),
        tokens=int(occurrences.sum()),
        tokens_found=int(occurrences[found].sum()),
        missing=tuple((vocabulary_words[index], int(occurrences[index])) for index in commonest),
        norms=(float(norms.min()), float(norms.mean()), float(norms.max())),
    )


def embedding_matrix(words: Sequence[str], size: int, vectors: Vectors, oov: Oov, seed: int) -> npt.NDArray[np.float32]:
    """The matrix whose row `id` is the vector of the word with that id.

    Args:
        words: of the vocabulary; the first has id 1.
        size: rows of the matrix; those after the last word's, such as that of the id which unknown words share, count
            as words without a vector.
        vectors: may hold other words as well.
        oov: the vector of a word without one: `zero`; `random`, drawn from normal distributions with the mean and the
            standard deviation that the vectors found have in each dimension; `mean`, the mean of those.
        seed: fixes what is drawn.

    Returns:
        float32[size, dimensions]; row 0, padding, is zero.

    Raises:
        SentrayError: no word has a vector.
    """
    rows = _rows_of(words, vectors)
    with_vector = np.flatnonzero(rows >= 0)
    found = vectors.rows[rows[with_vector]]
    matrix = np.zeros((size, vectors.dimensions), np.float32)
    if oov != "zero":
        exact = found.astype(np.float64)
        mean, deviation = exact.mean(axis=0), exact.std(axis=0)
        others = (size - 1, vectors.dimensions)
        matrix[1:] = np.random.default_rng(seed).normal(mean, deviation, others) if oov == "random" else mean
    matrix[1 + with_vector] = found
    return matrix


def centred(vectors: Vectors, counts: Mapping[str, int]) -> Vectors:
    """The vectors less their mean over all occurrences of their words.

    Vectors share a large part that says nothing about the word (Mu and Viswanath 2018); in a mean over a review's words
    it outweighs the rest.

    Args:
        vectors: of some words.
        counts: how often each occurs.
    """
    occurrences = np.array([counts.get(word, 0) for word in vectors.words], np.float64)
    mean = occurrences @ vectors.rows.astype(np.float64) / max(occurrences.sum(), 1.0)
    return Vectors(vectors.words, (vectors.rows - mean).astype(np.float32))


def _rows_of(words: Sequence[str], vectors: Vectors) -> npt.NDArray[np.int64]:
    """int64[words]: the row of each word's vector, -1 where it has none."""
    row_of = dict(zip(vectors.words, range(len(vectors.words)), strict=True))
    rows = np.array([row_of.get(word, -1) for word in words], np.int64)
    if not (rows >= 0).any():
        raise SentrayError(
            f"none of the vocabulary's {count(len(words), 'word')} has a vector: give vectors of the same "
            "language, and look whether the cleaning fits them, such as --lowercase where they have no capitals"
        )
    return rows
