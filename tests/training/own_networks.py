"""Functions as a user writes them, for `--model`: one that is as it should be, and what is refused."""

from typing import Any

import keras
import numpy as np
from keras import layers

import sentray


class Gate(layers.Layer):
    """Weighs each vector by a learnt share of it."""

    def __init__(self, least: float = 0.0, **others: Any) -> None:
        super().__init__(**others)
        self.least, self.supports_masking = least, True

    def build(self, shape: tuple[int, ...]) -> None:
        self.gate = self.add_weight(shape=(shape[-1], 1))

    def call(self, values: Any) -> Any:
        return values * (self.least + keras.ops.sigmoid(keras.ops.matmul(values, self.gate)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "least": self.least}


def build(spec: sentray.NetworkSpec, policy: str = "mixed_float16") -> keras.Model:
    """LSTM, a layer of its own, dropout, statistics, mixed precision, an optimizer and a schedule."""
    ids = spec.ids(fixed=False)
    values = Gate(0.1, dtype=policy)(spec.embedding(mask=True)(ids))
    values = layers.LSTM(4, recurrent_dropout=0.1, dtype=policy)(values)
    values = layers.Dropout(0.2, dtype=policy)(layers.BatchNormalization(dtype=policy)(values))
    model = keras.Model(ids, spec.output()(values))
    optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.02, 200), clipnorm=5.0)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer))
    return model


class Forgetful(Gate):
    """Does not say what it was made with."""

    def __init__(self, size: int) -> None:
        super().__init__()

    def get_config(self) -> dict[str, Any]:
        return {}


def raising(spec: sentray.NetworkSpec) -> keras.Model:
    raise ValueError("out of ideas")


def no_model(spec: sentray.NetworkSpec) -> Any:
    return "a model"


def other_inputs(spec: sentray.NetworkSpec) -> keras.Model:
    words = keras.Input((spec.length,), dtype="int32", name="words")
    return keras.Model(words, spec.output()(layers.Flatten()(spec.embedding()(words))))


def other_end(spec: sentray.NetworkSpec) -> keras.Model:
    ids = spec.ids()
    return keras.Model(ids, layers.Dense(1, "sigmoid")(layers.Flatten()(spec.embedding()(ids))))


def of_each_word(spec: sentray.NetworkSpec) -> keras.Model:
    ids = spec.ids()
    return keras.Model(ids, spec.output()(spec.embedding()(ids)))


def with_lambda(spec: sentray.NetworkSpec) -> keras.Model:
    ids = spec.ids()
    flat = layers.Flatten()(spec.embedding()(ids))
    return keras.Model(ids, spec.output()(layers.Lambda(lambda values: 2 * values)(flat)))


def masked_mean(spec: sentray.NetworkSpec) -> keras.Model:
    ids = spec.ids(fixed=False)
    return keras.Model(ids, spec.output()(layers.GlobalAveragePooling1D()(spec.embedding(mask=True)(ids))))


def own_vectors(spec: sentray.NetworkSpec) -> keras.Model:
    """Words' vectors that know nothing of the settings, and a step of Keras that is not known to be harmless."""
    ids = spec.ids()
    vectors = layers.Flatten()(layers.Embedding(spec.rows, 3)(ids))
    return keras.Model(ids, spec.output()(keras.ops.repeat(vectors * np.ones(3 * spec.length), 2, axis=1)))


def forgetful(spec: sentray.NetworkSpec) -> keras.Model:
    ids = spec.ids()
    return keras.Model(ids, spec.output()(layers.Flatten()(Forgetful(3)(spec.embedding()(ids)))))
