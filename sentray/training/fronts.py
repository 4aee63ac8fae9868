"""What a network does between its word vectors and its first dense layer, as it is computed in training.

A front packs reviews for itself and turns their word vectors into the first dense layer's sums. It equals the Keras
layers it stands for on reviews padded to the network's length, and computes no padding that it can know beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from sentray.training.batches import Packed, Reviews, Size, Window, exact, pack_bags, pack_padded, pack_windows


@dataclass(frozen=True)
class Computing:
    """How a step is computed, which changes its cost and not what it computes.

    Attributes:
        multiply: Matrix product of two float32 matrices, with the arguments of `tf.matmul`.
        size: Rounds sizes that differ from batch to batch up.
    """

    multiply: Callable[..., Any] = tf.matmul
    size: Size = exact


PLAIN = Computing()


class Front(Protocol):
    """The layers behind the embedding up to the first dense one.

    Attributes:
        layers: How many Keras layers it stands for.
        zero_padding: Whether the padding's vector is 0 and stays so.
    """

    layers: int
    zero_padding: bool

    def pack(self, reviews: Reviews, rows: int) -> Packed:
        """Lay reviews out, for an embedding of so many rows."""
        ...

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """The first dense layer before its activation, for each review.

        Args:
            vectors: float32 [distinct words, dimensions], of the words of a `Packed`.
            ids: its ids.
            cells: its cells.
            weights: What of the network's weights comes first: the front's own, if any, then the dense layer's kernel
                and bias; they are taken out of the list.

        Returns:
            float32 [reviews, units].
        """
        ...


def front_of(layers: list[Any], computing: Computing = PLAIN) -> Front:
    """The front of a network, from all its layers.

    Raises:
        ValueError: There is none, or it does not stand between an embedding and dense layers.
    """
    kinds = [type(layer).__name__ for layer in layers]
    front: Front | None = None
    if kinds[1:4] == ["Conv1D", "MaxPooling1D", "Flatten"]:
        front = Windows(computing, *layers[1:4])
    elif kinds[1:3] == ["GlobalAveragePooling1D", "LayerNormalization"]:
        front = Average(computing, *layers[1:3])
    elif kinds[1:2] == ["Flatten"]:
        front = Flat(computing, layers[1])
    if front is None or kinds[0] != "Embedding" or set(kinds[1 + front.layers :]) != {"Dense"}:
        raise ValueError(f"cannot train a network of the layers {kinds}")
    return front


class Windows:
    """Conv1D, MaxPooling1D, Flatten."""

    layers = 3
    zero_padding = False

    def __init__(self, computing: Computing, convolution: Any, pooling: Any, flatten: Any) -> None:
        self._computing = computing
        self._filters: int = convolution.filters
        self._activation = convolution.activation
        cells = flatten.output.shape[1] // self._filters
        self.window = Window(convolution.kernel_size[0], pooling.pool_size[0], cells)

    def pack(self, reviews: Reviews, rows: int) -> Packed:
        """See `Front`."""
        return pack_windows(reviews, self.window, rows, self._computing.size)

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """See `Front`."""
        pool, filters = self.window.pool, self._filters
        kernel, bias, dense, dense_bias = (weights.pop(0) for _ in range(4))
        outputs = self._activation(self._products(vectors, kernel, ids) + bias)
        pooled = tf.reduce_max(tf.reshape(outputs, (-1, pool, filters)), 1)
        reviews, own = tf.shape(cells)[0], tf.shape(cells)[1]
        hidden = tf.reshape(tf.gather(pooled, cells), (reviews, own * filters))
        padding = tf.reduce_sum(tf.reshape(dense[own * filters :], (-1, filters, dense.shape[1])), 0)
        multiply = self._computing.multiply
        return multiply(hidden, dense[: own * filters]) + multiply(pooled[:1], padding) + dense_bias

    def _products(self, vectors: Any, kernel: Any, ids: Any) -> Any:
        """The convolution's sums for every position from which its pooled cell is whole."""
        offsets, dimensions, filters = kernel.shape
        outputs = tf.shape(ids)[0] - offsets + 1
        outputs -= outputs % self.window.pool
        places = [ids[offset : offset + outputs] for offset in range(offsets)]
        multiply = self._computing.multiply

        # One core, 32 and 256 reviews: tf.nn.conv1d over all positions took 25 and 260 ms; this with TensorFlow's own
        # gradient, a small product an offset, 17 and 108 ms; with the gradient's products joined 15.6 and 110 ms.
        @tf.custom_gradient
        def products(vectors: Any, kernel: Any) -> tuple[Any, Any]:
            def gradient(of_sums: Any) -> tuple[Any, Any]:
                words = tf.shape(vectors)[0]
                of_products = tf.concat([tf.math.unsorted_segment_sum(of_sums, place, words) for place in places], 1)
                joined = tf.reshape(tf.transpose(kernel, (1, 0, 2)), (dimensions, offsets * filters))
                of_kernel = tf.reshape(multiply(vectors, of_products, transpose_a=True), (dimensions, offsets, filters))
                return multiply(of_products, joined, transpose_b=True), tf.transpose(of_kernel, (1, 0, 2))

            sums = tf.add_n(
                [tf.gather(multiply(vectors, kernel[offset]), place) for offset, place in enumerate(places)]
            )
            return sums, gradient

        return products(vectors, kernel)


class Average:
    """GlobalAveragePooling1D over vectors of which the padding's is 0, and LayerNormalization without weights."""

    layers = 2
    zero_padding = True

    def __init__(self, computing: Computing, pooling: Any, normalization: Any) -> None:
        if normalization.weights or normalization.axis not in (-1, [-1], [1]):
            raise ValueError(f"cannot train {normalization.name} with weights of its own")
        self._length: int = pooling.input.shape[1]
        self._epsilon: float = normalization.epsilon
        self._computing = computing

    def pack(self, reviews: Reviews, rows: int) -> Packed:
        """See `Front`."""
        return pack_bags(reviews, rows, self._computing.size)

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """See `Front`."""
        reviews = tf.shape(cells)[0]
        # Behind the last review's words follows, where there is any, what no review owns.
        owners = tf.searchsorted(tf.cumsum(cells[:, 0]), tf.range(tf.shape(ids)[0]), "right")
        sums = tf.math.unsorted_segment_sum(tf.gather(vectors, ids), owners, reviews + 1)[:reviews]
        means = sums / self._length
        centred = means - tf.reduce_mean(means, 1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, 1, keepdims=True)
        normalized = centred * tf.math.rsqrt(variance + self._epsilon)
        return self._computing.multiply(normalized, weights.pop(0)) + weights.pop(0)


class Flat:
    """Flatten."""

    layers = 1
    zero_padding = False

    def __init__(self, computing: Computing, flatten: Any) -> None:
        self._length: int = flatten.input.shape[1]
        self._computing = computing

    def pack(self, reviews: Reviews, rows: int) -> Packed:
        """See `Front`."""
        return pack_padded(reviews, self._length, rows, self._computing.size)

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """See `Front`."""
        hidden = tf.reshape(tf.gather(vectors, ids), (tf.shape(cells)[0], self._length * vectors.shape[1]))
        return self._computing.multiply(hidden, weights.pop(0)) + weights.pop(0)
