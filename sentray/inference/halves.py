"""What the folded engine computes of a network whose reviews may have any length: windows' sums, a mean, n-grams.

A convolution whose kernel is the same at each offset of a window is a sum too: `P[w] = E[w] @ W / width` is summed over
the window, which adds the row of the word that comes and takes off that of the word that leaves it. A row is cut into
blocks of `BLOCK` numbers, each in a table of its own, and all reviews of a group are gone through with one block before
the next: its sums and the largest of them stay in registers, and the rows of the usual words in the near cache. The
n-grams of a review are found and their weights added without being stored.

Microseconds a review of 757 known words, with windows of 3, 7 and 20 words through 64 filters each, vectors of 100
numbers, 40,000 words and 390,000 n-grams, in processor time on a shared machine with AVX2 (so only the ratios count): 4
to 5 for a width, 7 for the mean, 39 for the n-grams. What else was tried, for a width of 128 filters and 571 words:

- 12 as it is.
- 30 in groups of 256 reviews without asking for a word's row before its turn, for one word in five is in no near cache;
  23 when rows are asked for 4 words ahead, 16 with 24, no less with 48.
- 12 in groups of 2048 or more: a group of 256 brings the rare words of a block from memory anew.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.inference.simd import AHEAD, BLOCK, LANES, add_rows, dense, slide, slide_and_note
from sentray.text.ngrams import Grams, Rows, walk
from sentray.text.simd import address, compiled, inlined

Floats = NDArray[np.float32]

STRETCH = 512
"""After so many moves of a window its sums are made anew, so that rounding errors do not add up."""


@compiled
def laid_out(ids: Any, begins: Any, lengths: Any, gap: int) -> Any:
    """Reviews one after the other with padding before, between and behind them, and where each begins."""
    firsts = np.empty(len(lengths), np.int64)
    end = gap
    for review in range(len(lengths)):
        firsts[review] = end
        end += lengths[review] + gap
    result = np.zeros(end + AHEAD, np.int32)
    for review in range(len(lengths)):
        for word in range(lengths[review]):
            result[firsts[review] + word] = ids[begins[review] + word]
    return result, firsts


def in_blocks(rows: Floats) -> Floats:
    """Rows [words, numbers] as `slide` and `add_rows` take them: float32 [blocks, words, BLOCK], zeros at the end."""
    words, numbers = rows.shape
    blocks = np.zeros((-(-numbers // BLOCK), words, BLOCK), np.float32)
    for number, block in enumerate(blocks):
        part = rows[:, number * BLOCK : (number + 1) * BLOCK]
        block[:, : part.shape[1]] = part
    return blocks


def add_sums(
    width: int, table: Floats, weights: Floats, ids: Any, firsts: Any, lengths: Any, lanes: Floats, noting: bool = False
) -> NDArray[np.int32]:
    """Add the products of the largest sums of windows of `width` words of each review and the weights.

    Returns:
        Where wanted, of each sum the last word of its window, -1 where it is not above 0; int32 [reviews, sums].
    """
    where = np.full((len(lengths) if noting else 0, weights.shape[1]), -1, np.int32)
    _add_sums(width, table, weights, ids, firsts, lengths, lanes, where)
    return where


@compiled
def _add_sums(
    width: int, table: Any, weights: Any, ids: Any, firsts: Any, lengths: Any, lanes: Any, where: Any
) -> None:
    blocks, words, size = table.shape
    units, inputs = weights.shape
    sums, best = np.empty(size, np.float32), np.empty(size, np.float32)
    ids_at, sums_at, best_at = address(ids), address(sums), address(best)
    for block in range(blocks):
        table_at, weights_at = address(table) + 4 * block * words * size, address(weights) + 4 * block * size
        for review in range(len(lengths)):
            for number in range(size):
                sums[number] = best[number] = 0
            steps = lengths[review] + width - 1 if lengths[review] else 0
            for start in range(0, steps, STRETCH):
                word_at = ids_at + 4 * (firsts[review] + start)
                if start:
                    sums[:] = 0
                    add_rows(word_at - 4 * width, width, table_at, sums_at)
                moves = min(steps - start, STRETCH)
                if len(where):
                    at = address(where) + 4 * (review * inputs + block * size)
                    slide_and_note(word_at, width, moves, table_at, sums_at, best_at, start, at)
                else:
                    slide(word_at, width, moves, table_at, sums_at, best_at)
            for unit in range(units):
                lanes_at = address(lanes) + 4 * LANES * (review * units + unit)
                dense(best_at, size // LANES, weights_at + 4 * unit * inputs, lanes_at, 1)


@inlined
def _total(left: int, right: int, vectors: int, lanes: Any) -> float:
    """The sum of the products of two rows of so many vectors, by their addresses."""
    for lane in range(LANES):
        lanes[lane] = 0
    dense(left, vectors, right, address(lanes), 1)
    total = 0.0
    for lane in range(LANES):
        total += lanes[lane]
    return total


def add_mean(
    dimensions: int,
    epsilon: float,
    table: Floats,
    weights: Floats,
    ids: Any,
    firsts: Any,
    lengths: Any,
    lanes: Floats,
    noting: bool = False,
) -> Floats:
    """Add the products of the mean of each review's rows, brought to mean 0 and variance 1, and the weights.

    Returns:
        Where wanted, what a row of each review is multiplied by to be in the normalized mean; float32 [reviews].
    """
    scales = np.zeros(len(lengths) if noting else 0, np.float32)
    _add_mean(dimensions, epsilon, table, weights, ids, firsts, lengths, lanes, scales)
    return scales


@compiled
def _add_mean(
    dimensions: int,
    epsilon: float,
    table: Any,
    weights: Any,
    ids: Any,
    firsts: Any,
    lengths: Any,
    lanes: Any,
    scales: Any,
) -> None:
    blocks, words, size = table.shape
    units, inputs = weights.shape
    vectors = inputs // LANES
    means = np.zeros((len(lengths), inputs), np.float32)
    ones, totals = np.ones(inputs, np.float32), np.empty(LANES, np.float32)
    ids_at, means_at, weights_at = address(ids), address(means), address(weights)
    for block in range(blocks):
        table_at = address(table) + 4 * block * words * size
        for review in range(len(lengths)):
            sums_at = means_at + 4 * (review * inputs + block * size)
            add_rows(ids_at + 4 * firsts[review], lengths[review], table_at, sums_at)
    for review in range(len(lengths)):
        if lengths[review]:
            values_at, share = means_at + 4 * review * inputs, np.float32(1 / lengths[review])
            mean = np.float32(_total(values_at, address(ones), vectors, totals) / dimensions)
            for number in range(dimensions):
                means[review, number] = (means[review, number] - mean) * share
            variance = _total(values_at, values_at, vectors, totals) / dimensions
            scale = np.float32(1 / np.sqrt(variance + epsilon)) if variance + epsilon else np.float32(0)
            for number in range(dimensions):
                means[review, number] *= scale
            if len(scales):
                scales[review] = scale * share
            for unit in range(units):
                lanes_at = address(lanes) + 4 * LANES * (review * units + unit)
                dense(values_at, vectors, weights_at + 4 * unit * inputs, lanes_at, 1)


def add_wide(
    grams: Grams,
    rows: Floats,
    weights: Floats,
    ids: Any,
    firsts: Any,
    lengths: Any,
    lanes: Floats,
    noting: bool = False,
) -> tuple[Rows, NDArray[np.int64]]:
    """Add the products of the sum of the rows of each review's n-grams, times their values, and the weights.

    Returns:
        Where wanted, the n-grams' rows, review after review, and where each review's of words end and its of
        characters, int64 [reviews, 2].
    """
    most = int(grams.most(lengths if noting else lengths.max()).sum())
    found, ends = np.empty(most, np.int32), np.zeros((len(lengths) if noting else 0, 2), np.int64)
    scales = grams.spec.scale, grams.spec.character_scale
    _add_wide(ids, firsts, lengths, grams.lookup, grams.scratch(), found, rows, *scales, weights, lanes, ends)
    return found, ends


@compiled
def _add_wide(
    ids: Any,
    firsts: Any,
    lengths: Any,
    lookup: Any,
    scratch: Any,
    found: Any,
    rows: Any,
    scale: float,
    character_scale: float,
    weights: Any,
    lanes: Any,
    ends: Any,
) -> None:
    ids_at, lookup_at = address(ids), address(lookup)
    scratch_at, found_at = address(scratch), address(found)
    first = 0
    for review in range(len(lengths)):
        at = found_at + 4 * first
        words, characters = walk(ids_at + 4 * firsts[review], lengths[review], lookup_at, scratch_at, at)
        for column in range(rows.shape[1]):
            value = 0.0
            for number in range(first, first + words):
                value += rows[found[number], column]
            value *= scale / np.sqrt(max(words, 1))
            other = 0.0
            for number in range(first + words, first + words + characters):
                other += rows[found[number], column]
            value += other * character_scale / np.sqrt(max(characters, 1))
            for unit in range(len(weights)):
                lanes[review, unit, 0] += value * weights[unit, column]
        if len(ends):
            ends[review, 0] = first + words
            first += words + characters
            ends[review, 1] = first


@compiled
def add_lanes(lanes: Any, sums: Any) -> None:
    """Add up the lanes [reviews, units, LANES] of each unit into sums [reviews, units]."""
    for review in range(len(lanes)):
        for unit in range(lanes.shape[1]):
            for lane in range(LANES):
                sums[review, unit] += lanes[review, unit, lane]
