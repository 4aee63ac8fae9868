"""Networks as a user writes them, for the tests of networks of functions."""

import keras
from keras import layers, ops

from sentray import NetworkSpec


class Weigh(layers.Layer):
    """A mean of the words' vectors, each weighted by how it likes a vector that is learnt (Yang et al. 2016)."""

    supports_masking = True

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the vector."""
        self.query = self.add_weight(shape=(shape[-1], 1), name="query")

    def call(self, words: keras.KerasTensor) -> keras.KerasTensor:
        """Weigh words [reviews, words, dimensions]."""
        return ops.sum(ops.softmax(ops.matmul(words, self.query), axis=1) * words, axis=1)


def lstm(spec: NetworkSpec) -> keras.Model:
    """An LSTM whose states are weighed by a layer of the user's own."""
    ids = spec.ids(fixed=False)
    states = layers.LSTM(8, return_sequences=True)(spec.embedding(mask=True)(ids))
    return keras.Model(ids, spec.output()(layers.Dropout(0.3)(Weigh(name="weigh")(states))))


def recurrent(spec: NetworkSpec) -> keras.Model:
    """Many kinds of stock layers, partly in mixed precision."""
    ids = spec.ids(fixed=False)
    words = layers.SpatialDropout1D(0.2)(spec.embedding()(ids))
    states = layers.Bidirectional(layers.LSTM(6, return_sequences=True, kernel_regularizer="l2"))(words)
    states = layers.BatchNormalization()(layers.SeparableConv1D(8, 3, padding="same", activation="gelu")(states))
    states = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4, dtype="mixed_bfloat16")(states, states))
    found = layers.Concatenate()([layers.GRU(5)(states), layers.GlobalMaxPooling1D()(states)])
    inner = keras.Sequential([layers.Dense(7, activation=keras.activations.silu), layers.LeakyReLU()])(found)
    model = keras.Model(ids, spec.output()(inner * 0.5 + ops.softmax(inner)))
    model.compile(optimizer=keras.optimizers.AdamW(1e-3))
    return model


def wider(spec: NetworkSpec) -> keras.Model:
    """Stock layers and operations of fewer users, and a constant."""
    ids = spec.ids()
    words = spec.embedding()(ids)
    words = ops.flip(ops.normalize(words + ops.sin(ops.ones(words.shape[1:]))), axis=1)
    image = layers.GlobalMaxPooling2D()(layers.Conv2D(4, (2, 3))(ops.expand_dims(words, -1)))
    best = layers.Flatten()(ops.top_k(ops.transpose(words, (0, 2, 1)), 2)[0])
    longer = layers.GlobalMaxPooling1D()(layers.Conv1DTranspose(3, 2, strides=2)(words))
    return keras.Model(
        ids, spec.output()(layers.Concatenate()([image, best, longer, ops.mean(ops.one_hot(ids, 5), 1)]))
    )


def cnn(spec: NetworkSpec) -> keras.Model:
    """Parallel convolutions (Kim 2014)."""
    ids = spec.ids()
    words = spec.embedding()(ids)
    units = [layers.Conv1D(4, width, activation="relu")(words) for width in (2, 3, 4)]
    found = layers.Concatenate()([layers.GlobalMaxPooling1D()(each) for each in units])
    return keras.Model(ids, spec.output()(layers.Dropout(0.5)(found)))
