"""The CPU engine: the network with its convolution folded into the embedding, and no TensorFlow.

A convolution over embedded words is a sum of one term a word and offset, `P[w, k] = E[w] @ W[k]`: 51,200
multiplications a position of the tutorial's network become 256 additions. The bundle keeps E and W, a third of the size
of P, and each process multiplies them in a tenth of a second. Behind a review's last word every window sees padding
only; what those windows add to the first dense layer is summed beforehand for every length. Word vectors that are
pooled or laid side by side without a convolution are windows of one word with the unit matrix as their kernel.

Microseconds a review of 320 known words took with the tutorial's network, on a core with AVX-512 and 2 MB of cache of
its own, and what else was tried:

- 11.6 as it is, 2.7 of them in the dense layer. A window's sums stay in registers; a word's row is read once for each
  of its offsets, and the processor looks ahead by itself, since no address depends on a result.
- 9.1 with the table in 16-bit floats, since most of the time goes into waiting for rows that are in no near cache:
  a tenth of a whole job. Scores of the polarity corpus moved by up to 0.00014. It is the engine `folded16`.
- 14.0 with the rows of the next windows fetched ahead by instructions.
- 87 in the first prototype, with Numba's own loops over arrays.

Other networks, likewise: 28 with 128 filters of 5 words, 18 of them spent waiting for the words' 2.5 kB each; 7 with
vectors of 100 numbers laid side by side before one unit; 7 with their mean, normalized.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sentray.bundle import Bundle
from sentray.inference.folded_files import Activation, Branch, Floats, Key, Spec, key, load
from sentray.inference.simd import LANES, dense, pool
from sentray.text.encoding import Encoded

_FOLD_ROWS = 4096


class FoldedEngine:
    """The bundle's network from its `folded` files.

    Args:
        bundle: Bundle to score with.
        half: Keep the words' terms in 16 bits; faster, and a score moves by less than 0.001.

    Raises:
        SentrayError: The bundle has no such files, or they do not fit it.
    """

    name = "folded"
    half_name = "folded16"

    def __init__(self, bundle: Bundle, half: bool = False) -> None:
        self.name = self.half_name if half else FoldedEngine.name
        self._spec, weights = load(bundle)
        tables: dict[Key, NDArray[Any]] = {}
        self._branches = [
            _Folded(self._spec, number, weights, tables, half) for number in range(len(self._spec.branches))
        ]
        layers = [(weights[f"weights{n}"], weights[f"units{n}"]) for n in range(len(self._spec.activations))]
        self._bias, self._layers = layers[0][1], layers[1:]
        self._truncating = bundle.truncating

    def scores(self, encoded: Encoded) -> Floats:
        """Probability of each label for each review, float32 [reviews, labels]; each review on its own."""
        length = np.minimum(encoded.lengths, self._spec.length)
        begins = encoded.offsets[:-1]
        if self._truncating == "pre":
            begins = encoded.offsets[1:] - length
        sums = np.tile(self._bias, (len(encoded), 1))
        for branch in self._branches:
            branch.add(encoded.ids, begins, length, sums)
        values = _activate(sums, self._spec.activations[0], self._spec.epsilon)
        for (weights, units), activation in zip(self._layers, self._spec.activations[1:], strict=True):
            values = _activate(_layer(values, weights, units), activation, self._spec.epsilon)
        return np.hstack([1 - values, values]) if values.shape[1] == 1 else values


class _Folded:
    """One branch with the rows of the first dense layer that its outputs meet.

    Args:
        spec: the network's shape.
        number: of the branch.
        weights: as in `pack`.
        tables: those of the branches before, by their kernels' shape and bytes; branches that pool the same windows
            share one.
        half: keep the words' terms in 16 bits.
    """

    def __init__(
        self, spec: Spec, number: int, weights: Mapping[str, Floats], tables: dict[Key, NDArray[Any]], half: bool
    ) -> None:
        branch = spec.branches[number]
        kernel, embedding = weights[f"kernel{number}"], weights["embedding"]
        width, _, filters = kernel.shape
        self.branch = branch
        shared = key(kernel)
        if shared not in tables:
            table = _fold(embedding, kernel)
            # Numba knows no floats of 16 bits.
            tables[shared] = table.astype(np.float16).view(np.int16) if half else table
        self.table = tables[shared]
        self.bias = np.ascontiguousarray(weights[f"bias{number}"])
        pools = branch.pools(spec.length)
        before = sum(other.filters * other.pools(spec.length) for other in spec.branches[:number])
        rows = weights["weights0"][before : before + pools * filters]
        units = rows.shape[1]
        self.rows = _in_lanes(rows)
        # A window of padding gives the same whatever stands before it.
        padding = _fold(embedding[:1], kernel).reshape(width, filters).sum(axis=0, dtype=np.float64) + self.bias
        self.padding = (np.maximum(padding, 0) if branch.relu else padding).astype(np.float32)
        tail = np.zeros((pools + 1, units), np.float64)
        if branch.window is not None:
            each = rows.reshape(pools, filters, units).astype(np.float64)
            tail[:pools] = np.cumsum(np.tensordot(self.padding, each, (0, 1))[::-1], axis=0)[::-1]
        self.tail = tail.astype(np.float32)
        self._windows, self._pools = branch.windows(spec.length), pools
        self._run = _runner(branch, units, half)

    def add(self, ids: NDArray[np.int32], begins: NDArray[np.int64], lengths: NDArray[np.int64], sums: Floats) -> None:
        """Add the branch's part of the first dense layer to `sums`, float32 [reviews, units]."""
        shape = np.array([self._windows, self._pools], np.int64)
        self._run(ids, begins, lengths, self.table, self.bias, self.padding, self.rows, self.tail, shape, sums)


def _fold(embedding: Floats, kernel: Floats) -> Floats:
    """Each word's term at each offset of a window, float32 [words, width * filters].

    In double precision, so that every machine gets the same numbers whatever its order of summation.
    """
    width, dimensions, filters = kernel.shape
    side_by_side = kernel.transpose(1, 0, 2).reshape(dimensions, width * filters).astype(np.float64)
    table = np.empty((len(embedding), width * filters), np.float32)
    for start in range(0, len(embedding), _FOLD_ROWS):
        table[start : start + _FOLD_ROWS] = embedding[start : start + _FOLD_ROWS].astype(np.float64) @ side_by_side
    return table


def _in_lanes(rows: Floats) -> Floats:
    """Weights [inputs, units] as `dense` takes them: float32 [inputs / LANES, units, LANES], zeros at the end."""
    inputs, units = rows.shape
    padded = np.zeros((-(-inputs // LANES) * LANES, units), np.float32)
    padded[:inputs] = rows
    return np.ascontiguousarray(padded.reshape(-1, LANES, units).transpose(0, 2, 1))


@lru_cache
def _runner(branch: Branch, units: int, is_half: bool) -> Any:
    """The compiled loop over reviews for a branch and so many units of the first dense layer."""
    width, filters, stride = branch.width, branch.filters, branch.stride
    everything = branch.window is None
    window = 1 if branch.window is None else branch.window
    average, relu, gather = int(branch.pooling == "average"), int(branch.relu), int(everything)
    half, row_bytes = int(is_half), (2 if is_half else 4) * width * filters

    @njit(cache=True, nogil=True)
    def run(
        ids: Any,
        begins: Any,
        lengths: Any,
        table: Any,
        bias: Any,
        padding: Any,
        weights: Any,
        tail: Any,
        shape: Any,
        sums: Any,
    ) -> None:
        windows, pools = shape[0], shape[1]
        first = table.ctypes.data
        words = np.empty(windows + width + window, np.int64)
        features = np.zeros(pools * filters + LANES, np.float32)
        lanes = np.zeros((units, LANES), np.float32)
        words_at, features_at, lanes_at = words.ctypes.data, features.ctypes.data, lanes.ctypes.data
        bias_at, weights_at = bias.ctypes.data, weights.ctypes.data
        for review in range(len(begins)):
            length, begin = lengths[review], begins[review]
            for place in range(length):
                words[place] = first + row_bytes * ids[begin + place]
            for place in range(length, min(length + width + window, len(words))):
                words[place] = first
            # Windows from here on see padding only.
            seen = min(length, windows)
            if everything:
                features[:filters] = 0 if average else -np.inf
                for place in range(seen):
                    pool(
                        words_at + 8 * place, bias_at, features_at, width, filters, window, average, relu, gather, half
                    )
                if average:
                    for unit in range(filters):
                        features[unit] = (features[unit] + (windows - seen) * padding[unit]) / windows
                elif seen < windows:
                    for unit in range(filters):
                        features[unit] = max(features[unit], padding[unit])
                count = filters
            else:
                reached = min(-(-seen // stride), pools)
                for place in range(reached):
                    first_word, target = words_at + 8 * stride * place, features_at + 4 * filters * place
                    pool(first_word, bias_at, target, width, filters, window, average, relu, gather, half)
                count = reached * filters
                if average:
                    for unit in range(count):
                        features[unit] /= window
                for unit in range(units):
                    sums[review, unit] += tail[reached, unit]
            for unit in range(count, count + LANES):
                features[unit] = 0
            lanes[:] = 0
            dense(features_at, -(-count // LANES), weights_at, lanes_at, units)
            for unit in range(units):
                total = np.float32(0)
                for lane in range(LANES):
                    total += lanes[unit, lane]
                sums[review, unit] += total

    return run


@njit(cache=True, nogil=True)
def _layer(values: Floats, weights: Floats, bias: Floats) -> Floats:
    """A dense layer review by review: a matrix product's rows may depend on how many there are."""
    result = np.empty((len(values), weights.shape[1]), np.float32)
    for row in range(len(values)):
        for unit in range(weights.shape[1]):
            total = bias[unit]
            for place in range(weights.shape[0]):
                total += values[row, place] * weights[place, unit]
            result[row, unit] = total
    return result


def _activate(values: Floats, activation: Activation, epsilon: float) -> Floats:
    if activation == "relu":
        return np.maximum(values, np.float32(0))
    if activation == "tanh":
        return np.tanh(values)
    if activation == "sigmoid":
        # Both branches of the sigmoid are computed, each where it does not overflow.
        shrunk = np.exp(-np.abs(values))
        return np.where(values >= 0, 1 / (1 + shrunk), shrunk / (1 + shrunk)).astype(np.float32)
    if activation == "softmax":
        raised = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)
    if activation == "normalize":
        centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + epsilon), np.float32)
    return values
