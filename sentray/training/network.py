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

from sentray.training.adam import Dense, Embedding, Floats, Frozen
from sentray.training.batches import Packed, Reviews, coarse, exact
from sentray.training.fronts import Computing, front_of


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
    """Gradients of a batch, or one worker's part of them: arrays, or tensors on the device that computed them.

    Attributes:
        words: int32, ascending vocabulary ids; none where the words' vectors are frozen.
        rows: float32 [words, dimensions], of the words' vectors; those of all other words are 0.
        dense: float32 [n], of all other weights, one after the other.
    """

    words: NDArray[np.int32]
    rows: Any
    dense: Any


class TrainingNetwork:
    """Trains a network of an embedding, a front that `fronts` knows, and dense layers.

    The weights are kept here while they are trained, in float32; `keras_model` puts them back into the model.

    Args:
        model: Keras model; `sentray.models` builds it. Its embedding is trained where the layer says so.
        learning_rate: Adam's step size.
        embedding_learning_rate: That of the word vectors; the same where not given.
        precision: Numbers that matrices are multiplied in: `float32` or `bf16` (bfloat16, as wide as float32 with 8
            bits of precision). Loss, sums over positions and gradients are float32 with both.
        jit: Whether XLA compiles the step: anew for each combination of sizes, so batches are padded to few sizes.
        device: Where the step runs, such as `/GPU:0`; where TensorFlow likes if None.

    Raises:
        ValueError: The model has another shape.
    """

    def __init__(
        self,
        model: Any,
        learning_rate: float,
        embedding_learning_rate: float | None = None,
        *,
        precision: str = "float32",
        jit: bool = False,
        device: str | None = None,
    ) -> None:
        multiply = bfloat16_product if precision == "bf16" else tf.matmul
        self._computing, self._device = Computing(multiply, coarse if jit else exact), device
        self._front = front_of(model.layers, self._computing)
        embedding, *layers = model.layers
        self._model = model
        self._activations = [layer.activation for layer in layers[self._front.layers :]]
        self._variables = [variable for layer in layers for variable in layer.trainable_variables]
        table, *others = [variable.numpy().copy() for variable in (*embedding.weights, *self._variables)]
        if self._front.zero_padding:
            table[0] = 0
        self.frozen = not embedding.trainable
        rate = embedding_learning_rate or learning_rate
        self.embedding: Embedding | Frozen = Frozen(table) if self.frozen else Embedding(table, rate)
        self.dense = Dense(np.concatenate([weights.ravel() for weights in others]), learning_rate)
        self._shapes = [weights.shape for weights in others]
        ints, floats = (tf.TensorSpec([None], kind) for kind in (tf.int32, tf.float32))
        matrix, scalar = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)
        vectors = tf.TensorSpec([None, table.shape[1]], tf.float32)
        signature = [vectors, floats, ints, matrix, ints, floats, scalar]
        self._gradient_graph = tf.function(self._gradient, input_signature=signature, jit_compile=jit or None)

    def pack(self, reviews: Reviews) -> Packed:
        """Lay reviews, int32 [words] each and cut to the network's length, out for `gradients`."""
        return self._front.pack(reviews, len(self.embedding.weights))

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
        # What is padding has no weight in the loss, and so no gradient.
        reviews, words = len(packed.cells), len(packed.words)
        with tf.device(self._device):
            loss, correct, rows, dense = self._gradient_graph(
                _filled_up(self.embedding.rows(packed.words), self._computing.size(words)),
                self.dense.weights,
                packed.ids,
                packed.cells,
                _filled_up(labels, reviews),
                _filled_up(weights, reviews),
                np.float32(batch_rows),
            )
            rows = rows if len(rows) <= words else rows[:words]
        return StepResult(float(loss), int(correct)), Gradients(packed.words[: len(rows)], rows, dense)

    def apply(self, gradients: Gradients) -> bool:
        """Take one step of Adam with the global batch's gradients.

        Returns:
            Whether the first layer behind the words' vectors got a gradient at all. It gets none once all units of a
            layer are dead.
        """
        rows, dense = np.asarray(gradients.rows), np.asarray(gradients.dense)
        self.embedding.apply(rows, gradients.words)
        self.dense.apply(dense, self.embedding.step)
        return bool(dense[: int(np.prod(self._shapes[0]))].any())

    def keras_model(self) -> Any:
        """The Keras model with the weights as of now."""
        self.embedding.settle()
        others = np.split(self.dense.weights, np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1])
        shaped = [weights.reshape(shape) for weights, shape in zip(others, self._shapes, strict=True)]
        self._model.layers[0].set_weights([self.embedding.weights])
        for variable, weights in zip(self._variables, shaped, strict=True):
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
        self.embedding.restore(int(state["step"]), *(state[f"embedding_{kind}"] for kind in self.embedding.arrays()))
        self.dense.restore(*(state[f"dense_{kind}"] for kind in self.dense.arrays()))

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
        rows = vectors[:0] if self.frozen else tf.convert_to_tensor(rows)
        return loss, tf.math.count_nonzero((classes == labels) & (weights > 0)), rows, dense

    def _logits(self, vectors: Any, flat: Any, ids: Any, cells: Any) -> Any:
        parts = tf.split(flat, [int(np.prod(shape)) for shape in self._shapes])
        weights = [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]
        values = self._front.sums(vectors, ids, cells, weights)
        for activation, kernel, bias in zip(self._activations, weights[::2], weights[1::2], strict=False):
            values = self._computing.multiply(activation(values), kernel) + bias
        return values


def bfloat16_product(a: Any, b: Any, **transposed: bool) -> Any:
    """`tf.matmul` of two float32 matrices computed in bfloat16, as are its gradients; the result is float32 again."""
    return tf.cast(tf.matmul(tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16), **transposed), tf.float32)


def _filled_up(values: NDArray[Any], size: int) -> NDArray[Any]:
    """The values with zeros behind them, `size` in all."""
    if len(values) == size:
        return values
    filled = np.zeros((size, *values.shape[1:]), values.dtype)
    filled[: len(values)] = values
    return filled
