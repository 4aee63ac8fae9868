"""`FoldedEngine`: the network on the CPU with its convolution folded into the embedding, without TensorFlow.

A convolution over embedded words is a sum of one term a word and offset, `P[w, k] = E[w] @ W[k]`: 51,200
multiplications a position of the tutorial's network become 256 additions. The bundle keeps E and W, a third of the size
of P, and each process multiplies them in a tenth of a second. Behind a review's last word every window sees padding
only; what those windows add to the first dense layer is summed beforehand for every length. Word vectors that are
pooled or laid side by side without a convolution are windows of one word with the unit matrix as their kernel.

Microseconds a review of 320 known words took with the tutorial's network, on a core with AVX-512 and 2 MB of cache of
its own, and what else was tried:

- 11.6 as it is, 2.7 of them in the dense layer. A window's sums stay in registers; a word's row is read once for each
  of its offsets, and the processor looks ahead by itself, since no address depends on a result.
- 9.1 with the table in 16-bit floats, since most of the time goes into waiting for rows that are in no near cache; but
  that is a tenth of a whole job, and scores of the polarity corpus moved by up to 0.00014.
- 14.0 with the rows of the next windows fetched ahead by instructions.
- 87 in the first prototype, with Numba's own loops over arrays.

Other networks, likewise: 28 with 128 filters of 5 words, 18 of them spent waiting for the words' 2.5 kB each; 7 with
vectors of 100 numbers laid side by side before one unit; 7 with their mean, normalized.

The compiled loops go by addresses: a shape that does not fit would read memory that is not the network's, and a large
number in the files would ask for any memory or time to compile. So `load` settles all of that first. An engine does not
change once it is made and a call has buffers of its own, so threads and forks may share it.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from sentray.bundle import FOLDED, FOLDED_WEIGHTS, GRAMS, Bundle, ModelSpec
from sentray.errors import SentrayError
from sentray.inference.halves import add_lanes, add_mean, add_sums, add_wide, in_blocks, laid_out
from sentray.inference.simd import BLOCK, LANES, dense, pool
from sentray.task import outputs, probabilities
from sentray.text.encoding import Encoded, cut_from
from sentray.text.ngrams import Grams
from sentray.text.simd import address, compiled

Floats = NDArray[np.float32]
Activation = Literal["linear", "relu", "tanh", "sigmoid", "softmax", "normalize"]
"""What follows a dense layer; `normalize` brings a review's values to mean 0 and variance 1 (Ba et al. 2016)."""
Pooling = Literal["max", "average"]

MAX_BYTES = 2 << 30
"""Of the tables, which every scoring process holds; a million words with the tutorial's network take half."""
MAX_TERMS = 4096
"""Vectors that are added for an output of a pooling: the compiled code names each of them."""
MAX_UNITS = 1024
"""Units of the first dense layer, for the same reason."""
MAX_PARTS = 64
"""Branches, and dense layers."""
MAX_WIDTH = 4096
"""Words of a window of `Sums`."""
GROUP = 8192
"""Reviews that are gone through with one block of a table after the other: what they share stays in the cache."""
_FOLD_ROWS = 4096
_NPY = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")


@dataclass(frozen=True)
class Branch:
    """A convolution over the words and the pooling of its windows.

    Attributes:
        width: words of a window.
        filters: outputs of a window.
        relu: whether outputs of a window below 0 become 0.
        pooling: what pooling does.
        window: windows that are pooled to one; None pools all of them.
        stride: windows from one pooling to the next.
    """

    width: int
    filters: int
    relu: bool
    pooling: Pooling
    window: int | None
    stride: int

    def windows(self, length: int) -> int:
        """Windows of a review of so many words."""
        return length - self.width + 1

    def pools(self, length: int) -> int:
        """Outputs of the pooling, each of `filters` numbers."""
        return 1 if self.window is None else (self.windows(length) - self.window) // self.stride + 1

    @property
    def terms(self) -> int:
        """Vectors that are added for an output of the pooling."""
        return self.width * (self.window or 1) * -(-self.filters // LANES)


@dataclass(frozen=True)
class Sums:
    """Sums of the words of a window times one kernel, rectified, and the largest of all windows.

    Windows reach over both ends of a text, where nothing is; those without any word count as 0.

    Attributes:
        width: words of a window.
        filters: outputs of a window.
    """

    width: int
    filters: int


@dataclass(frozen=True)
class Mean:
    """The mean of a review's word vectors, brought to mean 0 and variance 1 (Ba et al. 2016).

    Attributes:
        epsilon: what is added to the variance.
    """

    epsilon: float


@dataclass(frozen=True)
class Wide:
    """The sum of the rows of a review's grams, each times the gram's value.

    Attributes:
        columns: numbers of a row.
    """

    columns: int


Part = Sums | Mean | Wide


@dataclass(frozen=True)
class Network:
    """A network as this engine computes it: embedding, parallel branches laid side by side, dense layers.

    Attributes:
        length: words a review is padded or cut to; None where padding changes no score.
        branches: in the order of their outputs; of a network with a length each is a `Branch`, else none is.
        activations: of the dense layers.
        epsilon: what `normalize` adds to the variance.
        numbers: how many a review has besides its text; they meet the last dense layer.
    """

    length: int | None
    branches: tuple[Branch | Part, ...]
    activations: tuple[Activation, ...]
    epsilon: float = 0.0
    numbers: int = 0


_NETWORK = TypeAdapter(Network)

Description = tuple[Network, Mapping[str, Floats]]
"""A network and its weights, as `pack` takes them."""

Key = tuple[tuple[int, ...], bytes]


def key(kernel: Floats) -> Key:
    """By what branches share a table: those whose kernels are the same, float32 [width, dimensions, filters]."""
    return kernel.shape, kernel.tobytes()


def require_tables(words: int, kernels: Iterable[Floats], blocks: int = 0) -> None:
    """Refuse what would take more memory than `MAX_BYTES`.

    Args:
        words: rows of the embedding.
        kernels: of the branches that may share a table.
        blocks: of a word in the tables of other branches; see `in_blocks`.

    Raises:
        ValueError: saying how much.
    """
    size = sum(4 * words * width * filters for (width, _, filters), _ in {key(kernel) for kernel in kernels})
    size += 4 * words * BLOCK * blocks
    if size > MAX_BYTES:
        raise ValueError(f"its tables would take {size / 2**30:.1f} GB of memory")


def pack(network: Network, weights: Mapping[str, Floats]) -> dict[str, bytes]:
    """The files of a bundle from which `FoldedEngine` computes.

    Args:
        network: the whole network.
        weights: `embedding` [words, dimensions], where a branch has words; of each `Branch` `kernel0`
            [width, dimensions, filters] and `bias0` [filters], of `Sums` `kernel0` [dimensions, filters] and of `Wide`
            [rows, columns], `kernel1`, …; for each dense layer `weights0` [inputs, units] and `units0` [units], …;
            where there are numbers, those of the last layer for them, `numbers` [numbers, units].
    """
    arrays = io.BytesIO()
    np.savez(arrays, **{name: np.asarray(value, np.float32, "C") for name, value in weights.items()})  # type: ignore[arg-type]
    return {FOLDED: (json.dumps(asdict(network), indent=1) + "\n").encode(), FOLDED_WEIGHTS: arrays.getvalue()}


def load(bundle: Bundle) -> tuple[Network, dict[str, Floats]]:
    """The network and its weights, as `pack` takes them: every shape fits, and every size is one that can be served.

    Raises:
        SentrayError: the bundle has no such files, they are damaged, or they do not fit it.
    """
    words, length, labels = bundle.vocabulary.size, bundle.spec.max_length, len(bundle.labels)
    grams = 1 + len(bundle.files[GRAMS]) // 8 if GRAMS in bundle.files else 0
    try:
        network = _NETWORK.validate_json(bundle.files[FOLDED], strict=True)
        _require(network.length in (None, length), f"it takes {network.length} words, the bundle {length}")
        with zipfile.ZipFile(io.BytesIO(bundle.files[FOLDED_WEIGHTS])) as archive:
            weights = checked(network, lambda name: _array(archive, name))
        rows, scores = len(weights.get("embedding", range(words))), len(weights[f"units{len(network.activations) - 1}"])
        _require(rows == words, f"it knows {rows:,} words, the bundle {words:,}")
        for number, branch in enumerate(network.branches):
            if isinstance(branch, Wide):
                rows = len(weights[f"kernel{number}"])
                _require(rows == grams, f"it knows {rows:,} n-grams, the bundle {grams:,}")
        # Two classes may have a softmax, too.
        fit = scores in (outputs(bundle.spec.task, labels), labels if bundle.spec.task == "classification" else 0)
        _require(fit, f"it gives {scores:,} scores for {labels:,} labels of the task {bundle.spec.task}")
        takes = len(bundle.spec.numeric)
        _require(network.numbers == takes, f"it takes {network.numbers:,} numbers, the bundle {takes:,}")
    # zipfile and NumPy let through whatever a damaged file makes them raise.
    except Exception as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SentrayError(
            f"the folded network in {bundle} is damaged or does not fit it ({reason}): train it again, or score with "
            "--engine keras"
        ) from error
    return network, weights


def checked(network: Network, read: Callable[[str], Floats]) -> dict[str, Floats]:
    """The weights of a network that this engine can compute, each of the shape that the others ask for.

    Args:
        network: the whole network.
        read: gives the array of a name; see `pack`.

    Raises:
        ValueError: it has numbers that no network has, or that would take all memory or hours to compile.
    """
    weights: dict[str, Floats] = {}

    def take(name: str, *wanted: int | None) -> tuple[int, ...]:
        """Read an array; its shape, of which None may be any length."""
        shape = (values := read(name)).shape
        fits = len(shape) == len(wanted) and all(w in (None, s) and s for s, w in zip(shape, wanted, strict=True))
        _require(fits, f"{name} has the shape {shape}")
        weights[name] = values
        return shape

    for parts in (network.branches, network.activations):
        _require(0 < len(parts) <= MAX_PARTS, f"it has {len(parts)} branches or layers")
    _require(math.isfinite(network.epsilon) and network.epsilon >= 0, f"its epsilon is {network.epsilon}")
    free = network.length is None
    _require(all(isinstance(b, Branch) != free for b in network.branches), "its branches do not go together")
    words, dimensions = 0, 0
    if not all(isinstance(branch, Wide) for branch in network.branches):
        words, dimensions = take("embedding", None, None)
        _require(not free or not weights["embedding"][0].any(), "its padding has a vector")
    units, kernels, blocks = 0, [], 0
    for number, branch in enumerate(network.branches):
        kernel = f"kernel{number}"
        if isinstance(branch, Branch):
            length = network.length or 0
            sizes = (branch.width, branch.filters, branch.stride, branch.window)
            _require(all(size is None or size >= 1 for size in sizes), "a branch has a size of 0")
            _require(branch.windows(length) >= (branch.window or 1), "a branch is wider than a review")
            _require(branch.terms <= MAX_TERMS, f"a branch adds {branch.terms:,} vectors for an output")
            take(kernel, branch.width, dimensions, branch.filters)
            take(f"bias{number}", branch.filters)
            kernels.append(weights[kernel])
            outputs = branch.filters * branch.pools(length)
        elif isinstance(branch, Sums):
            _require(1 <= branch.width <= MAX_WIDTH, f"a window has {branch.width:,} words")
            _, outputs = take(kernel, dimensions, branch.filters)
            blocks += -(-outputs // BLOCK)
        elif isinstance(branch, Mean):
            _require(math.isfinite(branch.epsilon) and branch.epsilon >= 0, f"its epsilon is {branch.epsilon}")
            outputs = dimensions
            blocks += -(-outputs // BLOCK)
        else:
            _, outputs = take(kernel, None, branch.columns)
        units += outputs
    require_tables(words, kernels, blocks)
    for number in range(len(network.activations)):
        _, units = take(f"weights{number}", units, None)
        take(f"units{number}", units)
    if network.numbers:
        take("numbers", network.numbers, units)
    _require(len(weights["units0"]) <= MAX_UNITS, f"its first layer has {len(weights['units0']):,} units")
    return weights


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _array(archive: zipfile.ZipFile, name: str) -> Floats:
    """An array as `numpy.savez` writes it; it is never larger than its part of the file.

    Raises:
        ValueError: it has another type, or holds something that is no finite number.
    """
    info = archive.getinfo(f"{name}.npy")
    _require(info.compress_type == zipfile.ZIP_STORED and info.file_size <= MAX_BYTES, f"{name} is compressed or large")
    with archive.open(info) as stream:
        start = stream.read(10)
        _require(start[:8] == _NPY and len(start) == 10, f"{name} is in another format")
        # Not by NumPy, which parses it as Python: CPython 3.11 cannot do that in several threads at once.
        header = _HEADER.fullmatch(stream.read(int.from_bytes(start[8:], "little")))
        if header is None:
            raise ValueError(f"{name} is no array of 32-bit floats")
        shape = tuple(int(side) for side in header[1].split(b",") if side.strip())
        size = info.file_size - stream.tell()
        _require(4 * math.prod(shape) == size, f"{name} has the shape {shape}")
        values = np.empty(shape, "<f4")
        values.reshape(-1).view(np.uint8)[:] = np.frombuffer(stream.read(size), np.uint8)
    _require(bool(np.isfinite(values).all()), f"{name} holds something that is no number")
    return values


class FoldedEngine:
    """The bundle's network from its `folded` files.

    Args:
        bundle: Bundle to score with.

    Attributes:
        description: The network and its weights, as `pack` takes them.
        grams: The n-grams that the bundle knows; None where the network looks at none.

    Raises:
        SentrayError: The bundle has no such files, or they do not fit it.
    """

    name = "folded"

    def __init__(self, bundle: Bundle) -> None:
        self._make(load(bundle), bundle.grams, bundle.spec)

    @classmethod
    def of(cls, description: Description, grams: Grams | None, spec: ModelSpec) -> Self:
        """An engine of a network that Keras loaded.

        Raises:
            ValueError: The network has another shape or is too large.
        """
        network, weights = description
        checked(network, weights.__getitem__)
        made = cls.__new__(cls)
        made._make(description, grams, spec)
        return made

    def _make(self, description: Description, grams: Grams | None, spec: ModelSpec) -> None:
        self._network, weights = self.description = description
        self.grams, self._task = grams, spec.task
        layers = [(weights[f"weights{n}"], weights[f"units{n}"]) for n in range(len(self._network.activations))]
        self._bias, self._layers, self._numbers = layers[0][1], layers[1:], weights.get("numbers")
        self.branches: list[Folded] = []
        self.free: Free | None = None
        if self._network.length is None:
            self.free = Free(self._network, weights, self.grams)
        else:
            tables: dict[Key, Floats] = {}
            count = len(self._network.branches)
            self.branches = [Folded(self._network, number, weights, tables) for number in range(count)]
        self._length, self._truncating = spec.max_length, spec.truncating

    def scores(self, encoded: Encoded) -> Floats:
        """As `probabilities`; each review on its own."""
        return self.probabilities(self.layers(encoded)[-1])

    def logits(self, encoded: Encoded) -> Floats:
        """What the last layer makes its probabilities of, float32 [reviews, outputs]."""
        return self.layers(encoded)[-1]

    def probabilities(self, logits: Floats) -> Floats:
        """Probability of each label, float32 [reviews, labels]; of a regression the numbers."""
        return probabilities(self._task, _activate(logits, self._network.activations[-1], self._network.epsilon))

    def layers(self, encoded: Encoded, notes: list[Any] | None = None) -> list[Floats]:
        """What the activation of each dense layer is applied to, float32 [reviews, units] each.

        Args:
            encoded: The reviews; `GROUP` at most where there are notes. Without numbers these are as on average.
            notes: Of a network without a length, what each branch returns is added to it; see `halves`.
        """
        found, activations = [self._sums(encoded, notes)], self._network.activations
        for (weights, units), activation in zip(self._layers, activations, strict=False):
            found.append(_layer(_activate(found[-1], activation, self._network.epsilon), weights, units))
        if self._numbers is not None and encoded.numbers is not None:
            found[-1] += _layer(encoded.numbers, self._numbers, np.zeros_like(found[-1][0]))
        return found

    def _sums(self, encoded: Encoded, notes: list[Any] | None) -> Floats:
        begins, lengths = cut_from(encoded, self._length, self._truncating)
        sums = np.tile(self._bias, (len(encoded), 1))
        if self.free:
            self.free.add(encoded.ids, begins, lengths, sums, notes)
        for branch in self.branches:
            branch.add(encoded.ids, begins, lengths, sums)
        return sums


class Free:
    """The branches of a network without a length, and the rows of the first dense layer that their outputs meet.

    Args:
        network: the whole network.
        weights: as in `pack`.
        grams: the n-grams that the bundle knows.

    Attributes:
        tables: of each branch its rows, and the weights that their sums meet, float32 [units, numbers of a row].
    """

    def __init__(self, network: Network, weights: Mapping[str, Floats], grams: Grams | None) -> None:
        self._adders: list[Callable[..., Any]] = []
        self.tables: list[tuple[Part, Floats, Floats]] = []
        first = 0
        for number, branch in enumerate(network.branches):
            assert not isinstance(branch, Branch)
            add: Callable[..., Any]
            if isinstance(branch, Wide):
                assert grams is not None
                table, outputs = weights[f"kernel{number}"], branch.columns
                add = partial(add_wide, grams, table)
            elif isinstance(branch, Sums):
                kernel = weights[f"kernel{number}"][None] / np.float32(branch.width)
                table = in_blocks(_fold(weights["embedding"], kernel))
                add, outputs = partial(add_sums, branch.width, table), branch.filters
            else:
                table, outputs = in_blocks(weights["embedding"]), weights["embedding"].shape[1]
                add = partial(add_mean, outputs, branch.epsilon, table)
            inputs = weights["weights0"][first : first + outputs].T
            first += outputs
            padded = np.zeros((len(inputs), -(-outputs // BLOCK) * BLOCK), np.float32)
            padded[:, :outputs] = inputs
            self._adders.append(partial(add, padded))
            self.tables.append((branch, table, padded))
        self._gap = max(branch.width if isinstance(branch, Sums) else 1 for branch in network.branches)

    def add(
        self,
        ids: NDArray[np.int32],
        begins: NDArray[np.int64],
        lengths: NDArray[np.int64],
        sums: Floats,
        notes: list[Any] | None = None,
    ) -> None:
        """Add the first dense layer's products to `sums`, float32 [reviews, units]; see `FoldedEngine.layers`."""
        for start in range(0, len(sums), GROUP):
            group = slice(start, start + GROUP)
            lanes = np.zeros((*sums[group].shape, LANES), np.float32)
            padded, firsts = laid_out(ids, begins[group], lengths[group], self._gap)
            noted = [add(padded, firsts, lengths[group], lanes, notes is not None) for add in self._adders]
            add_lanes(lanes, sums[group])
            if notes is not None:
                notes += noted


class Folded:
    """One branch with the rows of the first dense layer that its outputs meet.

    Args:
        network: the whole network.
        number: of the branch.
        weights: as in `pack`.
        tables: those of the branches before, by their kernels' shape and bytes; branches that pool the same windows
            share one.
    """

    def __init__(self, network: Network, number: int, weights: Mapping[str, Floats], tables: dict[Key, Floats]) -> None:
        branch, length = network.branches[number], network.length
        assert isinstance(branch, Branch)
        assert length is not None
        kernel, embedding = weights[f"kernel{number}"], weights["embedding"]
        width, _, filters = kernel.shape
        shared = key(kernel)
        if shared not in tables:
            tables[shared] = _fold(embedding, kernel)
        self.table = tables[shared]
        bias = np.ascontiguousarray(weights[f"bias{number}"])
        pools = branch.pools(length)
        others = [other for other in network.branches[:number] if isinstance(other, Branch)]
        before = sum(other.filters * other.pools(length) for other in others)
        rows = weights["weights0"][before : before + pools * filters]
        units = rows.shape[1]
        # A window of padding gives the same whatever stands before it.
        padding = _fold(embedding[:1], kernel).reshape(width, filters).sum(axis=0, dtype=np.float64) + bias
        padding = (np.maximum(padding, 0) if branch.relu else padding).astype(np.float32)
        tail = np.zeros((pools + 1, units), np.float64)
        if branch.window is not None:
            each = rows.reshape(pools, filters, units).astype(np.float64)
            tail[:pools] = np.cumsum(np.tensordot(padding, each, (0, 1))[::-1], axis=0)[::-1]
        self.arrays = (self.table, bias, padding, _in_lanes(rows), tail.astype(np.float32))
        self.sizes = (branch.windows(length), pools)
        self.branch = branch
        self._run = _runner(branch, units)

    def add(self, ids: NDArray[np.int32], begins: NDArray[np.int64], lengths: NDArray[np.int64], sums: Floats) -> None:
        """Add the branch's part of the first dense layer to `sums`, float32 [reviews, units]."""
        self._run(ids, begins, lengths, self.arrays, *self.sizes, sums)


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
def _runner(branch: Branch, units: int) -> Any:
    """The compiled loop over reviews for a branch and so many units of the first dense layer."""
    width, filters, stride = branch.width, branch.filters, branch.stride
    everything = branch.window is None
    window = 1 if branch.window is None else branch.window
    average, relu, gather = int(branch.pooling == "average"), int(branch.relu), int(everything)
    row_bytes = 4 * width * filters

    @compiled
    def run(ids: Any, begins: Any, lengths: Any, arrays: Any, windows: int, pools: int, sums: Any) -> None:
        table, bias, padding, weights, tail = arrays
        first = address(table)
        words = np.empty(windows + width + window, np.int64)
        features = np.zeros(pools * filters + LANES, np.float32)
        lanes = np.zeros((units, LANES), np.float32)
        words_at, features_at, lanes_at = address(words), address(features), address(lanes)
        bias_at, weights_at = address(bias), address(weights)
        for review in range(len(begins)):
            length, begin = lengths[review], begins[review]
            for word in range(length):
                words[word] = first + row_bytes * ids[begin + word]
            for word in range(length, min(length + width + window, len(words))):
                words[word] = first
            # Windows from here on see padding only.
            seen = min(length, windows)
            if everything:
                features[:filters] = 0 if average else -np.inf
                for start in range(seen):
                    pool(words_at + 8 * start, bias_at, features_at, width, filters, window, average, relu, gather)
                if average:
                    for unit in range(filters):
                        features[unit] = (features[unit] + (windows - seen) * padding[unit]) / windows
                elif seen < windows:
                    for unit in range(filters):
                        features[unit] = max(features[unit], padding[unit])
                count = filters
            else:
                reached = min(-(-seen // stride), pools)
                for number in range(reached):
                    first_word, target = words_at + 8 * stride * number, features_at + 4 * filters * number
                    pool(first_word, bias_at, target, width, filters, window, average, relu, gather)
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


@compiled
def _layer(values: Floats, weights: Floats, bias: Floats) -> Floats:
    """A dense layer review by review: a matrix product's rows may depend on how many there are."""
    result = np.empty((len(values), weights.shape[1]), np.float32)
    for row in range(len(values)):
        for unit in range(weights.shape[1]):
            total = bias[unit]
            for value in range(weights.shape[0]):
                total += values[row, value] * weights[value, unit]
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
