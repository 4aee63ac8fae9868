"""A Keras network as it is trained: packed reviews in, gradients out.

Three things make a step cheap, and none changes its result (design, decisions 3 and 5). The convolution is applied
to the distinct words of a batch and the products are gathered, since a word occurs in a batch many times over. Of
the padding behind a review one pooled cell is computed, and the dense layer's weights for the rest are summed.
And Adam passes over the weights once, over an embedding's row when its word is there (`adam`). It is Adam as published:
Keras's own differs for embeddings, where it squares each of a word's gradients in a batch instead of their sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sentray.training.adam import Dense, Embedding, Floats
from sentray.training.batches import Packed, Window


@dataclass(frozen=True)
class StepResult:
    """What a step tells of its rows.

    Attributes:
        loss: Sum of the rows' weighted cross-entropies.
        correct: Rows whose most probable class is their own.
    """

    loss: float
    correct: int


@dataclass(frozen=True)
class Gradients:
    """Gradients of a batch, or one worker's part of them.

    Attributes:
        words: int32, ascending vocabulary ids.
        rows: float32 [words, dimensions], of the words' vectors; those of all other words are 0.
        dense: float32 [n], of all other weights, one after the other.
    """

    words: NDArray[np.int32]
    rows: Floats
    dense: Floats


class TrainingNetwork:
    """Trains a network of the shape Embedding, Conv1D, MaxPooling1D, Flatten, Dense … Dense.

    The weights are kept here while they are trained; `keras_model` puts them back into the model.

    Args:
        model: Keras model; `sentray.models` builds it.
        learning_rate: Adam's step size.

    Raises:
        ValueError: The model has another shape.
    """

    def __init__(self, model: Any, learning_rate: float) -> None:
        kinds = [type(layer).__name__ for layer in model.layers]
        if kinds[:4] != ["Embedding", "Conv1D", "MaxPooling1D", "Flatten"] or set(kinds[4:]) != {"Dense"}:
            raise ValueError(f"cannot train a network of the layers {kinds}")
        _, convolution, pooling, flatten, *dense = model.layers
        self._model = model
        self._filters: int = convolution.filters
        self._activations = [layer.activation for layer in (convolution, *dense)]
        self.window = Window(convolution.kernel_size[0], pooling.pool_size[0], flatten.output.shape[1] // self._filters)
        table, *others = [variable.numpy() for variable in model.trainable_variables]
        self.embedding = Embedding(table.copy(), learning_rate)
        self.dense = Dense(np.concatenate([weights.ravel() for weights in others]), learning_rate)
        self._shapes = [weights.shape for weights in others]
        ints, floats = (tf.TensorSpec([None], kind) for kind in (tf.int32, tf.float32))
        matrix, scalar = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)
        vectors = tf.TensorSpec([None, table.shape[1]], tf.float32)
        signature = [vectors, floats, ints, matrix, ints, floats, scalar]
        self._gradient_graph = tf.function(self._gradient, input_signature=signature)

    def gradients(
        self, packed: Packed, labels: NDArray[np.int32], weights: Floats, batch_rows: int
    ) -> tuple[StepResult, Gradients]:
        """Loss of this worker's rows and what they add to the global batch's gradients.

        Args:
            packed: This worker's reviews.
            labels: int32 [reviews], positions of their classes.
            weights: float32 [reviews], weights of their losses.
            batch_rows: Rows of the global batch, over which the loss is averaged.
        """
        loss, correct, rows, dense = self._gradient_graph(
            self.embedding.rows(packed.words),
            self.dense.weights,
            packed.ids,
            packed.cells,
            labels,
            weights,
            np.float32(batch_rows),
        )
        return StepResult(float(loss), int(correct)), Gradients(packed.words, rows.numpy(), dense.numpy())

    def apply(self, gradients: Gradients) -> bool:
        """Take one step of Adam with the global batch's gradients.

        Returns:
            Whether the words' vectors got a gradient at all. They get none once all units of a layer are dead.
        """
        reacts = self.embedding.apply(gradients.rows, gradients.words)
        self.dense.apply(gradients.dense, self.embedding.step)
        return reacts

    def keras_model(self) -> Any:
        """The Keras model with the weights as of now."""
        self.embedding.settle()
        others = np.split(self.dense.weights, np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1])
        shaped = [weights.reshape(shape) for weights, shape in zip(others, self._shapes, strict=True)]
        for variable, weights in zip(self._model.trainable_variables, [self.embedding.weights, *shaped], strict=True):
            variable.assign(weights)
        return self._model

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, by name: weights and Adam's two moments, and the number of steps."""
        self.embedding.settle()
        state: dict[str, NDArray[Any]] = {"step": np.array(self.embedding.step)}
        for name, part in (("embedding", self.embedding.arrays()), ("dense", self.dense.arrays())):
            state |= {f"{name}_{kind}": array for kind, array in part.items()}
        return state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a state that `state` gave."""
        kinds = ("weights", "first", "second")
        self.embedding.restore(int(state["step"]), *(state[f"embedding_{kind}"] for kind in kinds))
        self.dense.restore(*(state[f"dense_{kind}"] for kind in kinds))

    def _gradient(
        self, vectors: Any, flat: Any, ids: Any, cells: Any, labels: Any, weights: Any, batch_rows: Any
    ) -> tuple[Any, Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch([vectors, flat])
            logits = self._logits(vectors, flat, ids, cells)
            if logits.shape[1] == 1:
                targets = tf.cast(labels, tf.float32)[:, None]
                losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)[:, 0]
                classes = tf.cast(logits[:, 0] > 0, tf.int32)
            else:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                classes = tf.argmax(logits, 1, tf.int32)
            loss = tf.reduce_sum(losses * weights)
            mean = loss / batch_rows
        rows, dense = tape.gradient(mean, [vectors, flat])
        return loss, tf.math.count_nonzero(classes == labels), rows, dense

    def _logits(self, vectors: Any, flat: Any, ids: Any, cells: Any) -> Any:
        pool, filters = self.window.pool, self._filters
        parts = tf.split(flat, [int(np.prod(shape)) for shape in self._shapes])
        kernel, bias, *dense = [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]
        convolve, *activations = self._activations
        pooled = tf.reduce_max(
            tf.reshape(convolve(self._products(vectors, kernel, ids) + bias), (-1, pool, filters)), 1
        )
        reviews, own = tf.shape(cells)[0], tf.shape(cells)[1]
        hidden = tf.reshape(tf.gather(pooled, cells), (reviews, own * filters))
        padding = tf.reduce_sum(tf.reshape(dense[0][own * filters :], (-1, filters, dense[0].shape[1])), 0)
        values = hidden @ dense[0][: own * filters] + pooled[:1] @ padding + dense[1]
        for activation, layer_kernel, layer_bias in zip(activations, dense[2::2], dense[3::2], strict=False):
            values = activation(values) @ layer_kernel + layer_bias
        return values

    def _products(self, vectors: Any, kernel: Any, ids: Any) -> Any:
        """The convolution's sums for every position from which its pooled cell is whole."""
        offsets, dimensions, filters = kernel.shape
        outputs = tf.shape(ids)[0] - offsets + 1
        outputs -= outputs % self.window.pool
        places = [ids[offset : offset + outputs] for offset in range(offsets)]

        # One core, 32 and 256 reviews: tf.nn.conv1d over all positions took 25 and 260 ms; this with TensorFlow's own
        # gradient, a small product an offset, 17 and 108 ms; with the gradient's products joined 15.6 and 110 ms.
        @tf.custom_gradient
        def products(vectors: Any, kernel: Any) -> tuple[Any, Any]:
            def gradient(of_sums: Any) -> tuple[Any, Any]:
                words = tf.shape(vectors)[0]
                of_products = tf.concat([tf.math.unsorted_segment_sum(of_sums, place, words) for place in places], 1)
                joined = tf.reshape(tf.transpose(kernel, (1, 0, 2)), (dimensions, offsets * filters))
                of_kernel = tf.reshape(
                    tf.matmul(vectors, of_products, transpose_a=True), (dimensions, offsets, filters)
                )
                return tf.matmul(of_products, joined, transpose_b=True), tf.transpose(of_kernel, (1, 0, 2))

            sums = tf.add_n(
                [tf.gather(tf.matmul(vectors, kernel[offset]), place) for offset, place in enumerate(places)]
            )
            return sums, gradient

        return products(vectors, kernel)
