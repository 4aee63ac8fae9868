"""Keras networks under versioned names, and those that a user's function builds from a `NetworkSpec`.

A bundle names the version it was trained with, so a version never changes. Networks of a name are made of stock Keras
layers only, so that plain Keras loads them with safe mode on. Functions follow one contract, see `NetworkSpec`.
"""

import contextlib
import difflib
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from sentray.errors import SentrayError, first_line
from sentray.task import Task, activation, outputs

Floats = NDArray[np.float32]
WIDE, DEEP = "wide", "deep"
"""Names of the halves."""
EMBEDDING, OUTPUT = "embedding", "output"
"""Names of the layers of words' vectors and of the last one; that of n-grams' weights is `WIDE`."""
IDS, NUMBERS = "ids", "numbers"
"""Names of the inputs of a function's network."""
FUNCTION = "function"
"""The architecture of a bundle whose network a user's function built."""
MIN_PADDED = 8


class DeepSpec(BaseModel):
    """How large the deep half of a network is; in a bundle, since the network is rebuilt from it.

    Attributes:
        widths: Words of the windows that are averaged.
        filters: Rectified units that look at the windows of each width.
        dimensions: Numbers of a word's vector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    widths: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(min_length=1, max_length=16)
    filters: int = Field(ge=1, le=1 << 14)
    dimensions: int = Field(ge=1, le=1 << 14)


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is made for: what a function `build(spec) -> keras.Model` gets.

    The model's inputs are `ids()` and, where reviews come with numbers, `numbers_input()`, its last layer is
    `output()`, and between them may be any layers. It may be compiled with an optimizer, without a loss.

    Attributes:
        rows: Rows of the embedding: the words' ids from 1 on, and the padding's 0.
        length: Word ids a review is cut to and, where `ids` has a fixed length, padded to.
        classes: How many labels.
        dimensions: Numbers of a word's vector.
        freeze: Whether the words' vectors stay as they are.
        gram_rows: Rows of the n-grams' weights, the padding's 0 among them.
        deep: Sizes of the deep half; None where there is none.
        task: What is asked of a review.
        numbers: How many numbers a review has besides its text.
        labels: Names of the labels.
        vectors: First values of the words' vectors, float32 [rows, dimensions]; None where Keras draws them.
    """

    rows: int
    length: int
    classes: int
    dimensions: int
    freeze: bool = False
    gram_rows: int = 1
    deep: DeepSpec | None = None
    task: Task = "classification"
    numbers: int = 0
    labels: tuple[str, ...] = ()
    vectors: Floats | None = field(default=None, repr=False)

    @property
    def outputs(self) -> int:
        """Numbers that the network gives for a review."""
        return outputs(self.task, self.classes)

    def ids(self, fixed: bool = True) -> Any:
        """The input of a review's word ids, int32 [reviews, words], padded behind with 0.

        Args:
            fixed: Whether every review is padded to `length`, or to a length of `padded_length`; a network of any
                length should mask the padding, as layers behind `embedding(mask=True)` do.
        """
        import keras

        return keras.Input((self.length if fixed else None,), dtype="int32", name=IDS)

    def numbers_input(self) -> Any:
        """The input of a review's numbers, float32 [reviews, numbers], standardised."""
        import keras

        return keras.Input((self.numbers,), dtype="float32", name=NUMBERS)

    def embedding(self, mask: bool = False, name: str = EMBEDDING) -> Any:
        """A layer of words' vectors with their first values, float32 [..., dimensions].

        Args:
            mask: Whether the layers behind it leave out the padding. A mean over the words (GlobalAveragePooling1D)
                is then no number for a review without a known word, and refused.
            name: Of the layer; a network of several needs others.
        """
        from keras import layers

        layer = layers.Embedding(self.rows, self.dimensions, mask_zero=mask, trainable=not self.freeze, name=name)
        if self.vectors is not None:
            layer.build()
            layer.set_weights([self.vectors])
        return layer

    def output(self) -> Any:
        """The last layer: a dense one of the task's outputs and activation, computed in float32."""
        from keras import layers

        return layers.Dense(self.outputs, activation=activation(self.task, self.classes), dtype="float32", name=OUTPUT)


def padded_length(words: NDArray[np.integer[Any]], most: ArrayLike) -> NDArray[np.int64]:
    """To how many ids reviews are padded in a network of any length, in training and in scoring.

    Powers of two and the halves between them from 8 on (8, 12, 16, 24, ...), at most `most`: few, so that a network is
    traced for each once, and less than a third of a longer review's ids is padding.

    Args:
        words: Ids of each review, [...].
        most: Ids that the network takes at most.
    """
    power = np.int64(1) << np.ceil(np.log2(np.maximum(words, MIN_PADDED))).astype(np.int64)
    between = power // 4 * 3
    padded: NDArray[np.int64] = np.minimum(np.where((words <= between) & (between > MIN_PADDED), between, power), most)
    return padded


@dataclass(frozen=True)
class Architecture(ABC):
    """How a network is built.

    Attributes:
        name: Versioned name.
        min_length: Fewest word ids a review must be padded to.
        dimensions: Numbers of a word's vector where nothing else is asked for; 0 where no word has one.
        heads: The parts that are trained beside each other, each by a loss of its own.
    """

    name: str
    min_length: int
    dimensions: int
    heads: tuple[str, ...] = field(default=("network",), kw_only=True)

    def build(
        self,
        rows: int,
        length: int,
        classes: int,
        vectors: Floats | int | None = None,
        freeze: bool = False,
        *,
        gram_rows: int = 1,
        deep: DeepSpec | None = None,
        task: Task = "classification",
        numbers: int = 0,
        labels: tuple[str, ...] = (),
    ) -> Any:
        """Make the Keras model.

        Args:
            rows: Rows of the embedding: ids, the padding's 0 among them.
            length: Word ids a review is padded or cut to.
            classes: How many labels.
            vectors: First values of the embedding, float32 [rows, dimensions], or the number of dimensions.
            freeze: Whether the embedding stays as it is.
            gram_rows: Rows of the n-grams' weights, the padding's 0 among them.
            deep: Sizes of the deep half; None where there is none.
            task: What is asked of a review.
            numbers: How many numbers a review has besides its text.
            labels: Names of the labels.
        """
        first = vectors if isinstance(vectors, np.ndarray) else None
        dimensions = vectors.shape[1] if isinstance(vectors, np.ndarray) else vectors or self.dimensions
        sizes = (rows, length, classes, dimensions, freeze, gram_rows, deep)
        return self._model(NetworkSpec(*sizes, task, numbers, labels, first))

    @abstractmethod
    def _model(self, spec: NetworkSpec) -> Any:
        """The Keras model with its first values."""

    @property
    def _model_name(self) -> str:
        return self.name.replace("-", "_").replace(".", "_")


@dataclass(frozen=True)
class Stack(Architecture):
    """A network of one layer on top of the other.

    Attributes:
        layers: Makes the layers behind the embedding, but for the last, which is `output`, from `keras.layers`.
    """

    layers: Callable[[Any], list[Any]]

    def _model(self, spec: NetworkSpec) -> Any:
        import keras
        from keras import layers

        given = [spec.ids(), spec.embedding(), *self.layers(layers)]
        if spec.numbers:
            hidden = functools.reduce(lambda values, layer: layer(values), given)
            return _finished(spec, given[0], hidden)
        return keras.Sequential([*given, spec.output()], name=self._model_name)


@dataclass(frozen=True)
class Built(Architecture):
    """A network that a function builds, ours or a user's.

    Attributes:
        function: Builds it from what it is made for.
        source: `package.module:function`, where it is a user's; its architecture is `FUNCTION`.
    """

    function: Callable[[NetworkSpec], Any]
    source: str = field(default="", kw_only=True)

    def _model(self, spec: NetworkSpec) -> Any:
        return self.function(spec)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the source of the function's module, or of the function where a notebook has it.

        Raises:
            SentrayError: There is no source to be read.
        """
        if self.source in DIGESTS:
            return DIGESTS[self.source]
        module = sys.modules[self.function.__module__]
        try:
            path = getattr(module, "__file__", None)
            content = Path(path).read_bytes() if path else inspect.getsource(self.function).encode()
        except (OSError, TypeError) as error:
            raise SentrayError(
                f"the source of --model {self.source} cannot be read ({first_line(error)}): put it into a file"
            ) from error
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Halves(Architecture):
    """A wide half, a deep half, or both beside each other (Cheng et al. 2016), under one last layer that mixes them.

    The wide half is the sum of the weights of a review's n-grams, each times its value, and the deep half looks at the
    means of all windows of some widths, by rectified units whose maximum counts, and at the mean of all vectors. Both
    take any number of ids; what is behind a review is padded with 0. The vectors and weights of row 0 are 0 and the
    units have no bias, so that a window of padding gives 0, which is no unit's maximum unless all else is 0 too; the
    windows at both ends, which hold padding, are means over their whole width like the others. So a review has one
    score at any padded length. `heads` are the halves it has.
    """

    def _model(self, spec: NetworkSpec) -> Any:
        import keras
        from keras import layers

        made = [_HALVES[head](spec) for head in self.heads]
        features = [feature for _, values in made for feature in values]
        values = layers.Concatenate()(features) if len(features) > 1 else features[0]
        inputs = [each for given, _ in made for each in given]
        return keras.Model(inputs, spec.output()(values), name=self._model_name)


def _wide(spec: NetworkSpec) -> tuple[list[Any], list[Any]]:
    """The inputs and features of a wide half: for each review its n-grams' rows and values, and the sum of weights."""
    import keras
    from keras import layers

    grams = keras.Input((None,), dtype="int32", name="grams")
    values = keras.Input((None,), dtype="float32", name="values")
    weights = layers.Embedding(spec.gram_rows, spec.outputs, "zeros", name=WIDE)(grams)
    return [grams, values], [layers.Dot(axes=1)([weights, values])]


def _deep(spec: NetworkSpec) -> tuple[list[Any], list[Any]]:
    """The inputs and features of a deep half: for each review its word ids; the units of each width, and the mean.

    Its numbers, where it has any, are inputs and features as they are.
    """
    import keras
    from keras import layers

    assert spec.deep is not None
    ids = keras.Input((None,), dtype="int32", name="ids")
    vectors = layers.Embedding(spec.rows, spec.deep.dimensions, trainable=not spec.freeze, name=EMBEDDING)(ids)
    features = []
    for width in spec.deep.widths:
        windows = layers.AveragePooling1D(width, 1)(layers.ZeroPadding1D(width - 1)(vectors))
        units = layers.Conv1D(spec.deep.filters, 1, activation="relu", use_bias=False, name=f"units{width}")(windows)
        features.append(layers.GlobalMaxPooling1D()(units))
    # Of a mean over much padding the variance is small: epsilon is smaller still.
    normalized = layers.LayerNormalization(center=False, scale=False, epsilon=1e-20)
    numbers = [spec.numbers_input()] if spec.numbers else []
    return [ids, *numbers], [*features, normalized(layers.GlobalAveragePooling1D()(vectors)), *numbers]


_HALVES = {WIDE: _wide, DEEP: _deep}


def _kim_cnn(spec: NetworkSpec) -> Any:
    """Convolutions of several widths over a review's vectors, each unit's maximum, dropout (Kim 2014)."""
    from keras import layers

    ids = spec.ids()
    vectors = spec.embedding()(ids)
    units = [layers.Conv1D(100, width, activation="relu", name=f"units{width}")(vectors) for width in (3, 4, 5)]
    found = layers.Concatenate()([layers.GlobalMaxPooling1D()(each) for each in units])
    return _finished(spec, ids, layers.Dropout(0.5)(found))


def _bilstm(spec: NetworkSpec) -> Any:
    """Long short-term memories that read a review from both ends (Graves and Schmidhuber 2005), dropout."""
    from keras import layers

    ids = spec.ids(fixed=False)
    found = layers.Bidirectional(layers.LSTM(64))(spec.embedding(mask=True)(ids))
    return _finished(spec, ids, layers.Dropout(0.5)(found))


def _finished(spec: NetworkSpec, ids: Any, features: Any) -> Any:
    """The model of these ids and features, which a review's numbers join."""
    import keras

    if not spec.numbers:
        return keras.Model(ids, spec.output()(features))
    numbers = spec.numbers_input()
    return keras.Model([ids, numbers], spec.output()(keras.layers.Concatenate()([features, numbers])))


GIVEN: dict[str, Any] = {}
"""Functions and classes that came to this process by value, by their names: `package.module:name`."""
DIGESTS: dict[str, str] = {}
"""Of their sources, `Built.digest`, where they are known: the source itself does not travel."""


def name_of(function: Callable[[NetworkSpec], Any]) -> str:
    """The name by which `resolve` finds a function again.

    Raises:
        SentrayError: It has none, as one within another function.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if not name.isidentifier() or not hasattr(function, "__code__"):
        raise SentrayError(f"model={name} is no function at the top of a module or notebook: define it there")
    return f"{function.__module__}:{name}"


def packed(names: Sequence[str]) -> bytes:
    """Functions and classes by value, so that a process can `unpack` them that cannot import their modules.

    Args:
        names: Of each, `package.module:name`.
    """
    from ray import cloudpickle

    found = {name: named(name) for name in names}
    # A name may be that of another module than the one that defines what it names.
    modules = [sys.modules[name] for name in {each.__module__ for each in found.values()} & sys.modules.keys()]
    modules = [module for module in modules if module.__name__ != "__main__"]
    try:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        content: bytes = cloudpickle.dumps(found)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return content


def unpack(content: bytes) -> None:
    """Take what `packed` gave, for `named`."""
    from ray import cloudpickle

    GIVEN.update(cloudpickle.loads(content))


def resolve(name: str) -> Built:
    """A user's function by its name, `package.module:function`; see `named`."""
    return Built(FUNCTION, 1, 100, named(name), source=name)


def named(name: str) -> Any:
    """A user's function or class by its name, `package.module:name`; the current folder is a place of modules.

    Its module is imported, and so run, unless it came to this process by value.

    Raises:
        SentrayError: There is none.
    """
    if name in GIVEN:
        return GIVEN[name]
    module_name, _, own_name = name.partition(":")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    # A module may raise anything while it is imported.
    except Exception as error:
        raise SentrayError(
            f"--model {name}: the module {module_name!r} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); start in the folder that holds it, or correct it"
        ) from error
    found = getattr(module, own_name, None)
    if not callable(found):
        near = difflib.get_close_matches(own_name, vars(module), n=1)
        hint = f"; do you mean {near[0]!r}?" if near else ""
        raise SentrayError(f"--model {name}: the module {module_name!r} has no function {own_name!r}{hint}")
    return found


def source_of(module: str) -> bytes | None:
    """The source of a module, which is not run, though the packages that it is in are; None where it has none."""
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.util.find_spec(module)
        return Path(found.origin).read_bytes() if found and found.origin else None
    except (ImportError, OSError, ValueError):
        return None


def custom_layers(model: Any, module: str) -> tuple[str, ...]:
    """What of a network is not Keras's own: layers, and functions that layers are given; see `custom_objects`.

    Args:
        model: The network.
        module: Where that is whose module Keras does not write down, as of functions and of all in `__main__`.

    Returns:
        For each `package.module:NAME`, in which NAME is what Keras calls it: that of the class, or `group>Class` where
        it is registered so. The code of a `Lambda` layer is `:lambda`.
    """
    from keras.saving import deserialize_keras_object, serialize_keras_object

    found: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            name, kind = part.get("registered_name"), part.get("class_name")
            if kind == "__lambda__":
                found.add(":lambda")
            elif kind == "function":
                try:
                    known = ">" not in part["config"] and deserialize_keras_object(part)
                except (TypeError, ValueError):
                    known = False
                if not known:
                    found.add(f"{module}:{part['config']}")
            elif name and not str(part["module"]).startswith(("keras.", "builtins")):
                found.add(f"{part['module'] or module}:{name}")
            part = list(part.values())
        if isinstance(part, list | tuple):
            for each in part:
                look(each)

    look(serialize_keras_object(model))
    return tuple(sorted(found))


def is_stock(name: str) -> bool:
    """Whether `package.module:name` is Keras's own; what it writes without a module is, too."""
    return name.startswith(("keras.", "keras:", "None:"))


def unregistered(name: str) -> str:
    """A name that `custom_layers` gave, as `named` takes it."""
    module, _, registered = name.partition(":")
    return f"{module}:{registered.rpartition('>')[2]}"


def custom_objects(names: Iterable[str]) -> dict[str, Any]:
    """What `keras.saving.load_model` needs to know for the names that `custom_layers` gave; their modules are run.

    Raises:
        SentrayError: One is not there.
    """
    found = {}
    for name in names:
        found[name.partition(":")[2]] = named(unregistered(name))
    return found


def architecture(name: str) -> Architecture:
    """The network called `name`; a name without version means its latest version, one with a colon a user's function.

    Raises:
        SentrayError: There is no such network.
    """
    if ":" in name:
        return resolve(name)
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


ARCHITECTURES: dict[str, Architecture] = {
    known.name: known
    for known in (
        # Jason Brownlee, "Deep Convolutional Neural Network for Sentiment Analysis", with its sizes.
        Stack(
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
        Stack(
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
        Stack("embedding-mlp.v1", min_length=1, dimensions=8, layers=lambda layers: [layers.Flatten()]),
        # The mean of a review's word vectors, as in fastText (Joulin et al. 2017), brought to one scale (Ba et al.
        # 2016): neither length nor the vectors' norm matters. The padding's vector is 0, so that no mask is needed,
        # with which an empty review's mean would be no number; epsilon is far below the variance of one word's share.
        Stack(
            "embedding-average.v1",
            min_length=1,
            dimensions=100,
            layers=lambda layers: [
                layers.GlobalAveragePooling1D(),
                layers.LayerNormalization(center=False, scale=False, epsilon=1e-12),
            ],
        ),
        # Kim 2014, "Convolutional Neural Networks for Sentence Classification", CNN-non-static with 100 numbers a word
        # and without the bound on the last layer's norm.
        Built("kim-cnn.v1", 5, 100, _kim_cnn),
        Built("bilstm.v1", 1, 100, _bilstm),
        Halves("wide-deep.v1", min_length=1, dimensions=100, heads=(WIDE, DEEP)),
        Halves("wide.v1", min_length=1, dimensions=0, heads=(WIDE,)),
        Halves("deep.v1", min_length=1, dimensions=100, heads=(DEEP,)),
    )
}
