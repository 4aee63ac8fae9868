"""What computes scores from word ids."""

from typing import Any, Protocol

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
"""Rows of every call of the network: always as many, so that a row's score does not depend on those beside it."""
_MIN_LENGTH = 64
_FOLDED = (FoldedEngine.name, FoldedEngine.half_name)


class Engine(Protocol):
    """Computes scores of encoded reviews with the network of one bundle."""

    name: str

    def scores(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probability of each label, float32 [reviews, labels]; a review's does not depend on the others."""
        ...


class KerasEngine:
    """The bundle's network as Keras runs it, on a GPU where Ray gave the process one.

    Every review is padded to the bundle's length, because the network's output may depend on the padding. Only where
    the network takes any length and masks the padding, it is padded to the next of a few lengths.

    Args:
        bundle: Bundle whose network to load.
        threads: CPU threads of a network call; all of the machine's where not given. TensorFlow settles this
            once a process: where the process has used TensorFlow before, it has no effect.

    Raises:
        SentrayError: When the network cannot be loaded or does not fit the bundle's length and labels, or TensorFlow
            does not see the process's GPU.
    """

    name = "keras"

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        models.prepare_tensorflow(threads)
        import tensorflow as tf

        model = load_network(bundle)
        _check_shapes(model, bundle)
        self._bundle = bundle
        self._batch = GPU_BATCH if tf.config.get_visible_devices("GPU") else BATCH
        masked = model.input_shape[1] is None and any(getattr(layer, "mask_zero", False) for layer in model.layers)
        self._lengths = np.array(_lengths(bundle.max_length) if masked else [bundle.max_length])
        self._networks = {
            length: tf.function(
                lambda ids: model(ids, training=False),
                input_signature=[tf.TensorSpec((self._batch, length), tf.int32)],
            )
            for length in self._lengths.tolist()
        }

    def scores(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probability of each label for each review, float32 [reviews, labels]."""
        scores = np.empty((len(encoded), len(self._bundle.labels)), np.float32)
        padded = self._lengths[np.searchsorted(self._lengths[:-1], encoded.lengths)]
        for length, network in self._networks.items():
            rows = np.flatnonzero(padded == length)
            ids = np.zeros((self._batch, length), np.int32)
            for start in range(0, len(rows), self._batch):
                chosen = rows[start : start + self._batch]
                ids[: len(chosen)] = pad(encoded, chosen, length, self._bundle.truncating)
                output: NDArray[np.float32] = network(ids).numpy()[: len(chosen)]
                scores[chosen] = np.hstack([1 - output, output]) if output.shape[1] == 1 else output
        return scores


def _lengths(most: int) -> list[int]:
    """A few lengths up to the largest, each twice the one before."""
    lengths = [most]
    while lengths[0] > _MIN_LENGTH:
        lengths.insert(0, -(-lengths[0] // 2))
    return lengths


def choose(name: str, bundle: Bundle) -> str:
    """The name of the engine to use, without loading it; `auto` takes `folded` where the bundle has its files.

    Raises:
        SentrayError: When there is no such engine, or the bundle cannot be scored with it.
    """
    if name not in (AUTO, *_FOLDED, KerasEngine.name):
        raise SentrayError(f"there is no engine {name!r}; use {AUTO}, {', '.join(_FOLDED)} or {KerasEngine.name}")
    if name in _FOLDED and not bundle.folded:
        raise SentrayError(
            f"the bundle {bundle.path} has no folded network: its layers have another shape or its tables would be too "
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
    chosen = choose(name, bundle)
    if chosen in _FOLDED:
        return FoldedEngine(bundle, half=chosen == FoldedEngine.half_name)
    return KerasEngine(bundle, threads)


def _check_shapes(model: Any, bundle: Bundle) -> None:
    taken, given = model.input_shape, model.output_shape
    outputs = (1, 2) if len(bundle.labels) == 2 else (len(bundle.labels),)
    if len(taken) != 2 or taken[1] not in (None, bundle.max_length) or len(given) != 2 or given[1] not in outputs:
        raise SentrayError(
            f"the network in {bundle.model_file} maps {taken} to {given}, which does not fit the bundle's "
            f"{bundle.max_length} word ids and {len(bundle.labels)} labels; train the bundle again"
        )
    rows = [layer.input_dim for layer in model.layers if type(layer).__name__ == "Embedding"]
    if any(size < bundle.vocabulary.size for size in rows):
        raise SentrayError(
            f"the network in {bundle.model_file} has vectors for {min(rows):,} word ids, which does not fit the "
            f"bundle's {bundle.vocabulary.size:,}; train the bundle again"
        )
