"""What computes scores from word ids: `KerasEngine`, and which `Engine` a bundle is scored with."""

import os

import numpy as np
from numpy.typing import NDArray

from sentray import models
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.inference.folded import FoldedEngine
from sentray.inference.networks import load_network
from sentray.text.encoding import Encoded, pad

AUTO = "auto"
BATCH, GPU_BATCH = 32, 256
"""Reviews of a call of the network."""
SPARE = 8
"""Rows of padding behind them. A call has always as many rows, so that a score does not depend on the reviews beside
it, and the last ones are nobody's: matrix products may sum the rest behind a multiple of the vector width in another
order (seen on AVX2: the last two of 33 rows)."""


class KerasEngine:
    """The bundle's network as Keras runs it, on a GPU where Ray gave the process one.

    Every review is padded to the bundle's length, because the network's output may depend on the padding.

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
        self._spec, self._process = bundle.spec, os.getpid()
        self._batch = GPU_BATCH if tf.config.get_visible_devices("GPU") else BATCH
        self._network = tf.function(
            lambda ids: model(ids, training=False),
            input_signature=[tf.TensorSpec((self._batch + SPARE, bundle.spec.max_length), tf.int32)],
        )

    def scores(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probability of each label for each review, float32 [reviews, labels].

        Raises:
            SentrayError: In a fork of the process that loaded the network: TensorFlow's threads are not there.
        """
        if os.getpid() != self._process:
            raise SentrayError(
                "a network that Keras loaded cannot be used in a fork of its process; load the bundle in the process "
                "that scores, or train it again with a network that the folded engine computes"
            )
        spec = self._spec
        scores = np.empty((len(encoded), len(spec.labels)), np.float32)
        ids = np.zeros((self._batch + SPARE, spec.max_length), np.int32)
        for start in range(0, len(encoded), self._batch):
            rows = np.arange(start, min(start + self._batch, len(encoded)))
            ids[: len(rows)] = pad(encoded, rows, spec.max_length, spec.truncating)
            output: NDArray[np.float32] = self._network(ids).numpy()[: len(rows)]
            scores[rows] = np.hstack([1 - output, output]) if output.shape[1] == 1 else output
        return scores


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
        return FoldedEngine.name if bundle.folded else KerasEngine.name
    return name


def load_engine(name: str, bundle: Bundle, threads: int | None = None) -> Engine:
    """The engine called `name`, loaded.

    Raises:
        SentrayError: When there is no such engine or it cannot serve the bundle.
    """
    if choose(name, bundle) == FoldedEngine.name:
        return FoldedEngine(bundle)
    return KerasEngine(bundle, threads)
