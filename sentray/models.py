"""Keras networks under versioned names. A bundle names the version it was trained with, so a version never changes.

Networks are made of stock Keras layers only, so that plain Keras loads them with safe mode on.
"""

import contextlib
import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sentray.errors import SentrayError


@dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Attributes:
        name: Versioned name.
        least_length: Fewest word ids a review must be padded to.
        build: Makes the Keras model from (embedding rows, word ids a review, classes).
    """

    name: str
    least_length: int
    build: Callable[[int, int, int], Any]


def architecture(name: str) -> Architecture:
    """The network called `name`; a name without version means its latest version.

    Raises:
        SentrayError: There is no such network.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    versions = [known for known in ARCHITECTURES if known.rpartition(".v")[0] == name]
    if versions:
        return ARCHITECTURES[max(versions, key=lambda known: int(known.rpartition(".v")[2]))]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=1) or list(ARCHITECTURES)
    raise SentrayError(f"there is no model {name!r}; the nearest is {near[0]!r}")


def prepare_tensorflow(threads: int | None = None) -> None:
    """Make TensorFlow quiet and sparing: `threads` CPU threads, and GPU memory only as needed.

    TensorFlow settles both once a process; where the process has used it before, this has no effect.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)


def output(classes: int) -> Any:
    """The last layer: one sigmoid unit for two classes (the probability of the second), else a softmax."""
    from keras import layers

    return layers.Dense(1, activation="sigmoid") if classes == 2 else layers.Dense(classes, activation="softmax")


def _tutorial_cnn_v1(rows: int, length: int, classes: int) -> Any:
    # Jason Brownlee, "Deep Convolutional Neural Network for Sentiment Analysis", with its sizes.
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((length,), dtype="int32", name="ids"),
            layers.Embedding(rows, 100),
            layers.Conv1D(32, 8, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Flatten(),
            layers.Dense(10, activation="relu"),
            output(classes),
        ],
        name="tutorial_cnn_v1",
    )


ARCHITECTURES = {known.name: known for known in (Architecture("tutorial-cnn.v1", 9, _tutorial_cnn_v1),)}
