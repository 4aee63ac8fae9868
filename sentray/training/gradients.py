"""`Gradients`, what a step says of a batch, and `summed`, which adds up those of the workers' parts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from sentray.text.simd import compiled
from sentray.training.allreduce import AllReduce

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Gradients:
    """What a step says of a batch, or of one worker's part of it, for one head.

    Attributes:
        loss: Sum of the rows' weighted cross-entropies.
        correct: Rows whose most probable class is their own.
        rows: int32, ascending rows of the head's table, such as the ids of words; none where the table is frozen.
        values: float32 [rows, n], their gradients; those of all other rows are 0.
        dense: float32 [m], of all other weights, one after the other.
        statistics: float32 [k], no gradients but how what is not trained changes, times the rows' share of the batch.
    """

    loss: float
    correct: int
    rows: Rows
    values: Floats
    dense: Floats
    statistics: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


def clipped(gradients: Gradients, most: float | None) -> Gradients:
    """The gradients, made smaller where their norm is more than the most (Pascanu et al. 2013); None is no limit."""
    if most is None:
        return gradients
    norm = float(np.sqrt(np.vdot(gradients.values, gradients.values) + np.vdot(gradients.dense, gradients.dense)))
    if not norm > most:
        return gradients
    factor = np.float32(most / norm)
    return replace(gradients, values=factor * gradients.values, dense=factor * gradients.dense)


def summed(parts: Sequence[Gradients], allreduce: AllReduce) -> list[Gradients]:
    """The gradients of the global batch, with the same bits on every worker.

    What is dense is added up by an all-reduce. Of the tables every worker gets all workers' rows and adds them up in
    the order of the ranks: together they are seldom more than an all-reduce would send, and nobody has to know before
    which rows the others have.

    Args:
        parts: Of this worker's part of the batch, one a head.
        allreduce: The connection to the other workers.
    """
    if allreduce.world == 1:
        return list(parts)
    all_dense = [values for part in parts for values in (part.dense, part.statistics)]
    dense = np.split(allreduce.sum(np.concatenate(all_dense)), np.cumsum([len(values) for values in all_dense])[:-1])
    message = b"".join(
        np.int64(len(part.rows)).tobytes() + part.rows.tobytes() + part.values.tobytes() for part in parts
    )
    widths = [part.values.shape[1] for part in parts]
    received = [_unpacked(each, widths) for each in allreduce.gather(message)]
    total = []
    for number, (part, tables) in enumerate(zip(parts, zip(*received, strict=True), strict=True)):
        rows, values = reduce(lambda left, right: _added(*left, *right), tables)
        of_part, statistics = dense[2 * number : 2 * number + 2]
        total.append(replace(part, rows=rows, values=values, dense=of_part, statistics=statistics))
    return total


def _unpacked(message: bytes, widths: Sequence[int]) -> list[tuple[Rows, Floats]]:
    """Rows and values of each head, so many numbers a row, from a worker's message."""
    found, start = [], 0
    for width in widths:
        count = int(np.frombuffer(message, np.int64, 1, start)[0])
        rows = np.frombuffer(message, np.int32, count, start + 8)
        values = np.frombuffer(message, np.float32, count * width, start + 8 + 4 * count).reshape(count, width)
        found.append((rows, values))
        start += 8 + 4 * count * (1 + width)
    return found


@compiled
def _added(rows: Rows, values: Floats, more: Rows, added: Floats) -> tuple[Rows, Floats]:
    """The sum of two tables of ascending rows."""
    all_rows = np.empty(len(rows) + len(more), np.int32)
    sums = np.empty((len(all_rows), values.shape[1]), np.float32)
    left = right = count = 0
    while left < len(rows) or right < len(more):
        first = right == len(more) or (left < len(rows) and rows[left] <= more[right])
        second = left == len(rows) or (right < len(more) and more[right] <= rows[left])
        all_rows[count] = rows[left] if first else more[right]
        for column in range(values.shape[1]):
            own = values[left, column] if first else np.float32(0)
            sums[count, column] = own + added[right, column] if second else own
        left += first
        right += second
        count += 1
    return all_rows[:count], sums[:count]
