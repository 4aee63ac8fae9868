"""What computes scores from word ids."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sentray import models
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.text.encoding import Encoded, pad

AUTO = "auto"
BATCH = 32
"""Rows of every call of the network: with one shape only, a row's score is the same whatever is beside it."""


class Engine(Protocol):
    """Computes scores of encoded reviews with the network of one bundle."""

    name: str

    def scores(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probability of each label, float32 [reviews, labels]; a review's does not depend on the others."""
        ...


class KerasEngine:
    """The bundle's network as Keras runs it, on a GPU where TensorFlow sees one.

    Every review is padded to the bundle's length, because the network's output may depend on the padding.

    Args:
        bundle: Bundle whose network to load.
        threads: CPU threads of a network call; all of the machine's where not given. TensorFlow settles this
            once a process: where the process has used TensorFlow before, it has no effect.

    Raises:
        SentrayError: When the network cannot be loaded or does not fit the bundle's length and labels.
    """

    name = "keras"

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        models.prepare_tensorflow(threads)
        import keras
        import tensorflow as tf

        try:
            model = keras.models.load_model(bundle.model_file, compile=False, safe_mode=True)
        # Keras lets through whatever the reading of a foreign file raises: zip, HDF5, JSON, its own errors.
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SentrayError(
                f"Keras {keras.__version__} cannot load {bundle.model_file} ({reason}); it was made by Keras "
                f"{bundle.versions.get('keras', '?')}: install that version or train the bundle again"
            ) from error
        _check_shapes(model, bundle)
        self._bundle = bundle
        signature = tf.TensorSpec((BATCH, bundle.max_length), tf.int32)
        self._network = tf.function(lambda ids: model(ids, training=False), input_signature=[signature])

    def scores(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probability of each label for each review, float32 [reviews, labels]."""
        rows, length = len(encoded.words), self._bundle.max_length
        outputs = [np.empty((0, len(self._bundle.labels)), np.float32)]
        ids = np.zeros((BATCH, length), np.int32)
        for start in range(0, rows, BATCH):
            chosen = np.arange(start, min(start + BATCH, rows))
            ids[: len(chosen)] = pad(encoded, chosen, length, self._bundle.truncating)
            output: NDArray[np.float32] = self._network(ids).numpy()[: len(chosen)]
            outputs.append(np.hstack([1 - output, output]) if output.shape[1] == 1 else output)
        return np.concatenate(outputs)


def choose(name: str) -> str:
    """The name of the engine to use, without loading it; `auto` is the fastest there is.

    Raises:
        SentrayError: When there is no such engine.
    """
    if name not in (AUTO, KerasEngine.name):
        raise SentrayError(f"there is no engine {name!r}; use {AUTO} or {KerasEngine.name}")
    return KerasEngine.name


def load_engine(name: str, bundle: Bundle, threads: int | None = None) -> Engine:
    """The engine called `name`, loaded.

    Raises:
        SentrayError: When there is no such engine or it cannot serve the bundle.
    """
    choose(name)
    return KerasEngine(bundle, threads)


def _check_shapes(model: Any, bundle: Bundle) -> None:
    taken, given = model.input_shape, model.output_shape
    outputs = (1, 2) if len(bundle.labels) == 2 else (len(bundle.labels),)
    if len(taken) != 2 or taken[1] not in (None, bundle.max_length) or len(given) != 2 or given[1] not in outputs:
        raise SentrayError(
            f"the network in {bundle.model_file} maps {taken} to {given}, which does not fit the bundle's "
            f"{bundle.max_length} word ids and {len(bundle.labels)} labels; train the bundle again"
        )
