"""Keras networks under versioned names. A bundle names the version it was trained with, so a version never changes.

Networks are made of stock Keras layers only, so that plain Keras loads them with safe mode on.
"""

import difflib
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
