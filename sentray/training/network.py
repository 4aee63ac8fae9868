"""`Network`: any Keras model in training, by its own layers and optimizer; packed reviews in, gradients out.

Weights and optimizer are TensorFlow's variables and stay where TensorFlow has them. What a step adds to the global
batch's gradients leaves it, and comes back summed over the workers; then every worker applies the optimizer to the same
numbers. Faster, and to the same numbers, `encoders` compute some layers of any model on CPUs, and `fast_network` whole
models of the shapes it knows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator
from numpy.typing import NDArray

from sentray.models import IDS, NUMBERS, OUTPUT, padded_length
from sentray.task import Task
from sentray.training import encoders
from sentray.training.adam import Floats, Rate
from sentray.training.batches import Reviews, laid_out
from sentray.training.gradients import Gradients


@dataclass(frozen=True)
class Padded:
    """Reviews laid out for a Keras model.

    Attributes:
        reviews: int32 [words] each.
        numbers: Of each besides its text, float32 [reviews, numbers]; None where the network takes none.
    """

    reviews: Reviews
    numbers: Floats | None = None


class Network:
    """Trains a Keras model by the model's own layers.

    Variables that are gathered from, such as embeddings, give the gradients of a step's rows, each row once; all others
    dense ones. Where a mean over the padding is taken (GlobalAveragePooling1D without a mask), the padding's vector
    becomes 0 and stays so. Of a worker's state that is not trained, such as BatchNormalization's statistics, every
    worker gets the mean after each step, weighted by rows.

    Args:
        model: Keras model of the contract of `sentray.models.NetworkSpec`, compiled with an optimizer or not at all.
        learning_rate: Step size of Adam, or its schedule; of no use where the model has its own optimizer.
        embedding_learning_rate: That of what is gathered from; the same where not given.
        task: What is asked of a review.
        most: Ids of a review at most, where the model takes any length.
        seed: Fixes the dropout.
        rank: This worker's number, which dropout depends on too.
        rows: Reviews of most steps, where it is known.
        device: Where the step runs, such as `/GPU:0`; where TensorFlow likes if None.
    """

    def __init__(
        self,
        model: Any,
        learning_rate: Rate,
        embedding_learning_rate: Rate | None = None,
        *,
        task: Task = "classification",
        most: int = 0,
        seed: int = 0,
        rank: int = 0,
        rows: int | None = None,
        device: str | None = None,
    ) -> None:
        self._model, self._task, self._device = model, task, device
        self._most, self._seed, self._rank, self._step = most, seed, rank, 0
        self._inputs = [each.name for each in model.inputs]
        self._length: int | None = model.inputs[self._inputs.index(IDS)].shape[1]
        self._output = model.get_layer(OUTPUT)
        # On a GPU Keras's own code is the faster one.
        self._encoders = [] if device else encoders.found_in(model)
        encoded = [each.output for each in self._encoders]
        # What the last layer reads may be an encoder's, and a Keras model's output has to be that of a layer in it.
        as_it_is = keras.layers.Identity(dtype="float32", autocast=False, name="sentray_features")
        self._features = keras.Model([*model.inputs, *encoded], as_it_is(self._output.input))
        self._trained: list[Any] = list(model.trainable_variables)
        # A layer that is trained has weights that are not, its statistics; one that is frozen has no others.
        self._statistics = [each for layer in model._flatten_layers() for each in layer._non_trainable_variables]
        known = {id(each) for each in self._statistics}
        self._frozen = [each for each in model.non_trainable_weights if id(each) not in known]
        weights = {id(each) for each in model.weights}
        own_seeds = [each for each in model.non_trainable_variables if id(each) not in weights]
        self._seeds = [*own_seeds, global_seed_generator().state]
        self._zero_padding = has_zero_padding(model)
        if self._zero_padding:
            table = next(layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)).weights[0]
            table.assign(tf.concat([tf.zeros_like(table[:1]), table[1:]], 0))
        # Where a step moves some rows alone, which the gradients' graph says.
        self._tables: list[int] = []
        self._graphs: dict[int | None, Any] = {}
        with tf.device(device):
            self._gradient_graph(rows)
            self._logits_graph = tf.function(lambda given: self._outputs(given, training=False), [self._given_of(None)])
            self._parts = self._optimizers(learning_rate, embedding_learning_rate)
            # Ours can be compiled by XLA, which passes over the weights once; another might not.
            self._move = tf.function(self._optimize, jit_compile=not model.compiled)
            ints, floats = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None])
            signature = [ints, tf.TensorSpec([None, None]), floats, floats, tf.TensorSpec([])]
            self._apply_graph = tf.function(self._apply, signature).get_concrete_function()

    def _gradient_graph(self, rows: int | None) -> Any:
        """The graph of a step on so many reviews, since one for any number of them takes a recurrent layer longer."""
        if rows not in self._graphs:
            of_rows, scalar = tf.TensorSpec([rows]), tf.TensorSpec([])
            wanted = tf.TensorSpec([rows], tf.int32) if self._task == "classification" else tf.TensorSpec([rows, None])
            seeds = tf.TensorSpec([len(self._seeds), 2], tf.int32)
            signature = [self._given_of(rows), wanted, of_rows, scalar, scalar, seeds]
            self._graphs[rows] = tf.function(self._gradient, signature).get_concrete_function()
        return self._graphs[rows]

    def _given_of(self, rows: int | None) -> list[Any]:
        """What the model's inputs take of so many reviews, or any number of them."""
        return [tf.TensorSpec((rows, *each.shape[1:]), each.dtype) for each in self._model.inputs]

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> Padded:
        """Lay reviews out for `gradients` and `logits`.

        Args:
            reviews: int32 [words] each, cut to the network's length.
            numbers: Of each besides its text, float32 [reviews, numbers]; None where there are none.
        """
        return Padded(reviews, numbers)

    def gradients(self, packed: Padded, wanted: NDArray[Any], weights: Floats, batch_rows: int) -> Gradients:
        """See `heads.Head`; no variable changes."""
        if not len(wanted):
            width = max((self._row_size(table) for table in self._tables), default=0)
            empty, dense = np.zeros((0, width), np.float32), np.zeros(sum(self._dense_sizes), np.float32)
            return Gradients(0.0, 0, np.zeros(0, np.int32), empty, dense, np.zeros(sum(self._kept_sizes), np.float32))
        generator = np.random.default_rng((self._seed, self._rank, self._step))
        seeds = generator.integers(0, 1 << 31, (len(self._seeds), 2)).astype(np.int32)
        width = self._length or int(self._widths(packed).max())
        with tf.device(self._device):
            given = self._given(packed, np.arange(len(wanted)), width)
            arguments = [given, wanted, weights, np.float32(batch_rows), self._scale(), seeds]
            found = self._gradient_graph(len(wanted))(*tf.nest.map_structure(tf.constant, arguments))
        loss, correct, rows, values, dense, statistics = (each.numpy() for each in found)
        return Gradients(float(loss), int(correct), rows, values, dense, statistics)

    def apply(self, gradients: Gradients) -> bool:
        """Take one step of the optimizer with the global batch's gradients.

        Returns:
            Whether the words' vectors, or where they are frozen the first of the other weights, got a gradient at all.
            They get none once all units of a layer are dead.
        """
        self._step += 1
        for optimizer, rate, _ in self._parts:
            if callable(rate):
                getattr(optimizer, "inner_optimizer", optimizer).learning_rate = rate(self._step)
        with tf.device(self._device):
            sums = (gradients.rows, gradients.values, gradients.dense, gradients.statistics, self._scale())
            self._apply_graph(*map(tf.constant, sums))
        return bool(gradients.values.any() if self._tables else gradients.dense[: self._dense_sizes[0]].any())

    def logits(self, packed: Padded) -> Floats:
        """Logits of reviews that are not trained on, each padded as in scoring; float32 [reviews, outputs]."""
        found = np.empty((len(packed.reviews), self._output.units), np.float32)
        widths = self._widths(packed)
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            with tf.device(self._device):
                found[rows] = self._logits_graph(self._given(packed, rows, int(width)))
        return found

    def layers(self) -> dict[str, list[Floats]]:
        """The weights as of now, by the names of the model's layers."""
        return {layer.name: layer.get_weights() for layer in self._model.layers if layer.weights}

    def keras_model(self) -> Any:
        """The Keras model itself, without its optimizer; its weights are those in training."""
        model = self._model
        return keras.Model(model.inputs, model.outputs, name=model.name) if model.compiled else model

    def constants(self) -> list[NDArray[Any]]:
        """What training does not change: vectors where they are frozen."""
        return [_array(variable) for variable in self._frozen]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, by name: weights, statistics and the optimizer's variables, and the steps done."""
        return {"step": np.array(self._step), **{name: _array(each) for name, each in self._changing.items()}}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a state that `state` gave."""
        self._step = int(state["step"])
        for name, variable in self._changing.items():
            variable.assign(tf.cast(state[name], variable.dtype))

    @property
    def _changing(self) -> dict[str, Any]:
        """All variables that training changes, by names that do not depend on what else Keras made in the process."""
        of_optimizers = [each for optimizer, *_ in self._parts for each in optimizer.variables]
        kinds = {"weights": self._trained, "statistics": self._statistics, "optimizer": of_optimizers}
        return {f"{kind}.{number}": each for kind, some in kinds.items() for number, each in enumerate(some)}

    @property
    def _dense_sizes(self) -> list[int]:
        return [math.prod(each.shape) for at, each in enumerate(self._trained) if at not in self._tables]

    @property
    def _kept_sizes(self) -> list[int]:
        return [math.prod(each.shape) for each in self._statistics]

    def _row_size(self, table: int) -> int:
        return math.prod(self._trained[table].shape[1:])

    def _optimizers(self, rate: Rate, of_tables: Rate | None) -> list[tuple[Any, Rate | None, list[int]]]:
        """Who moves which of the trained variables, and at which step size where that is ours to say."""
        every = list(range(len(self._trained)))
        sizes: list[tuple[Rate, list[int]]] = [(rate, every)]
        if of_tables is not None:
            sizes = [(rate, [at for at in every if at not in self._tables]), (of_tables, self._tables)]
        made: list[tuple[Any, Rate | None, list[int]]] = []
        if self._model.compiled:
            made, sizes = [(self._model.optimizer, None, every)], []
        for size, which in sizes:
            optimizer: Any = keras.optimizers.Adam(size(1) if callable(size) else size)
            if any(layer.compute_dtype == "float16" for layer in self._model._flatten_layers()):
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            made.append((optimizer, size, which))
        for optimizer, _, which in made:
            optimizer.build([self._trained[at] for at in which])
        return made

    def _scale(self) -> np.float32:
        """What the loss is multiplied with, so that small gradients are numbers in half precision."""
        return np.float32(self._parts[0][0].scale_loss(np.float32(1)))

    def _widths(self, packed: Padded) -> NDArray[np.int64]:
        """To how many ids each review is padded."""
        lengths = np.fromiter(map(len, packed.reviews), np.int64, len(packed.reviews))
        return np.full_like(lengths, self._length) if self._length else padded_length(lengths, self._most)

    def _given(self, packed: Padded, rows: NDArray[np.int64], width: int) -> list[NDArray[Any]]:
        """What the model's inputs take of some reviews."""
        reviews = [packed.reviews[row] for row in rows]
        ids, offsets = laid_out(reviews)
        matrix = np.zeros((len(rows), width), np.int32)
        matrix[np.arange(width) < np.diff(offsets)[:, None]] = ids
        given: dict[str, Any] = {IDS: matrix, NUMBERS: None if packed.numbers is None else packed.numbers[rows]}
        return [given[name] for name in self._inputs]

    def _outputs(self, given: list[Any], training: bool) -> Any:
        """The outputs before the last activation, float32 [reviews, outputs]."""
        given = [*given, *encoders.features(self._encoders, given[self._inputs.index(IDS)])]
        features = self._features(given if len(given) > 1 else given[0], training=training)
        return tf.matmul(tf.cast(features, tf.float32), self._output.kernel) + self._output.bias

    def _gradient(
        self, given: list[Any], wanted: Any, weights: Any, batch_rows: Any, scale: Any, seeds: Any
    ) -> tuple[Any, ...]:
        """Loss and right answers, the tables' rows and their values, all other gradients, changes of the statistics."""
        for variable, seed in zip(self._seeds, tf.unstack(seeds), strict=True):
            variable.assign(tf.cast(seed, variable.dtype))
        before = [tf.identity(variable.value) for variable in self._statistics]
        share = tf.cast(tf.shape(weights)[0], tf.float32) / batch_rows
        with tf.GradientTape() as tape:
            losses, right = loss_of(self._task, self._outputs(given, training=True), wanted)
            loss = tf.reduce_sum(losses * weights)
            further = [share * tf.cast(each, tf.float32) for each in self._features.losses]
            total = scale * tf.add_n([loss / batch_rows, *further])
        found = tape.gradient(total, [variable.value for variable in self._trained])
        self._tables = [at for at, each in enumerate(found) if isinstance(each, tf.IndexedSlices)]
        rows, values, first = [tf.zeros(0, tf.int32)], [], 0
        width = max((self._row_size(at) for at in self._tables), default=0)
        for at in self._tables:
            of_rows = tf.cast(tf.reshape(found[at].indices, [-1]), tf.int32)
            of_values = tf.cast(tf.reshape(found[at].values, [-1, self._row_size(at)]), tf.float32)
            of_rows, of_values = _by_rows(of_rows, of_values, self._zero_padding)
            rows.append(of_rows + first)
            values.append(tf.pad(of_values, [[0, 0], [0, width - of_values.shape[1]]]))
            first += self._trained[at].shape[0]
        dense = [
            tf.zeros(variable.shape) if gradient is None else gradient
            for at, (variable, gradient) in enumerate(zip(self._trained, found, strict=True))
            if at not in self._tables
        ]
        changes = [
            share * tf.cast(variable.value - old, tf.float32)
            for variable, old in zip(self._statistics, before, strict=True)
        ]
        for variable, old in zip(self._statistics, before, strict=True):
            variable.assign(old)
        correct = tf.reduce_sum(tf.cast(right & (weights > 0), tf.int32))
        of_tables = tf.concat(rows, 0), tf.concat([tf.zeros((0, width)), *values], 0) / scale
        return loss, correct, *of_tables, _laid_out(dense) / scale, _laid_out(changes)

    def _apply(self, rows: Any, values: Any, dense: Any, statistics: Any, scale: Any) -> None:
        tables, first = [], 0
        for at in self._tables:
            size = self._trained[at].shape[0]
            start, end = tf.unstack(tf.searchsorted(rows, [first, first + size]))
            # Dense, since a sparse one would have Keras's optimizers take each step as one of these rows alone.
            own = values[start:end, : self._row_size(at)]
            tables.append(tf.math.unsorted_segment_sum(own, rows[start:end] - first, size))
            first += size
        self._move(tables, dense, scale)
        for variable, change in zip(self._statistics, _shaped(statistics, self._statistics), strict=True):
            whole = tf.as_dtype(variable.dtype).is_integer
            variable.assign_add(tf.cast(tf.round(change) if whole else change, variable.dtype))

    def _optimize(self, tables: list[Any], dense: Any, scale: Any) -> None:
        others = [at for at in range(len(self._trained)) if at not in self._tables]
        found = dict(zip(others, _shaped(dense, [self._trained[at] for at in others]), strict=True))
        found |= zip(self._tables, tables, strict=True)
        for optimizer, _, which in self._parts:
            mine = [self._trained[at] for at in which]
            scaled = [scale * tf.reshape(found[at], each.shape) for at, each in zip(which, mine, strict=True)]
            optimizer.apply([tf.cast(part, each.dtype) for part, each in zip(scaled, mine, strict=True)], mine)


def loss_of(task: Task, logits: Any, wanted: Any) -> tuple[Any, Any]:
    """The losses of reviews, and which of them are answered right.

    Classification has a cross-entropy of their labels, multilabel and ordinal the sum of their outputs' binary ones,
    regression half the squared error.

    Args:
        task: What is asked.
        logits: Outputs before the last activation, float32 [reviews, outputs].
        wanted: See `sentray.task.wanted`.

    Returns:
        float32 [reviews] and bool [reviews]; no number is right or wrong.
    """
    if task == "regression":
        return tf.reduce_sum(0.5 * (logits - wanted) ** 2, 1), tf.zeros_like(logits[:, 0], tf.bool)
    if task == "classification" and logits.shape[1] != 1:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits)
        return losses, tf.argmax(logits, 1, tf.int32) == wanted
    if task == "classification":
        wanted = tf.cast(wanted[:, None], tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits)
    return tf.reduce_sum(losses, 1), tf.reduce_all((logits > 0) == (wanted > 0.5), 1)


def has_zero_padding(model: Any) -> bool:
    """Whether a mean over the padding is taken, so that the padding's vector must be 0."""
    layers = {type(layer).__name__: layer for layer in model.layers}
    return "GlobalAveragePooling1D" in layers and "Embedding" in layers and not layers["Embedding"].mask_zero


def _by_rows(rows: Any, values: Any, zero_padding: bool) -> tuple[Any, Any]:
    """The distinct rows of a table, ascending, and the sums of their values, float32 [rows, size]."""
    distinct, index = tf.unique(rows)
    order = tf.argsort(distinct)
    sums = tf.math.unsorted_segment_sum(values, tf.gather(tf.math.invert_permutation(order), index), tf.size(distinct))
    rows = tf.gather(distinct, order)
    return rows, sums * tf.cast(rows > 0, tf.float32)[:, None] if zero_padding else sums


def _laid_out(parts: list[Any]) -> Any:
    """Values one after the other, float32 [n]."""
    return tf.concat([tf.zeros(0), *(tf.cast(tf.reshape(each, [-1]), tf.float32) for each in parts)], 0)


def _shaped(flat: Any, variables: list[Any]) -> list[Any]:
    """What `_laid_out` laid out, in the shapes of variables."""
    parts = tf.split(flat, [math.prod(each.shape) for each in variables]) if variables else []
    return [tf.reshape(part, each.shape) for part, each in zip(parts, variables, strict=True)]


def _array(variable: Any) -> NDArray[Any]:
    """A variable's values; of bfloat16, which NumPy does not know, as float32."""
    value = tf.convert_to_tensor(variable.value)
    return np.array(tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value)
