"""What computes scores from word ids: `KerasEngine`, and which `Engine` a bundle is scored with."""

import os
import sys
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import models
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.inference.folded import FoldedEngine, Network
from sentray.inference.folding import Unfoldable, describe
from sentray.inference.networks import as_inputs, batch, load_network, require_trust
from sentray.task import probabilities
from sentray.text.encoding import Encoded, cut_all

AUTO = "auto"
GPU_BATCH = 256
"""Reviews of a call of the network on a GPU."""
SPARE = 8
"""Rows of padding behind them. A call has always as many rows for its words, so that a score does not depend on the
reviews beside it, and the last ones are nobody's: matrix products may sum the rest behind a multiple of the vector
width in another order (seen on AVX2: the last two of 33 rows)."""


_Ragged = tuple[NDArray[Any], NDArray[np.int64]]
"""Values of reviews, one review's after the other's, and where each's begin and the last's end."""


class KerasEngine:
    """The bundle's network as Keras runs it, on a GPU where Ray gave the process one.

    Every review is padded to the bundle's length, because the network's output may depend on the padding, or, where
    the network takes any length, to one of a few that its own size names (`models.padded_length`): so rounding does not
    depend on other reviews, and reviews of about one length go through the network together.

    The network is traced once, for any length. XLA, which compiles it anew for each length, is not used: with it an
    LSTM of 64 units took half to 0.8 of the time, a convolution as much and attention two to five times as much, after
    a second and more for each length.

    Args:
        bundle: Bundle whose network to load.
        threads: CPU threads of a network call; all of the machine's where not given. TensorFlow settles this
            once a process: where the process has used TensorFlow before, it has no effect.

    Raises:
        SentrayError: When the network cannot be loaded, or TensorFlow does not see the process's GPU.
    """

    name = "keras"

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        models.prepare_tensorflow(threads)
        import tensorflow as tf

        model = load_network(bundle)
        self._model, self._spec, self.grams, self._process = model, bundle.spec, bundle.grams, os.getpid()
        self._inputs = [each.name for each in model.inputs]
        self._named = str(bundle)
        # Of each input, 0 where it may have any.
        self._fixed = np.array([each.shape[1] or 0 for each in model.inputs])
        self._gpu = bool(tf.config.get_visible_devices("GPU"))
        self._shapes = [tf.TensorSpec((None, each.shape[1]), each.dtype) for each in model.inputs]
        self._network = tf.function(
            lambda *given: model(as_inputs(given), training=False), input_signature=self._shapes
        )

    def scores(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probability of each label for each review, float32 [reviews, labels]; of a regression the numbers.

        Raises:
            SentrayError: In a fork of the process that loaded the network: TensorFlow's threads are not there; or the
                network gives no number.
        """
        return probabilities(self._spec.task, self._run(self._network, encoded))

    def logits(self, encoded: Encoded) -> NDArray[np.float32]:
        """What the last layer makes its probabilities of, float32 [reviews, outputs].

        Raises:
            SentrayError: As `scores`, or the last layer is not dense.
        """
        return self._run(self._logits, encoded)

    @cached_property
    def _logits(self) -> Any:
        """The network without its last activation, traced where it is first asked for."""
        import keras
        import tensorflow as tf

        last = self._model.outputs[0]._keras_history.operation
        if not isinstance(last, keras.layers.Dense):
            raise SentrayError(f"this network cannot be explained: its last layer {last.name} is not dense")
        below = keras.Model(self._model.inputs, last.input)
        return tf.function(
            lambda *given: tf.matmul(tf.cast(below(as_inputs(given)), last.kernel.dtype), last.kernel) + last.bias,
            input_signature=self._shapes,
        )

    @cached_property
    def description(self) -> tuple[Network, dict[str, NDArray[np.float32]]]:
        """The network and its weights as the folded engine takes them, however large.

        Raises:
            SentrayError: It has another shape.
        """
        try:
            return describe(self._model)
        except Unfoldable as error:
            raise SentrayError(
                f"this network cannot be explained ({error}): train one with --model wide-deep"
            ) from error

    def _run(self, network: Any, encoded: Encoded) -> NDArray[np.float32]:
        if os.getpid() != self._process:
            raise SentrayError(
                "a network that Keras loaded cannot be used in a fork of its process; load the bundle in the process "
                "that scores, or train it again with a network that the folded engine computes"
            )
        found = np.empty((len(encoded), self._model.output_shape[1]), np.float32)
        inputs = self._ragged(encoded)
        lengths = np.array([np.diff(offsets) for _, offsets in inputs]).T
        # At most as many ids as the network takes; n-grams may be more.
        most = [sys.maxsize if name in ("grams", "values") else self._spec.max_length for name in self._inputs]
        sizes = np.where(self._fixed == 0, models.padded_length(lengths, most), self._fixed)
        kinds, kind_of = np.unique(sizes, axis=0, return_inverse=True)
        for kind, size in enumerate(kinds):
            alike = np.flatnonzero(kind_of == kind)
            together = GPU_BATCH if self._gpu else batch(size.max())
            for start in range(0, len(alike), together):
                rows = alike[start : start + together]
                given = [
                    _matrix(*each, rows, together + SPARE, columns) for each, columns in zip(inputs, size, strict=True)
                ]
                found[rows] = network(*given).numpy()[: len(rows)]
        if none := np.count_nonzero(~np.isfinite(found).all(axis=1)):
            raise SentrayError(
                f"{self._named} gives no number for {none:,} of {len(found):,} texts (of one without a "
                "known word a mean over masked words is none): train it again with a network that gives one for each"
            )
        return found

    def _ragged(self, encoded: Encoded) -> list[_Ragged]:
        """What the network's inputs take of the reviews."""
        ids, offsets = cut_all(encoded, self._spec.max_length, self._spec.truncating)
        # Without numbers they are as on average.
        numbers = np.zeros((len(encoded), len(self._spec.numeric)), np.float32)
        numbers = numbers if encoded.numbers is None else encoded.numbers
        found: dict[str, _Ragged] = {
            "numbers": (numbers.ravel(), np.arange(len(encoded) + 1, dtype=np.int64) * numbers.shape[1])
        }
        if self.grams is not None:
            grams = self.grams.of(ids, offsets)
            found |= {"grams": (grams.rows, grams.offsets), "values": (grams.values, grams.offsets)}
        return [found.get(name, (ids, offsets)) for name in self._inputs]


def _matrix(
    values: NDArray[Any], offsets: NDArray[np.int64], rows: NDArray[np.int64], height: int, width: int
) -> NDArray[Any]:
    """Some reviews' values as a matrix [height, width], zeros behind them and in the rows that are left."""
    matrix = np.zeros((height, width), values.dtype)
    for line, row in zip(matrix, rows, strict=False):
        own = values[offsets[row] : offsets[row + 1]]
        line[: len(own)] = own
    return matrix


Engine = FoldedEngine | KerasEngine
"""Computes scores of encoded reviews with the network of one bundle; a review's do not depend on the others."""


def choose(name: str, bundle: Bundle) -> str:
    """The name of the engine to use, without loading it; `auto` takes `folded` where the bundle has its files.

    Raises:
        SentrayError: When there is no such engine, or the bundle cannot be scored with it.
    """
    known = (AUTO, FoldedEngine.name, KerasEngine.name)
    if name not in known:
        raise SentrayError(f"there is no engine {name!r}; use {', '.join(known[:-1])} or {known[-1]}")
    if name == FoldedEngine.name and not bundle.folded:
        raise SentrayError(
            f"{bundle} has no folded network: its layers have another shape or its tables would be too "
            f"large, or an older sentray made it; use --engine {KerasEngine.name}, or train it again"
        )
    if name == AUTO:
        name = FoldedEngine.name if bundle.folded else KerasEngine.name
    if name == KerasEngine.name:
        require_trust(bundle)
    return name


def load_engine(name: str, bundle: Bundle, threads: int | None = None) -> Engine:
    """The engine called `name`, loaded.

    Raises:
        SentrayError: When there is no such engine or it cannot serve the bundle.
    """
    if choose(name, bundle) == FoldedEngine.name:
        return FoldedEngine(bundle)
    return KerasEngine(bundle, threads)
