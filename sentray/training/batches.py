"""Which reviews a step trains on, which of them a worker takes, and how they are laid out for the network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Reviews = list[NDArray[np.int32]]
Size = Callable[[int], int]
"""From how many there are to how many there is room for."""


def exact(size: int) -> int:
    """The size itself."""
    return size


def coarse(size: int) -> int:
    """The next of 6, 8, 12, 16, 24, 32 …: what is padded so comes in few sizes, and a sixth more on the average."""
    power = max(8, 1 << (size - 1).bit_length())
    return 3 * power // 4 if size <= 3 * power // 4 else power


def epoch_batches(rows: int, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """Global batches of one epoch: every row once, in an order that seed and epoch fix.

    The order does not depend on the number of workers. The last batch may be smaller.
    """
    order = np.random.default_rng((seed, epoch)).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, rows, batch_size)]


def share(batch: Rows, lengths: NDArray[np.int64], rank: int, world: int) -> Rows:
    """One worker's part of a global batch; the workers' parts hold each row once.

    Long reviews are dealt first and the dealing order turns round after each round, so that the workers have
    about as many words each and seldom wait for one another.

    Args:
        batch: Rows of the global batch.
        lengths: Word ids of those rows, in their order.
        rank: This worker's number, from 0.
        world: Number of workers.
    """
    by_length = batch[np.argsort(-lengths, kind="stable")]
    place = np.arange(len(batch))
    turn, seat = np.divmod(place, world)
    dealt_to = np.where(turn % 2 == 0, seat, world - 1 - seat)
    mine: Rows = by_length[dealt_to == rank]
    return mine


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution ("valid", stride 1) and the pooling of its output, both along the words.

    Attributes:
        kernel: Words a convolution window spans.
        pool: Convolution outputs a pooled cell joins.
        cells: Pooled cells the network has for a review at full length.
    """

    kernel: int
    pool: int
    cells: int


@dataclass(frozen=True)
class Packed:
    """Reviews laid one after the other.

    Attributes:
        ids: int32 [positions], each word as its place in `words`.
        words: int32 [distinct words], ascending vocabulary ids; id 0, the padding, is always among them.
        cells: int32 [reviews, columns], what of the positions each review has; see the function that packed them.

    Where sizes are rounded up, empty reviews follow the given ones, and padding that no review owns follows the
    positions.
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    cells: NDArray[np.int32]


def pack_windows(reviews: Reviews, window: Window, vocabulary_rows: int, size: Size = exact) -> Packed:
    """Lay reviews out for a convolution, each followed by just enough padding to end its last own window.

    Pooled cell `c` covers the convolution outputs `c * pool` to `c * pool + pool - 1`. Cell 0 lies in padding, and
    every cell behind a review's own cells equals it: the network's output for a long padding costs nothing.

    Args:
        reviews: int32 [words] each, vocabulary ids, cut to the network's length.
        window: The network's geometry.
        vocabulary_rows: Rows of the embedding.
        size: Rounds the numbers of reviews, positions and columns up.

    Returns:
        `cells` are int32 [reviews, most own cells], the pooled cells of each review; 0 behind its own.
    """
    reviews = _filled_up(reviews, size)
    kernel, pool = window.kernel, window.pool
    lengths = _lengths(reviews)
    own = -(-lengths // pool)
    sizes = -(-(own * pool + kernel - 1) // pool) * pool
    first = -(-(pool + kernel - 1) // pool) * pool
    ends = first + np.cumsum(sizes)
    starts = ends - sizes
    packed = np.zeros(size(int(ends[-1]) if len(reviews) else first), np.int32)
    for start, review in zip(starts.tolist(), reviews, strict=True):
        packed[start : start + len(review)] = review
    words, ids = _distinct(packed, vocabulary_rows)
    own = np.minimum(own, window.cells)
    # At least one column, so that a batch of empty reviews keeps its shape.
    column = np.arange(min(size(max(int(own.max(initial=0)), 1)), window.cells))
    cells = np.where(column < own[:, None], starts[:, None] // pool + column, 0)
    return Packed(ids, words, cells.astype(np.int32))


def pack_padded(reviews: Reviews, length: int, vocabulary_rows: int, size: Size = exact) -> Packed:
    """Lay reviews out padded to the network's length.

    Returns:
        `ids` are int32 [reviews * length]; `cells` int32 [reviews, 0].
    """
    reviews = _filled_up(reviews, size)
    padded = np.zeros((len(reviews), length), np.int32)
    for row, review in zip(padded, reviews, strict=True):
        row[: len(review)] = review
    words, ids = _distinct(padded.ravel(), vocabulary_rows)
    return Packed(ids, words, np.empty((len(reviews), 0), np.int32))


def pack_bags(reviews: Reviews, vocabulary_rows: int, size: Size = exact) -> Packed:
    """Lay reviews out without any padding between them.

    Returns:
        `cells` are int32 [reviews, 1], the words of each review.
    """
    reviews = _filled_up(reviews, size)
    total = sum(map(len, reviews))
    packed = np.concatenate([*reviews, np.zeros(size(total) - total, np.int32)])
    words, ids = _distinct(packed, vocabulary_rows)
    return Packed(ids, words, _lengths(reviews)[:, None].astype(np.int32))


def distinct_words(reviews: Reviews, vocabulary_rows: int) -> NDArray[np.int32]:
    """Ascending vocabulary ids in any of the reviews, with the padding's 0; int32 [distinct words]."""
    seen = np.zeros(vocabulary_rows, np.bool_)
    seen[0] = True
    seen[np.concatenate([np.empty(0, np.int32), *reviews])] = True
    return np.flatnonzero(seen).astype(np.int32)


def _distinct(ids: NDArray[np.int32], rows: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    words = distinct_words([ids], rows)
    place = np.empty(rows, np.int32)
    place[words] = np.arange(len(words), dtype=np.int32)
    return words, place[ids]


def _filled_up(reviews: Reviews, size: Size) -> Reviews:
    """The reviews, and as many empty ones as there is room for."""
    return [*reviews, *[np.empty(0, np.int32)] * (size(len(reviews)) - len(reviews))]


def _lengths(reviews: Reviews) -> NDArray[np.int64]:
    return np.fromiter(map(len, reviews), np.int64, len(reviews))
