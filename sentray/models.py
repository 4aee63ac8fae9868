"""Keras networks under versioned names. A bundle names the version it was trained with, so a version never changes.

Networks are made of stock Keras layers only, so that plain Keras loads them with safe mode on.
"""

import contextlib
import difflib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.errors import SentrayError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Attributes:
        name: Versioned name.
        min_length: Fewest word ids a review must be padded to.
        dimensions: Numbers of a word's vector where nothing else is asked for.
        layers: Makes the layers behind the embedding, but for the last, which is `output`, from `keras.layers`.
    """

    name: str
    min_length: int
    dimensions: int
    layers: Callable[[Any], list[Any]]

    def build(
        self, rows: int, length: int, classes: int, vectors: Floats | int | None = None, freeze: bool = False
    ) -> Any:
        """Make the Keras model.

        Args:
            rows: Rows of the embedding: ids, the padding's 0 among them.
            length: Word ids a review is padded or cut to.
            classes: How many labels.
            vectors: First values of the embedding, float32 [rows, dimensions], or the number of dimensions.
            freeze: Whether the embedding stays as it is.
        """
        import keras
        from keras import layers

        dimensions = vectors.shape[1] if isinstance(vectors, np.ndarray) else vectors or self.dimensions
        embedding = layers.Embedding(rows, dimensions, trainable=not freeze)
        name = self.name.replace("-", "_").replace(".", "_")
        ids = keras.Input((length,), dtype="int32", name="ids")
        model = keras.Sequential([ids, embedding, *self.layers(layers), output(classes)], name=name)
        if isinstance(vectors, np.ndarray):
            embedding.set_weights([vectors])
        return model


def architecture(name: str) -> Architecture:
    """The network called `name`; a name without version means its latest version.

    Raises:
        SentrayError: There is no such network.
    """
    # In their order, so that a later version takes the place of an earlier.
    latest = {known.rpartition(".v")[0]: known for known in ARCHITECTURES}
    if found := ARCHITECTURES.get(latest.get(name, name)):
        return found
    near = difflib.get_close_matches(name, ARCHITECTURES, n=1) or list(ARCHITECTURES)
    raise SentrayError(f"there is no model {name!r}; the nearest is {near[0]!r}")


def prepare_tensorflow(threads: int | None = None) -> None:
    """Make TensorFlow quiet and sparing: `threads` CPU threads, the GPU that Ray gave this process and no other.

    GPU memory is taken as it is needed. On a GPU float32 is computed as float32 and not, as TensorFlow would, as TF32,
    which has 10 bits of precision. TensorFlow settles devices and threads once a process; where the process has used it
    before, they stay as they are.

    Raises:
        SentrayError: Ray gave this process a GPU and TensorFlow sees none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    # A process that Ray gave none still sees all GPUs of its node (Ray 2.60; RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO).
    gpus = tf.config.list_physical_devices("GPU") if (given := _given_gpus()) else []
    if given and not gpus:
        import ray

        raise SentrayError(
            f"the worker on {ray.util.get_node_ip_address()} was given GPU {', '.join(given)} and TensorFlow sees "
            "none: install tensorflow[and-cuda] there, or leave out --gpu"
        )
    tf.config.experimental.enable_tensor_float_32_execution(False)
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)


def _given_gpus() -> list[str]:
    """Numbers of the GPUs that Ray gave this process; none in a process that is no worker of Ray's."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return []
    given: list[str] = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return given


def keras_file(model: Any) -> bytes:
    """A network as a Keras 3 file, the content of `model.keras`."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        return Path(folder, "model.keras").read_bytes()


def output(classes: int) -> Any:
    """The last layer: one sigmoid unit for two classes (the probability of the second), else a softmax."""
    from keras import layers

    return layers.Dense(1, activation="sigmoid") if classes == 2 else layers.Dense(classes, activation="softmax")


ARCHITECTURES = {
    known.name: known
    for known in (
        # Jason Brownlee, "Deep Convolutional Neural Network for Sentiment Analysis", with its sizes.
        Architecture(
            "tutorial-cnn.v1",
            min_length=9,
            dimensions=100,
            layers=lambda layers: [
                layers.Conv1D(32, 8, activation="relu"),
                layers.MaxPooling1D(2),
                layers.Flatten(),
                layers.Dense(10, activation="relu"),
            ],
        ),
        # The same, for vectors from word2vec and GloVe.
        Architecture(
            "pretrained-cnn.v1",
            min_length=6,
            dimensions=100,
            layers=lambda layers: [
                layers.Conv1D(128, 5, activation="relu"),
                layers.MaxPooling1D(2),
                layers.Flatten(),
            ],
        ),
        # Jason Brownlee, "How to Use Word Embedding Layers for Deep Learning with Keras".
        Architecture("embedding-mlp.v1", min_length=1, dimensions=8, layers=lambda layers: [layers.Flatten()]),
        # The mean of a review's word vectors, as in fastText (Joulin et al. 2017), brought to one scale (Ba et al.
        # 2016): neither length nor the vectors' norm matters. The padding's vector is 0, so that no mask is needed,
        # with which an empty review's mean would be no number; epsilon is far below the variance of one word's share.
        Architecture(
            "embedding-average.v1",
            min_length=1,
            dimensions=100,
            layers=lambda layers: [
                layers.GlobalAveragePooling1D(),
                layers.LayerNormalization(center=False, scale=False, epsilon=1e-12),
            ],
        ),
    )
}
