"""Encoders: layers of a Keras network that make features of a review's words, computed faster than by Keras's own code.

`found_in` finds those in a network whose computation is known here. A layer's product with the vectors is taken once
for each distinct word of a batch, since a word occurs in it many times over; of the padding behind a review only what
differs is computed; and what is done word by word is compiled. Features and gradients are those of Keras, but that of
windows with the same sum the first gets the whole gradient, where Keras splits it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import activations, layers
from numpy.typing import NDArray

from sentray.models import IDS
from sentray.text.simd import contracted

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]

_RISING = (activations.relu, activations.linear, activations.sigmoid, activations.tanh)
"""Activations that never fall: the largest of their values is their value of the largest."""

Encode = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Encoder:
    """What stands between an embedding and some features of a review.

    Attributes:
        embedding: The Keras layer of the words' vectors.
        output: The Keras tensor of the features, [reviews, features].
        encode: The features, from the vectors of distinct words, float32 [words, dimensions], each position's index
            among them, int32 [reviews, positions], and the words of each review, int32 [reviews].
    """

    embedding: Any
    output: Any
    encode: Encode


def found_in(model: Any) -> list[Encoder]:
    """The encoders of a network: layers over its embedding that compute in float32 and add nothing to the loss.

    They are a convolution of which each filter's largest output counts (Conv1D and GlobalMaxPooling1D), and an LSTM
    from either end or both (Hochreiter and Schmidhuber 1997) whose last state counts, with or without a mask.
    """
    graph, encoders = getattr(model, "_functional", model), []
    ids = next((each for each in graph.inputs if each.name == IDS), None)
    for node in (each for nodes in graph._nodes_by_depth.values() for each in nodes):
        if (found := _largest_windows(node) or _last_states(node)) is not None:
            below, encode = found
            layer = below.operation
            if type(layer) is layers.Embedding and _is(layer) and below.input_tensors[0] is ids:
                encoders.append(Encoder(layer, node.output_tensors[0], encode))
    return encoders


def features(encoders: Sequence[Encoder], ids: Any) -> list[Any]:
    """The features of reviews by each encoder, float32 [reviews, features].

    Args:
        encoders: Of one network.
        ids: int32 [reviews, positions], 0 behind each review.
    """
    words, index = tf.unique(tf.reshape(ids, [-1]))
    about = tf.reshape(index, tf.shape(ids)), tf.math.count_nonzero(ids, 1, dtype=tf.int32)
    readers = Counter(each.embedding.name for each in encoders)
    tables = {each.embedding.name: each.embedding.embeddings.value for each in encoders}
    copies = {name: iter(_copies(tf.gather(table, words), readers[name])) for name, table in tables.items()}
    return [each.encode(next(copies[each.embedding.name]), *about) for each in encoders]


def _copies(values: Any, count: int) -> list[Any]:
    """Values for several readers, whose gradients are added up in the readers' order: TensorFlow's own order varies."""

    @tf.custom_gradient
    def compute(values: Any) -> tuple[list[Any], Any]:
        return [tf.identity(values) for _ in range(count)], lambda *gradients: reduce(tf.add, gradients)

    return list(compute(values))


def _largest_windows(node: Any) -> tuple[Any, Encode] | None:
    """The node of Keras's graph that a convolution under its largest outputs reads, and how it encodes."""
    pooling, below = node.operation, _before(node)
    if type(pooling) is not layers.GlobalMaxPooling1D or below is None or (embedded := _before(below)) is None:
        return None
    layer: Any = below.operation
    if type(layer) is not layers.Conv1D or layer.activation not in _RISING:
        return None
    plain = {"strides": (1,), "padding": "valid", "dilation_rate": (1,), "groups": 1, "data_format": "channels_last"}
    if not _is(layer, **plain) or not _is(pooling, data_format="channels_last", keepdims=False):
        return None
    # Keras refuses reviews without a whole window, which a network of any length may get.
    if (below.input_tensors[0].shape[1] or 0) < layer.kernel_size[0]:
        return None

    def encode(vectors: Any, index: Any, lengths: Any) -> Any:
        largest = _largest(vectors, tf.transpose(layer.kernel, (0, 2, 1)), index, lengths)
        return layer.activation(largest + layer.bias if layer.use_bias else largest)

    return embedded, encode


def _last_states(node: Any) -> tuple[Any, Encode] | None:
    """The node of Keras's graph that an LSTM from either end or both reads, and how it encodes."""
    layer: Any = node.operation
    both = type(layer) is layers.Bidirectional and layer.merge_mode == "concat"
    directions = [layer.forward_layer, layer.backward_layer] if both else [layer]
    if any(type(each) is not layers.LSTM for each in directions) or (embedded := _before(node)) is None:
        return None
    plain = {"dropout": 0, "recurrent_dropout": 0, "return_sequences": False, "return_state": False, "stateful": False}
    if not _is(layer) or not all(_is(each, **plain) for each in directions):
        return None
    gates = [(each.cell.activation, each.cell.recurrent_activation) for each in directions]
    if any(each != (activations.tanh, activations.sigmoid) for each in gates):
        return None

    def encode(vectors: Any, index: Any, lengths: Any) -> Any:
        if not embedded.operation.mask_zero:
            lengths = tf.fill(tf.shape(lengths), tf.shape(index)[1])
        states = []
        for each in directions:
            products = tf.matmul(vectors, each.cell.kernel)
            products = products + each.cell.bias if each.use_bias else products
            states.append(_last_state(products, each.cell.recurrent_kernel.value, index, lengths, each.go_backwards))
        return tf.concat(states, 1)

    return embedded, encode


def _before(node: Any) -> Any:
    """The node that a node of Keras's graph reads, with that one's mask or none; None where it is given more."""
    given = keras.tree.flatten([node.arguments.args, node.arguments.kwargs])
    values, *others = [each for each in given if each is not None and not isinstance(each, bool)] or [None]
    if not isinstance(values, keras.KerasTensor):
        return None
    if any(each is not getattr(values, "_keras_mask", None) for each in others):
        return None
    operation, number, _ = values._keras_history
    return operation._inbound_nodes[number]


def _is(layer: Any, **settings: Any) -> bool:
    """Whether a layer computes in float32, adds nothing to the loss, and has these settings."""
    config = layer.get_config()
    settings |= {name: None for name in config if name.endswith("regularizer") or name == "lora_rank"}
    return layer.compute_dtype == "float32" and all(config[name] == value for name, value in settings.items())


def _largest(vectors: Any, kernel: Any, index: Any, lengths: Any) -> Any:
    """The largest sum of each filter over a review's windows, float32 [reviews, filters].

    Args:
        vectors: Of distinct words, float32 [words, dimensions].
        kernel: float32 [width, filters, dimensions].
        index: int32 [reviews, positions], rows of `vectors`.
        lengths: int32 [reviews], positions before the padding.
    """
    width, filters, dimensions = kernel.shape

    def forward(products: Floats, index: Ids, lengths: Ids) -> tuple[Floats, Ids]:
        largest, winners = np.empty((len(index), filters), np.float32), np.empty((len(index), filters), np.int32)
        _find_largest(products.reshape(-1, width, filters), index, lengths, largest, winners)
        return largest, winners

    def backward(of_largest: Floats, index: Ids, winners: Ids, *factors: Floats) -> list[Floats]:
        sums = [np.zeros_like(each) for each in factors]
        _of_largest(of_largest, index, winners, *factors, *sums)
        return sums

    @tf.custom_gradient
    def compute(vectors: Any, kernel: Any) -> tuple[Any, Any]:
        products = tf.matmul(vectors, tf.reshape(kernel, (width * filters, dimensions)), transpose_b=True)
        largest, winners = tf.numpy_function(forward, [products, index, lengths], [tf.float32, tf.int32])

        def gradient(of_largest: Any) -> list[Any]:
            arguments = [of_largest, index, winners, vectors, kernel]
            found = tf.numpy_function(backward, arguments, [tf.float32] * 2)
            return [tf.ensure_shape(each, of.shape) for each, of in zip(found, (vectors, kernel), strict=True)]

        return tf.ensure_shape(largest, (index.shape[0], filters)), gradient

    return compute(vectors, kernel)


def _last_state(products: Any, recurrent: Any, index: Any, lengths: Any, backwards: bool) -> Any:
    """The last state of an LSTM that reads reviews, float32 [reviews, units].

    Args:
        products: Of distinct words with its kernel, and its bias, float32 [words, 4 * units]; the gates of input,
            forgetting, values and output one after the other.
        recurrent: Its recurrent kernel, float32 [units, 4 * units].
        index: int32 [reviews, positions], rows of `products`.
        lengths: int32 [reviews], positions to be read.
        backwards: Whether it reads from the last of them to the first.
    """

    @tf.custom_gradient
    def compute(products: Any, recurrent: Any) -> tuple[Any, Any]:
        read = [products, recurrent, index, lengths]
        last, *kept = tf.numpy_function(partial(_alone, _read, backwards), read, [tf.float32] * 5)

        def gradient(of_last: Any) -> list[Any]:
            arguments = [of_last, *kept, recurrent, index, lengths, tf.shape(products)[0]]
            found = tf.numpy_function(partial(_alone, _unread, backwards), arguments, [tf.float32] * 2)
            return [tf.ensure_shape(each, of.shape) for each, of in zip(found, (products, recurrent), strict=True)]

        return tf.ensure_shape(last, (index.shape[0], recurrent.shape[0])), gradient

    return compute(products, recurrent)


class _Turns:
    """The order in which positions are read: the first of each review, then the second of all that have one, and so on.

    Attributes:
        order: Reviews by length, the longest first, int64 [reviews].
        rows: Rows of `products`, int32 [read positions].
        parts: Where each turn begins and ends among them; its reviews are the first of `order`.
    """

    def __init__(self, index: Ids, lengths: Ids, backwards: bool) -> None:
        self.order = np.argsort(-lengths, kind="stable")
        falling = lengths[self.order]
        turns = np.arange(falling.max(initial=0))
        reading = np.searchsorted(-falling, -turns, "left")
        ends = np.cumsum(reading)
        turn = np.repeat(turns, reading)
        review = np.arange(len(turn)) - np.repeat(ends - reading, reading)
        at = falling[review] - 1 - turn if backwards else turn
        self.rows: Ids = index[self.order[review], at]
        self.parts = list(zip((ends - reading).tolist(), ends.tolist(), strict=True))


_LOCK = threading.Lock()


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function with none of these beside it: between NumPy's short calls they would fight for Python's lock."""
    with _LOCK:
        return function(*arguments)


def _read(backwards: bool, products: Floats, recurrent: Floats, index: Ids, lengths: Ids) -> tuple[Floats, ...]:
    """The last states, and in the order of `_Turns` gates, cells, their tanh, and the states before.

    A gate is kept as tanh(z / 2), of which its sigmoid is half plus a half; that of the values as tanh(z).
    """
    turns, units = _Turns(index, lengths, backwards), len(recurrent)
    halves = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), units)
    gates, recurrent = (products * halves)[turns.rows], recurrent * halves
    cells, shown, states = np.empty((3, len(gates), units), np.float32)
    state, cell = np.zeros((2, len(index), units), np.float32)
    by_gate = gates.reshape(-1, 4, units)
    for begin, end in turns.parts:
        own = gates[begin:end]
        states[begin:end] = state[: end - begin]
        own += states[begin:end] @ recurrent
        np.tanh(own, out=own)
        _next_cells(by_gate[begin:end], cell, cells[begin:end])
        np.tanh(cells[begin:end], out=shown[begin:end])
        state[: end - begin] = shown[begin:end]
        _show(by_gate[begin:end], state)
        cell = cells[begin:end]
    last = np.empty_like(state)
    last[turns.order] = state
    return last, gates, cells, shown, states


def _unread(
    backwards: bool,
    of_last: Floats,
    gates: Floats,
    cells: Floats,
    shown: Floats,
    states: Floats,
    recurrent: Floats,
    index: Ids,
    lengths: Ids,
    words: Any,
) -> tuple[Floats, Floats]:
    """The gradients of products and recurrent kernel from those of the last states; what `_read` gave is known."""
    turns, units = _Turns(index, lengths, backwards), len(recurrent)
    of_gates, transposed = np.empty_like(gates), np.ascontiguousarray(recurrent.T)
    of_state, of_cell = of_last[turns.order], np.zeros_like(of_last)
    by_gate, of_each = gates.reshape(-1, 4, units), of_gates.reshape(-1, 4, units)
    before = [np.zeros_like(of_last), *(cells[begin:end] for begin, end in turns.parts[:-1])]
    for (begin, end), cell in reversed(list(zip(turns.parts, before, strict=False))):
        own = slice(begin, end)
        _of_gates(by_gate[own], cell, shown[own], of_state, of_cell, of_each[own])
        np.matmul(of_gates[own], transposed, out=of_state[: end - begin])
    of_products = np.zeros((int(words), gates.shape[1]), np.float32)
    _add_rows(turns.rows, of_gates, of_products)
    return of_products, states.T @ of_gates


_1, _HALF = np.float32(1), np.float32(0.5)


@contracted
def _find_largest(products: Floats, index: Ids, lengths: Ids, largest: Floats, winners: Ids) -> None:
    """Find each filter's largest sum over a review's windows, and where the first window that has it begins.

    Behind the words are windows of padding alone, which are all alike: one of them counts for all.

    Args:
        products: float32 [words, width, filters], of each word at each position of a window.
        index: See `_largest`.
        lengths: Likewise.
        largest: float32 [reviews, filters], written.
        winners: int32 [reviews, filters], written.
    """
    width, filters = products.shape[1:]
    sums, best, winner = np.empty(filters, np.float32), np.empty(filters, np.float32), np.empty(filters, np.int32)
    for review in range(len(index)):
        best[:], winner[:] = -np.inf, 0
        for first in range(min(lengths[review] + 1, index.shape[1] - width + 1)):
            sums[:] = 0
            for offset in range(width - 1):
                row = index[review, first + offset]
                for unit in range(filters):
                    sums[unit] += products[row, offset, unit]
            row = index[review, first + width - 1]
            for unit in range(filters):
                value = sums[unit] + products[row, width - 1, unit]
                # A sum that is no number is kept as well.
                if not value <= best[unit]:
                    best[unit], winner[unit] = value, np.int32(first)
        largest[review], winners[review] = best, winner


@contracted
def _of_largest(
    of_largest: Floats,
    index: Ids,
    winners: Ids,
    vectors: Floats,
    kernel: Floats,
    of_vectors: Floats,
    of_kernel: Floats,
) -> None:
    """Add the gradients of the largest sums to those of their words' vectors and of the kernel."""
    width, filters, dimensions = kernel.shape
    for review in range(len(index)):
        for unit in range(filters):
            gradient = of_largest[review, unit]
            if gradient == 0:
                continue
            for offset in range(width):
                row = index[review, winners[review, unit] + offset]
                for number in range(dimensions):
                    of_vectors[row, number] += gradient * kernel[offset, unit, number]
                for number in range(dimensions):
                    of_kernel[offset, unit, number] += gradient * vectors[row, number]


@contracted
def _next_cells(gates: Floats, before: Floats, cells: Floats) -> None:
    """The cells after a position, [reviews, units], from those before it."""
    for row in range(len(gates)):
        for unit in range(cells.shape[1]):
            taken, kept = _HALF * gates[row, 0, unit] + _HALF, _HALF * gates[row, 1, unit] + _HALF
            cells[row, unit] = kept * before[row, unit] + taken * gates[row, 2, unit]


@contracted
def _show(gates: Floats, states: Floats) -> None:
    """Multiply states with the output gates."""
    for row in range(len(gates)):
        for unit in range(states.shape[1]):
            states[row, unit] *= _HALF * gates[row, 3, unit] + _HALF


@contracted
def _of_gates(
    gates: Floats, before: Floats, shown: Floats, of_state: Floats, of_cell: Floats, of_gates: Floats
) -> None:
    """The gradients of a position's gates before their activations; that of the cells becomes the one before's.

    Each loop has few arrays, so that LLVM can tell that they do not overlap, and computes many units at once.
    """
    units = shown.shape[1]
    for row in range(len(gates)):
        for unit in range(units):
            opened, seen = _HALF * gates[row, 3, unit] + _HALF, shown[row, unit]
            of_cell[row, unit] += of_state[row, unit] * opened * (_1 - seen * seen)
        for unit in range(units):
            opened = _HALF * gates[row, 3, unit] + _HALF
            of_gates[row, 3, unit] = of_state[row, unit] * shown[row, unit] * opened * (_1 - opened)
        for unit in range(units):
            taken, value = _HALF * gates[row, 0, unit] + _HALF, gates[row, 2, unit]
            of_gates[row, 0, unit] = of_cell[row, unit] * value * taken * (_1 - taken)
        for unit in range(units):
            taken, value = _HALF * gates[row, 0, unit] + _HALF, gates[row, 2, unit]
            of_gates[row, 2, unit] = of_cell[row, unit] * taken * (_1 - value * value)
        for unit in range(units):
            kept = _HALF * gates[row, 1, unit] + _HALF
            of_gates[row, 1, unit] = of_cell[row, unit] * before[row, unit] * kept * (_1 - kept)
        for unit in range(units):
            of_cell[row, unit] *= _HALF * gates[row, 1, unit] + _HALF


@contracted
def _add_rows(rows: Ids, values: Floats, sums: Floats) -> None:
    """Add each row of the values to that row of the sums."""
    for number in range(len(rows)):
        for column in range(values.shape[1]):
            sums[rows[number], column] += values[number, column]
