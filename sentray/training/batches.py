"""Which reviews a step trains on (`epoch_batches`), which of them a worker takes (`share`), and their words."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Reviews = list[NDArray[np.int32]]


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
    turn, seat = np.divmod(np.arange(len(batch)), world)
    dealt_to = np.where(turn % 2 == 0, seat, world - 1 - seat)
    mine: Rows = by_length[dealt_to == rank]
    return mine


def distinct_words(ids: NDArray[np.int32], vocabulary_rows: int) -> NDArray[np.int32]:
    """The distinct vocabulary ids, ascending, with the padding's 0; int32 [distinct words]."""
    seen = np.zeros(vocabulary_rows, np.bool_)
    seen[0] = True
    seen[ids] = True
    return np.flatnonzero(seen).astype(np.int32)


def numbered(ids: NDArray[np.int32], vocabulary_rows: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The `distinct_words`, and the index of each id among them; int32."""
    words = distinct_words(ids, vocabulary_rows)
    index = np.empty(vocabulary_rows, np.int32)
    index[words] = np.arange(len(words), dtype=np.int32)
    return words, index[ids]


def laid_out(reviews: Reviews) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The reviews' ids one after the other, and where each review starts, int64 [reviews + 1]."""
    offsets = np.zeros(len(reviews) + 1, np.int64)
    np.cumsum([len(review) for review in reviews], out=offsets[1:])
    return np.concatenate([np.empty(0, np.int32), *reviews]), offsets
