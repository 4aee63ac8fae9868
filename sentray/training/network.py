"""A Keras model as it is trained: `Network` computes steps by the model's own layers, packed reviews in, gradients out.

It is slow and general, and what is new is tried here first; `fast_network` computes the same numbers sooner for the
shapes it knows. Adam passes over the weights once, over an embedding's row when its word is there (`adam`). It is Adam
as published: Keras's own differs for embeddings, where it squares each of a word's gradients in a batch instead of
their sum.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sentray.training.adam import Adam, Floats, Rate, TableAndDense
from sentray.training.batches import Reviews, numbered
from sentray.training.gradients import Gradients

_MAX_LOGIT = 30.0


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


class Network(TableAndDense):
    """Trains a Keras model with one embedding, by the model's own layers.

    The weights are kept here while they are trained, in float32; `keras_model` puts them back into the model.

    Args:
        model: Keras model from word ids, int32 [reviews, length], to the probability of the second class or of each.
            Its embedding is trained where the layer says so. Where a mean over the padding is taken
            (GlobalAveragePooling1D without a mask), the padding's vector becomes 0 and stays so.
        learning_rate: Adam's step size, or its schedule.
        embedding_learning_rate: That of the word vectors; the same where not given.
        device: Where the step runs, such as `/GPU:0`; where TensorFlow likes if None.

    Raises:
        ValueError: The model has no embedding or several; or, at the first step, layers with state that is not trained.
    """

    from_logits = False
    """Whether `_outputs` gives logits, and not probabilities."""

    def __init__(
        self,
        model: Any,
        learning_rate: Rate,
        embedding_learning_rate: Rate | None = None,
        *,
        device: str | None = None,
    ) -> None:
        kinds = [type(layer).__name__ for layer in model.layers]
        if kinds.count("Embedding") != 1:
            raise ValueError(f"cannot train a network of the layers {kinds}: it needs one Embedding")
        self._model, self._device = model, device
        self._keras_embedding = embedding = model.layers[kinds.index("Embedding")]
        self._length: int = model.inputs[0].shape[1]
        self._zero_padding = "GlobalAveragePooling1D" in kinds and not embedding.mask_zero
        self._variables = [variable for variable in model.trainable_variables if variable is not embedding.weights[0]]
        table, *others = [variable.numpy().copy() for variable in (embedding.weights[0], *self._variables)]
        if self._zero_padding:
            table[0] = 0
        rate = embedding_learning_rate or learning_rate
        dense = np.concatenate([weights.ravel() for weights in others])[None]
        vectors_adam = Adam(table, rate if embedding.trainable else None)
        super().__init__(vectors_adam, Adam(dense, learning_rate), others[0].size)
        self._shapes = [weights.shape for weights in others]
        self._sizes = [weights.size for weights in others]
        ints, floats = (tf.TensorSpec([None], kind) for kind in (tf.int32, tf.float32))
        matrix, scalar = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)
        vectors = tf.TensorSpec([None, table.shape[1]], tf.float32)
        signature = [vectors, floats, ints, matrix]
        self._gradient_graph = tf.function(self._gradient, input_signature=[*signature, ints, floats, scalar])
        self._logits_graph = tf.function(self._logits, input_signature=signature)

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> Packed:
        """Lay reviews, int32 [words] each and cut to the network's length, out for `gradients`."""
        return pack_padded(reviews, self._length, len(self.embedding.weights))

    def gradients(self, packed: Packed, labels: NDArray[np.int32], weights: Floats, batch_rows: int) -> Gradients:
        """Loss of this worker's rows and what they add to the global batch's gradients.

        Args:
            packed: This worker's reviews.
            labels: int32 [reviews], positions of their classes.
            weights: float32 [reviews], weights of their losses.
            batch_rows: Rows of the global batch, over which the loss is averaged.
        """
        flat = self.dense.weights[0]
        if not len(labels):
            words = packed.words[:0]
            return Gradients(0.0, 0, words, self.embedding.rows(words), np.zeros_like(flat))
        vectors = self.embedding.rows(packed.words)
        with tf.device(self._device):
            loss, correct, rows, dense = self._gradient_graph(
                vectors, flat, packed.ids, packed.cells, labels, weights, np.float32(batch_rows)
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
        self, vectors: Any, flat: Any, ids: Any, cells: Any, labels: Any, weights: Any, batch_rows: Any
    ) -> tuple[Any, Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch([vectors, flat])
            outputs = self._outputs(vectors, self._shaped(flat), ids, cells, training=True)
            if outputs.shape[1] == 1:
                losses = keras.losses.binary_crossentropy(labels[:, None], outputs, self.from_logits)
                classes = tf.cast(outputs[:, 0] > (0 if self.from_logits else 0.5), tf.int32)
            else:
                losses = keras.losses.sparse_categorical_crossentropy(labels, outputs, self.from_logits)
                classes = tf.argmax(outputs, 1, tf.int32)
            loss = tf.reduce_sum(losses * weights)
            mean = loss / batch_rows
        rows, dense = tape.gradient(mean, [vectors, flat])
        rows = vectors[:0] if self.embedding.frozen else tf.convert_to_tensor(rows)
        return loss, tf.math.count_nonzero((classes == labels) & (weights > 0)), rows, dense

    def _logits(self, vectors: Any, flat: Any, ids: Any, cells: Any) -> Any:
        outputs = self._outputs(vectors, self._shaped(flat), ids, cells, training=False)
        if self.from_logits:
            return outputs
        others = tf.math.log(1 - outputs) if outputs.shape[1] == 1 else 0.0
        # Where a probability is 0 or 1 the logit has no end.
        return tf.clip_by_value(tf.math.log(outputs) - others, -_MAX_LOGIT, _MAX_LOGIT)

    def _shaped(self, flat: Any) -> list[Any]:
        """The weights of the layers behind the embedding, in their order."""
        parts = tf.split(flat, self._sizes)
        return [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _outputs(self, vectors: Any, weights: list[Any], ids: Any, cells: Any, training: bool) -> Any:
        """The network's outputs for each review, float32 [reviews, classes or 1].

        Args:
            vectors: float32 [distinct words, dimensions], of the words of a `Packed`.
            weights: Of the layers behind the embedding, in their order.
            ids: its ids.
            cells: its cells.
            training: whether dropout drops.
        """
        if self._zero_padding:
            vectors = tf.concat([tf.zeros_like(vectors[:1]), vectors[1:]], 0)
        # The embedding as if the batch's words were the first of the vocabulary; the padding is so anyway.
        rows, words = len(self.embedding.weights), tf.shape(vectors)[0]
        table = tf.ensure_shape(tf.pad(vectors, [[0, rows - words], [0, 0]]), (rows, vectors.shape[1]))
        given = [(self._keras_embedding.weights[0], table), *zip(self._variables, weights, strict=True)]
        with keras.StatelessScope(given) as scope:
            outputs = self._model(tf.reshape(ids, (tf.shape(cells)[0], self._length)), training=training)
        others = [variable for variable in self._model.non_trainable_variables if variable is not given[0][0]]
        if changed := [variable.path for variable in others if scope.get_current_value(variable) is not None]:
            raise ValueError(f"cannot train a network whose layers keep state of their own: {', '.join(changed)}")
        return outputs
