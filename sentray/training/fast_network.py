"""`FastNetwork` trains the shapes that it knows, to the numbers of `network` and sooner.

Two things make a step cheap, and neither changes its result. A convolution is applied to the distinct words of a batch
and the products are gathered, since a word occurs in a batch many times over. And of the padding behind a review only
what differs is computed: one pooled cell, for all of which the dense layer's weights are summed, or nothing.

It knows networks of an embedding, input layers (`Windows`, `Average` or `Flat`: what stands between the words' vectors
and the first dense layer) and dense layers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sentray.training.batches import Reviews
from sentray.training.network import Network, Packed, pack_padded

Product = Callable[..., Any]
"""Matrix product of two float32 matrices, with the arguments of `tf.matmul`."""


class FastNetwork(Network):
    """Trains a network whose shape `knows` knows.

    Args:
        model: Keras model; `sentray.models` builds it. Its embedding is trained where the layer says so.
        learning_rate: Adam's step size.
        embedding_learning_rate: That of the word vectors; the same where not given.
        precision: Numbers that matrices are multiplied in: `float32` or `bf16` (bfloat16, as wide as float32 with 8
            bits of precision). Loss, sums over positions and gradients are float32 with both.
        device: Where the step runs, such as `/GPU:0`; where TensorFlow likes if None.

    Raises:
        ValueError: The model has another shape.
    """

    from_logits = True

    def __init__(
        self,
        model: Any,
        learning_rate: float,
        embedding_learning_rate: float | None = None,
        *,
        precision: str = "float32",
        device: str | None = None,
    ) -> None:
        kind = _input_layers(model)
        if kind is None:
            raise ValueError(f"cannot train a network of the layers {_kinds(model)} any sooner than Keras")
        super().__init__(model, learning_rate, embedding_learning_rate, device=device)
        self._multiply: Product = bfloat16_product if precision == "bf16" else tf.matmul
        self._input_layers = kind(self._multiply, *model.layers[1 : 1 + len(kind.layers)])
        self._activations = [layer.activation for layer in model.layers[1 + len(kind.layers) :]]

    def pack(self, reviews: Reviews) -> Packed:
        """See `Network`."""
        return self._input_layers.pack(reviews, len(self.embedding.weights))

    def _outputs(self, vectors: Any, weights: list[Any], ids: Any, cells: Any) -> Any:
        values = self._input_layers.sums(vectors, ids, cells, weights)
        for activation, kernel, bias in zip(self._activations, weights[::2], weights[1::2], strict=False):
            values = self._multiply(activation(values), kernel) + bias
        return values


def knows(model: Any) -> bool:
    """Whether `FastNetwork` can train a Keras model."""
    return _input_layers(model) is not None


def bfloat16_product(a: Any, b: Any, **transposed: bool) -> Any:
    """`tf.matmul` of two float32 matrices computed in bfloat16, as are its gradients; the result is float32 again."""
    return tf.cast(tf.matmul(tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16), **transposed), tf.float32)


class InputLayers(ABC):
    """Layers between the embedding and the first dense one, equal to Keras's on reviews padded to the full length.

    Args:
        multiply: How to multiply matrices.
        layers: The Keras layers.
    """

    layers: ClassVar[tuple[str, ...]]
    """Their kinds."""

    @abstractmethod
    def __init__(self, multiply: Product, *layers: Any) -> None: ...

    @abstractmethod
    def pack(self, reviews: Reviews, vocabulary_rows: int) -> Packed:
        """Lay reviews out, for an embedding of so many rows."""

    @abstractmethod
    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """The first dense layer before its activation, for each review.

        Args:
            vectors: float32 [distinct words, dimensions], of the words of a `Packed`.
            ids: its ids.
            cells: its cells.
            weights: The network's weights behind the embedding; those that are used, the dense layer's kernel and bias
                the last, are taken out of the list.

        Returns:
            float32 [reviews, units].
        """


class Windows(InputLayers):
    """Conv1D, MaxPooling1D, Flatten."""

    layers = ("Conv1D", "MaxPooling1D", "Flatten")

    def __init__(self, multiply: Product, convolution: Any, pooling: Any, flatten: Any) -> None:
        self._multiply, self._activation = multiply, convolution.activation
        self._filters: int = convolution.filters
        self.kernel, self.pool = convolution.kernel_size[0], pooling.pool_size[0]
        self.max_cells = flatten.output.shape[1] // self._filters

    def pack(self, reviews: Reviews, vocabulary_rows: int) -> Packed:
        """Lay reviews out, each followed by just enough padding to end its last own window.

        Pooled cell `c` covers the convolution outputs `c * pool` to `c * pool + pool - 1`. Cell 0 lies in padding, and
        every cell behind a review's own cells equals it: the network's output for a long padding costs nothing.

        Returns:
            `cells` are int32 [reviews, largest number of own cells], the pooled cells of each review; 0 behind its own.
        """
        kernel, pool = self.kernel, self.pool
        own = -(-_lengths(reviews) // pool)
        sizes = -(-(own * pool + kernel - 1) // pool) * pool
        first = -(-(pool + kernel - 1) // pool) * pool
        ends = first + np.cumsum(sizes)
        starts = ends - sizes
        positions = np.zeros(int(ends[-1]) if len(reviews) else first, np.int32)
        for start, review in zip(starts.tolist(), reviews, strict=True):
            positions[start : start + len(review)] = review
        own = np.minimum(own, self.max_cells)
        # At least one column, so that a batch of empty reviews keeps its shape.
        column = np.arange(max(int(own.max(initial=0)), 1))
        cells = np.where(column < own[:, None], starts[:, None] // pool + column, 0)
        return Packed.of(positions, cells.astype(np.int32), vocabulary_rows)

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """See `InputLayers`."""
        pool, filters = self.pool, self._filters
        kernel, bias, dense, dense_bias = (weights.pop(0) for _ in range(4))
        outputs = self._activation(self._products(vectors, kernel, ids) + bias)
        pooled = tf.reduce_max(tf.reshape(outputs, (-1, pool, filters)), 1)
        reviews, own = tf.shape(cells)[0], tf.shape(cells)[1]
        hidden = tf.reshape(tf.gather(pooled, cells), (reviews, own * filters))
        padding = tf.reduce_sum(tf.reshape(dense[own * filters :], (-1, filters, dense.shape[1])), 0)
        multiply = self._multiply
        return multiply(hidden, dense[: own * filters]) + multiply(pooled[:1], padding) + dense_bias

    def _products(self, vectors: Any, kernel: Any, ids: Any) -> Any:
        """The convolution's sums for every position from which its pooled cell is whole."""
        offsets, dimensions, filters = kernel.shape
        outputs = tf.shape(ids)[0] - offsets + 1
        outputs -= outputs % self.pool
        words_at = [ids[offset : offset + outputs] for offset in range(offsets)]
        multiply = self._multiply

        # One core, 32 and 256 reviews: tf.nn.conv1d over all positions took 25 and 260 ms; this with TensorFlow's own
        # gradient, a small product an offset, 17 and 108 ms; with the gradient's products joined 15.6 and 110 ms.
        @tf.custom_gradient
        def products(vectors: Any, kernel: Any) -> tuple[Any, Any]:
            def gradient(of_sums: Any) -> tuple[Any, Any]:
                words = tf.shape(vectors)[0]
                of_products = tf.concat([tf.math.unsorted_segment_sum(of_sums, at, words) for at in words_at], 1)
                joined = tf.reshape(tf.transpose(kernel, (1, 0, 2)), (dimensions, offsets * filters))
                of_kernel = tf.reshape(multiply(vectors, of_products, transpose_a=True), (dimensions, offsets, filters))
                return multiply(of_products, joined, transpose_b=True), tf.transpose(of_kernel, (1, 0, 2))

            sums = tf.add_n([tf.gather(multiply(vectors, kernel[offset]), at) for offset, at in enumerate(words_at)])
            return sums, gradient

        return products(vectors, kernel)


class Average(InputLayers):
    """GlobalAveragePooling1D over vectors of which the padding's is 0, and LayerNormalization without weights."""

    layers = ("GlobalAveragePooling1D", "LayerNormalization")

    def __init__(self, multiply: Product, pooling: Any, normalization: Any) -> None:
        self._length: int = pooling.input.shape[1]
        self._epsilon: float = normalization.epsilon
        self._multiply = multiply

    def pack(self, reviews: Reviews, vocabulary_rows: int) -> Packed:
        """Lay reviews out without any padding; `cells` are int32 [reviews, 1], the words of each review."""
        positions = np.concatenate([np.empty(0, np.int32), *reviews])
        return Packed.of(positions, _lengths(reviews)[:, None].astype(np.int32), vocabulary_rows)

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """See `InputLayers`."""
        owners = tf.searchsorted(tf.cumsum(cells[:, 0]), tf.range(tf.shape(ids)[0]), "right")
        means = tf.math.unsorted_segment_sum(tf.gather(vectors, ids), owners, tf.shape(cells)[0]) / self._length
        centred = means - tf.reduce_mean(means, 1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, 1, keepdims=True)
        normalized = centred * tf.math.rsqrt(variance + self._epsilon)
        return self._multiply(normalized, weights.pop(0)) + weights.pop(0)


class Flat(InputLayers):
    """Flatten."""

    layers = ("Flatten",)

    def __init__(self, multiply: Product, flatten: Any) -> None:
        self._length: int = flatten.input.shape[1]
        self._multiply = multiply

    def pack(self, reviews: Reviews, vocabulary_rows: int) -> Packed:
        """See `pack_padded`."""
        return pack_padded(reviews, self._length, vocabulary_rows)

    def sums(self, vectors: Any, ids: Any, cells: Any, weights: list[Any]) -> Any:
        """See `InputLayers`."""
        hidden = tf.reshape(tf.gather(vectors, ids), (tf.shape(cells)[0], self._length * vectors.shape[1]))
        return self._multiply(hidden, weights.pop(0)) + weights.pop(0)


_SET: dict[str, dict[str, Any]] = {
    "Embedding": {"mask_zero": False},
    "Conv1D": {"padding": "valid", "strides": (1,), "dilation_rate": (1,), "groups": 1, "use_bias": True},
    "MaxPooling1D": {"padding": "valid"},
    "GlobalAveragePooling1D": {"keepdims": False},
    "LayerNormalization": {"center": False, "scale": False},
    "Flatten": {},
    "Dense": {"use_bias": True},
}
"""What is computed here of each Keras layer, where its settings allow more."""


def _input_layers(model: Any) -> type[InputLayers] | None:
    """The class of a model's input layers; None where they or what is around them is not computed here."""
    kinds = _kinds(model)
    if not isinstance(model, keras.Sequential) or not all(map(_is_as_set, model.layers)):
        return None
    known: type[InputLayers]
    for known in (Windows, Average, Flat):
        end = 1 + len(known.layers)
        if kinds[:end] == ["Embedding", *known.layers] and set(kinds[end:]) == {"Dense"}:
            return known
    return None


def _is_as_set(layer: Any) -> bool:
    """Whether a layer is computed here as Keras does."""
    config = layer.get_config()
    strides = config.get("strides")
    if config.get("pool_size", strides) != strides:
        return False
    if config.get("data_format", "channels_last") != "channels_last" or config.get("axis", -1) not in (-1, [-1], [1]):
        return False
    kind = type(layer).__name__
    return kind in _SET and all(config[name] == value for name, value in _SET[kind].items())


def _kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def _lengths(reviews: Reviews) -> NDArray[np.int64]:
    return np.fromiter(map(len, reviews), np.int64, len(reviews))
