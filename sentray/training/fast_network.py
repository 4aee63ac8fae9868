"""The networks of `sentray.models`, trained to the numbers of `network` and sooner; `FAST` says by which class.

Two things make a step cheap, and neither changes its result. A convolution is applied to the distinct words of a batch
and the products are gathered, since a word occurs in a batch many times over. And of the padding behind a review only
what differs is computed: one pooled cell, for all of which the dense layer's weights are summed, or nothing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sentray.task import Task
from sentray.training.adam import Adam, Floats, Rate, TableAndDense
from sentray.training.batches import Reviews, numbered
from sentray.training.gradients import Gradients
from sentray.training.network import has_zero_padding, loss_of


@dataclass(frozen=True)
class Packed:
    """Reviews laid one after the other.

    Attributes:
        ids: int32 [positions], the index of each word in `words`.
        words: int32 [distinct words], ascending vocabulary ids; id 0, the padding, is always among them.
        cells: int32 [reviews, columns], what of the positions each review has; see the method that packed them.
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    cells: NDArray[np.int32]

    @classmethod
    def of(cls, positions: NDArray[np.int32], cells: NDArray[np.int32], vocabulary_rows: int) -> "Packed":
        """Packed reviews from the vocabulary ids at all positions, for an embedding of so many rows."""
        words, ids = numbered(positions, vocabulary_rows)
        return cls(ids, words, cells)


def pack_padded(reviews: Reviews, length: int, vocabulary_rows: int) -> Packed:
    """Lay reviews out padded to the network's length.

    Returns:
        `ids` are int32 [reviews * length]; `cells` int32 [reviews, 0].
    """
    padded = np.zeros((len(reviews), length), np.int32)
    for row, review in zip(padded, reviews, strict=True):
        row[: len(review)] = review
    return Packed.of(padded.ravel(), np.empty((len(reviews), 0), np.int32), vocabulary_rows)


class FastNetwork(TableAndDense):
    """Trains a network of an embedding, input layers and dense layers.

    The weights are kept here while they are trained, in float32; `keras_model` puts them back into the model. Adam
    passes over them once, over an embedding's row when its word is there (`adam`).

    Args:
        model: Keras model of one embedding, which is trained where the layer says so.
        learning_rate: Adam's step size, or its schedule.
        embedding_learning_rate: That of the word vectors; the same where not given.
        task: What is asked of a review.
        device: Where the step runs, such as `/GPU:0`; where TensorFlow likes if None.
    """

    input_layers: ClassVar[int]
    """Layers between the embedding and the first dense one, which a subclass computes."""

    def __init__(
        self,
        model: Any,
        learning_rate: Rate,
        embedding_learning_rate: Rate | None = None,
        *,
        task: Task = "classification",
        device: str | None = None,
    ) -> None:
        self._model, self._task, self._device = model, task, device
        self._keras_embedding = embedding = model.layers[0]
        self._length: int = model.inputs[0].shape[1]
        self._variables = [variable for variable in model.trainable_variables if variable is not embedding.weights[0]]
        table, *others = [variable.numpy().copy() for variable in (embedding.weights[0], *self._variables)]
        if has_zero_padding(model):
            table[0] = 0
        rate = embedding_learning_rate or learning_rate
        dense = np.concatenate([weights.ravel() for weights in others])[None]
        vectors_adam = Adam(table, rate if embedding.trainable else None)
        super().__init__(vectors_adam, Adam(dense, learning_rate), others[0].size)
        self._shapes = [weights.shape for weights in others]
        self._sizes = [weights.size for weights in others]
        ints, floats = (tf.TensorSpec([None], kind) for kind in (tf.int32, tf.float32))
        matrix, scalar = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)
        wanted = ints if task == "classification" else tf.TensorSpec([None, None], tf.float32)
        vectors = tf.TensorSpec([None, table.shape[1]], tf.float32)
        signature = [vectors, floats, ints, matrix]
        self._gradient_graph = tf.function(self._gradient, input_signature=[*signature, wanted, floats, scalar])
        self._logits_graph = tf.function(self._logits, input_signature=signature)

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> Packed:
        """Lay reviews, int32 [words] each and cut to the network's length, out for `gradients`."""
        return pack_padded(reviews, self._length, len(self.embedding.weights))

    def gradients(self, packed: Packed, wanted: NDArray[Any], weights: Floats, batch_rows: int) -> Gradients:
        """See `heads.Head`."""
        flat = self.dense.weights[0]
        if not len(wanted):
            words = packed.words[:0]
            return Gradients(0.0, 0, words, self.embedding.rows(words), np.zeros_like(flat))
        vectors = self.embedding.rows(packed.words)
        with tf.device(self._device):
            loss, correct, rows, dense = self._gradient_graph(
                vectors, flat, packed.ids, packed.cells, wanted, weights, np.float32(batch_rows)
            )
        return Gradients(float(loss), int(correct), packed.words[: len(rows)], np.asarray(rows), np.asarray(dense))

    def logits(self, packed: Packed) -> Floats:
        """Logits of reviews that are not trained on, float32 [reviews, 1 or classes]."""
        vectors = self.embedding.rows(packed.words)
        with tf.device(self._device):
            return np.asarray(self._logits_graph(vectors, self.dense.weights[0], packed.ids, packed.cells))

    def layers(self) -> dict[str, list[Floats]]:
        """The weights as of now, by the names of the model's layers."""
        return {layer.name: layer.get_weights() for layer in self.keras_model().layers if layer.weights}

    def keras_model(self) -> Any:
        """The Keras model with the weights as of now."""
        self.embedding.settle()
        self._keras_embedding.set_weights([self.embedding.weights])
        others = np.split(self.dense.weights[0], np.cumsum(self._sizes)[:-1])
        for variable, weights, shape in zip(self._variables, others, self._shapes, strict=True):
            variable.assign(weights.reshape(shape))
        return self._model

    def _gradient(
        self, vectors: Any, flat: Any, ids: Any, cells: Any, wanted: Any, weights: Any, batch_rows: Any
    ) -> tuple[Any, Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch([vectors, flat])
            losses, correct = loss_of(self._task, self._logits(vectors, flat, ids, cells), wanted)
            loss = tf.reduce_sum(losses * weights)
            mean = loss / batch_rows
        rows, dense = tape.gradient(mean, [vectors, flat])
        rows = vectors[:0] if self.embedding.frozen else tf.convert_to_tensor(rows)
        return loss, tf.math.count_nonzero(correct & (weights > 0)), rows, dense

    def _logits(self, vectors: Any, flat: Any, ids: Any, cells: Any) -> Any:
        """The outputs before the last activation, float32 [reviews, outputs].

        Args:
            vectors: float32 [distinct words, dimensions], of the words of a `Packed`.
            flat: The weights of the layers behind the embedding, one after the other.
            ids: Its ids.
            cells: Its cells.
        """
        parts = tf.split(flat, self._sizes)
        weights = [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]
        values = self._first_sums(vectors, weights, ids, cells)
        for layer in self._model.layers[1 + self.input_layers : -1]:
            values = tf.matmul(layer.activation(values), weights.pop(0)) + weights.pop(0)
        return values

    def _first_sums(self, vectors: Any, weights: list[Any], ids: Any, cells: Any) -> Any:
        """The first dense layer before its activation, float32 [reviews, units].

        The arguments are those of `_logits`; of the weights, in the layers' order, those that are used are taken off.
        """
        raise NotImplementedError


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
