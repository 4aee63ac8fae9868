"""The networks of `sentray.models`, trained to the numbers of `network` and sooner; `FAST` says by which class.

Two things make a step cheap, and neither changes its result. A convolution is applied to the distinct words of a batch
and the products are gathered, since a word occurs in a batch many times over. And of the padding behind a review only
what differs is computed: one pooled cell, for all of which the dense layer's weights are summed, or nothing.
"""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sentray.training.batches import Reviews
from sentray.training.gradients import Floats
from sentray.training.network import Network, Packed


class FastNetwork(Network):
    """Trains a network of an embedding, input layers and dense layers; see `Network` for the arguments."""

    from_logits = True
    input_layers: ClassVar[int]
    """Layers between the embedding and the first dense one, which a subclass computes."""

    def _first_sums(self, vectors: Any, weights: list[Any], ids: Any, cells: Any) -> Any:
        """The first dense layer before its activation, float32 [reviews, units].

        The arguments are those of `_outputs`; the weights that are used are taken off the list.
        """
        raise NotImplementedError

    def _outputs(self, vectors: Any, weights: list[Any], ids: Any, cells: Any, training: bool) -> Any:
        values = self._first_sums(vectors, weights, ids, cells)
        for layer in self._model.layers[1 + self.input_layers : -1]:
            values = tf.matmul(layer.activation(values), weights.pop(0)) + weights.pop(0)
        return values


class WindowNetwork(FastNetwork):
    """Embedding, Conv1D, MaxPooling1D, Flatten, dense layers."""

    input_layers = 3

    @property
    def _pool(self) -> int:
        return int(self._model.layers[2].pool_size[0])

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> Packed:
        """See `pack_windows`."""
        convolution, pooling = self._model.layers[1:3]
        kernel, max_cells = convolution.kernel_size[0], pooling.output.shape[1]
        return pack_windows(reviews, kernel, self._pool, max_cells, len(self.embedding.weights))

    def _first_sums(self, vectors: Any, weights: list[Any], ids: Any, cells: Any) -> Any:
        kernel, bias, dense, dense_bias = (weights.pop(0) for _ in range(4))
        filters = kernel.shape[2]
        outputs = self._model.layers[1].activation(self._products(vectors, kernel, ids) + bias)
        pooled = tf.reduce_max(tf.reshape(outputs, (-1, self._pool, filters)), 1)
        reviews, own = tf.shape(cells)[0], tf.shape(cells)[1]
        hidden = tf.reshape(tf.gather(pooled, cells), (reviews, own * filters))
        padding = tf.reduce_sum(tf.reshape(dense[own * filters :], (-1, filters, dense.shape[1])), 0)
        return tf.matmul(hidden, dense[: own * filters]) + tf.matmul(pooled[:1], padding) + dense_bias

    def _products(self, vectors: Any, kernel: Any, ids: Any) -> Any:
        """The convolution's sums for every position from which its pooled cell is whole."""
        offsets, dimensions, filters = kernel.shape
        outputs = tf.shape(ids)[0] - offsets + 1
        outputs -= outputs % self._pool
        words_at = [ids[offset : offset + outputs] for offset in range(offsets)]

        # One core, 32 and 256 reviews: tf.nn.conv1d over all positions took 25 and 260 ms; this with TensorFlow's own
        # gradient, a small product an offset, 17 and 108 ms; with the gradient's products joined 15.6 and 110 ms.
        @tf.custom_gradient
        def products(vectors: Any, kernel: Any) -> tuple[Any, Any]:
            def gradient(of_sums: Any) -> tuple[Any, Any]:
                words = tf.shape(vectors)[0]
                of_products = tf.concat([tf.math.unsorted_segment_sum(of_sums, at, words) for at in words_at], 1)
                joined = tf.reshape(tf.transpose(kernel, (1, 0, 2)), (dimensions, offsets * filters))
                of_kernel = tf.matmul(vectors, of_products, transpose_a=True)
                of_kernel = tf.transpose(tf.reshape(of_kernel, (dimensions, offsets, filters)), (1, 0, 2))
                return tf.matmul(of_products, joined, transpose_b=True), of_kernel

            sums = tf.add_n([tf.gather(tf.matmul(vectors, kernel[offset]), at) for offset, at in enumerate(words_at)])
            return sums, gradient

        return products(vectors, kernel)


class AverageNetwork(FastNetwork):
    """Embedding, GlobalAveragePooling1D, LayerNormalization without weights, dense layers; padding's vector is 0."""

    input_layers = 2

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> Packed:
        """See `pack_bags`."""
        return pack_bags(reviews, len(self.embedding.weights))

    def _first_sums(self, vectors: Any, weights: list[Any], ids: Any, cells: Any) -> Any:
        owners = tf.searchsorted(tf.cumsum(cells[:, 0]), tf.range(tf.shape(ids)[0]), "right")
        means = tf.math.unsorted_segment_sum(tf.gather(vectors, ids), owners, tf.shape(cells)[0]) / self._length
        centred = means - tf.reduce_mean(means, 1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, 1, keepdims=True)
        normalized = centred * tf.math.rsqrt(variance + self._model.layers[2].epsilon)
        return tf.matmul(normalized, weights.pop(0)) + weights.pop(0)


class FlatNetwork(FastNetwork):
    """Embedding, Flatten, dense layers."""

    input_layers = 1

    def _first_sums(self, vectors: Any, weights: list[Any], ids: Any, cells: Any) -> Any:
        hidden = tf.reshape(tf.gather(vectors, ids), (tf.shape(cells)[0], self._length * vectors.shape[1]))
        return tf.matmul(hidden, weights.pop(0)) + weights.pop(0)


FAST: dict[str, type[FastNetwork]] = {
    "tutorial-cnn.v1": WindowNetwork,
    "pretrained-cnn.v1": WindowNetwork,
    "embedding-mlp.v1": FlatNetwork,
    "embedding-average.v1": AverageNetwork,
}
"""Who trains an architecture."""


def pack_windows(reviews: Reviews, kernel: int, pool: int, max_cells: int, vocabulary_rows: int) -> Packed:
    """Lay reviews out, each followed by just enough padding to end its last own window.

    Pooled cell `c` covers the convolution outputs `c * pool` to `c * pool + pool - 1`. Cell 0 lies in padding, and
    every cell behind a review's own cells equals it: the network's output for a long padding costs nothing.

    Args:
        reviews: Word ids of each.
        kernel: Words of a window.
        pool: Windows that are pooled to a cell.
        max_cells: Cells of a review that the network has.
        vocabulary_rows: Rows of the embedding.

    Returns:
        `cells` are int32 [reviews, largest number of own cells], the pooled cells of each review; 0 behind its own.
    """
    own = -(-_lengths(reviews) // pool)
    sizes = -(-(own * pool + kernel - 1) // pool) * pool
    first = -(-(pool + kernel - 1) // pool) * pool
    ends = first + np.cumsum(sizes)
    starts = ends - sizes
    positions = np.zeros(int(ends[-1]) if len(reviews) else first, np.int32)
    for start, review in zip(starts.tolist(), reviews, strict=True):
        positions[start : start + len(review)] = review
    own = np.minimum(own, max_cells)
    # At least one column, so that a batch of empty reviews keeps its shape.
    column = np.arange(max(int(own.max(initial=0)), 1))
    cells = np.where(column < own[:, None], starts[:, None] // pool + column, 0)
    return Packed.of(positions, cells.astype(np.int32), vocabulary_rows)


def pack_bags(reviews: Reviews, vocabulary_rows: int) -> Packed:
    """Lay reviews out without any padding; `cells` are int32 [reviews, 1], the words of each review."""
    positions = np.concatenate([np.empty(0, np.int32), *reviews])
    return Packed.of(positions, _lengths(reviews)[:, None].astype(np.int32), vocabulary_rows)


def _lengths(reviews: Reviews) -> NDArray[np.int64]:
    return np.fromiter(map(len, reviews), np.int64, len(reviews))
