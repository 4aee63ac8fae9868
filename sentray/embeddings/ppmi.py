"""Word vectors of the reviews at hand, by counting: `learn` factorises positive pointwise mutual information.

How much more often two words stand near each other than chance has it, negative values cut off, is a sparse matrix
whose truncated singular value decomposition gives vectors about as good as word2vec's in a fiftieth of the time
(Levy and Goldberg 2014; Levy, Goldberg and Dagan 2015 for the settings). The decomposition is the randomised one of
Halko, Martinsson and Tropp (2011).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sentray.text.simd import compiled

WINDOW, SMOOTHING, POWER = 10, 0.75, 0.5
"""Words to either side that count as near; exponent of a context word's frequency; of the singular values."""
SCALE = 0.3
"""Standard deviation of the vectors' numbers."""
_RARE_SCALE = 0.01
"""That of a word without a vector: not 0, so that a review of such words alone has a direction."""
_OVERSAMPLES, _ITERATIONS = 10, 2

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Learnt:
    """Vectors and what they were learnt from.

    Attributes:
        vectors: float32 [rows, dimensions]; row 0, the padding, is 0.
        words: how many words have a vector; the others' are small random numbers.
        reviews: how many reviews were read.
        sampled: whether those are a sample, since all would take too much time and memory.
    """

    vectors: Floats
    words: int
    reviews: int
    sampled: bool


def learn(
    ids: Ids,
    offsets: Offsets,
    rows: int,
    dimensions: int,
    *,
    min_count: int = 2,
    max_words: int = 30_000,
    max_tokens: int = 10_000_000,
    seed: int = 0,
) -> Learnt:
    """Learn vectors from reviews; the same ones each time on one kind of processor.

    They are centred by the words' frequencies and brought to one scale.

    Args:
        ids: int32 [total], the reviews' word ids, never 0.
        offsets: int64 [reviews + 1]; review i has `ids[offsets[i]:offsets[i + 1]]`.
        rows: of the embedding, the padding's among them.
        dimensions: of a vector.
        min_count: fewest occurrences of a word that gets a vector.
        max_words: the most frequent words that get one.
        max_tokens: of a larger corpus a random sample of reviews with about so many words is read.
        seed: fixes the sample and what is drawn.
    """
    generator = np.random.default_rng(seed)
    reviews = len(offsets) - 1
    sampled = len(ids) > max_tokens
    if sampled:
        chosen = np.sort(generator.choice(reviews, max(int(reviews * max_tokens / len(ids)), 1), replace=False))
        ids = np.concatenate([ids[offsets[review] : offsets[review + 1]] for review in chosen.tolist()])
        offsets = np.concatenate([[0], np.cumsum((offsets[1:] - offsets[:-1])[chosen])])
    vectors = generator.normal(0, _RARE_SCALE, (rows, dimensions)).astype(np.float32)
    vectors[0] = 0
    counts = np.bincount(ids, minlength=rows)
    order = np.argsort(-counts, kind="stable")[:max_words]
    order = order[counts[order] >= min_count]
    if len(order) > 1:
        number_of = np.full(rows, -1, np.int32)
        number_of[order] = np.arange(len(order), dtype=np.int32)
        found = _factors(information(number_of[ids], offsets, len(order)), dimensions, generator)
        found -= counts[order] @ found / counts[order].sum()
        vectors[order] = 0
        vectors[order, : found.shape[1]] = found * (SCALE / max(float(found.std()), 1e-9))
    return Learnt(vectors, len(order), len(offsets) - 1, sampled)


def information(words: Ids, offsets: Offsets, count: int) -> Any:
    """Positive pointwise mutual information of words and the words near them, a SciPy CSR matrix [count, count].

    Args:
        words: int32 [total], numbers of the words from 0; -1 keeps a word's place but counts as none.
        offsets: int64 [reviews + 1], of the reviews.
        count: how many words there are.
    """
    from scipy import sparse

    review_of = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    # The positions of each word, one word after the other: its row is counted at once, in memory for one row.
    ends = np.cumsum(np.bincount(words[words >= 0], minlength=count))
    positions = np.argsort(words, kind="stable")[len(words) - ends[-1] :]
    starts = np.concatenate([[0], ends])
    text = (words, offsets, review_of, positions, starts)
    near = _near(*text)
    contexts = near.astype(np.float64) ** SMOOTHING
    contexts /= max(contexts.sum(), 1)
    # Room for what there can be at most; the system gives memory only for what is written.
    room = int(np.minimum(near, count).sum())
    rows, columns, values = np.zeros(count + 1, np.int64), np.empty(room, np.int32), np.empty(room, np.float32)
    _rows(*text, near, contexts, rows, columns, values)
    return sparse.csr_matrix((values[: rows[-1]], columns[: rows[-1]], rows), shape=(count, count))


def _factors(matrix: Any, dimensions: int, generator: np.random.Generator) -> Floats:
    """The left singular vectors times a power of the singular values, float32 [rows, dimensions or fewer]."""
    size = min(dimensions + _OVERSAMPLES, matrix.shape[0])
    basis = matrix @ generator.normal(size=(matrix.shape[1], size)).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis = matrix @ (matrix.T @ _orthonormal(basis))
    basis = _orthonormal(basis)
    squares, turned = _squares(matrix.T @ basis)
    kept = slice(None, -dimensions - 1, -1)
    factors: Floats = (basis @ turned.astype(np.float32))[:, kept] * (squares[kept] ** (POWER / 2)).astype(np.float32)
    return factors


def _squares(columns: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The squares of a matrix's singular values, ascending, and its right singular vectors."""
    exact = columns.astype(np.float64)
    squares, turned = np.linalg.eigh(exact.T @ exact)
    return np.maximum(squares, 0), turned


def _orthonormal(columns: Floats) -> Floats:
    """Orthonormal columns that span the same space; close to 0 where it has fewer dimensions."""
    squares, turned = _squares(columns)
    result: Floats = columns @ (turned / np.sqrt(np.maximum(squares, 1e-10 * squares[-1] + 1e-30))).astype(np.float32)
    return result


@compiled
def _near(words: Ids, offsets: Offsets, review_of: Ids, positions: Offsets, starts: Offsets) -> Offsets:
    """How many words stand near each word, over all its occurrences; int64 [words]."""
    near = np.zeros(len(starts) - 1, np.int64)
    for word in range(len(near)):
        for occurrence in range(starts[word], starts[word + 1]):
            at = positions[occurrence]
            first = max(offsets[review_of[at]], at - WINDOW)
            for other in range(first, min(offsets[review_of[at] + 1], at + WINDOW + 1)):
                near[word] += other != at and words[other] >= 0
    return near


@compiled
def _rows(
    words: Ids,
    offsets: Offsets,
    review_of: Ids,
    positions: Offsets,
    starts: Offsets,
    near: Offsets,
    contexts: npt.NDArray[np.float64],
    rows: Offsets,
    columns: Ids,
    values: Floats,
) -> None:
    """Write the positive values of each row, and into `rows` where the next one begins."""
    counts = np.zeros(len(near), np.int32)
    touched = np.empty(len(near), np.int32)
    kept = 0
    for word in range(len(near)):
        found = 0
        for occurrence in range(starts[word], starts[word + 1]):
            at = positions[occurrence]
            first = max(offsets[review_of[at]], at - WINDOW)
            for other in range(first, min(offsets[review_of[at] + 1], at + WINDOW + 1)):
                context = words[other]
                if other == at or context < 0:
                    continue
                if counts[context] == 0:
                    touched[found] = context
                    found += 1
                counts[context] += 1
        for number in range(found):
            context = touched[number]
            ratio = counts[context] / (near[word] * contexts[context])
            counts[context] = 0
            if ratio > 1:
                columns[kept], values[kept] = context, np.log(ratio)
                kept += 1
        rows[word + 1] = kept
