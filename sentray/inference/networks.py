"""`load_network`: a bundle's network, with the weights of its file.

A network that sentray knows is rebuilt by the name of its architecture, and nothing in `model.keras` says what is built
or run. One that a user's function built is what the file says, within bounds: Keras's safe mode alone still imports
what a file names and lets older formats in, so `_known` goes through the file first and lets pass the layers and
operations of a list alone. What only training needs is left out. Where the user trusts the bundle, the module of its
own layers is imported, and the file may say anything.

Of the weights, an HDF5 file, every array must be stored as it is, and all must be as large as the network's before
memory is taken for it.
"""

import copy
import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sentray import models, task
from sentray.bundle import GRAMS, MAX_BYTES, MODEL, Bundle, Function
from sentray.errors import SentrayError
from sentray.storage import first_line

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MAX_CONFIG = 1 << 19
"""Bytes of a network's description; one of a hundred layers has a tenth."""
_EMBEDDING = "layers/embedding/vars/0"
BATCH = 32
MAX_VALUES = 1 << 24
"""Numbers of a review that a layer gives: a batch of these takes 2 GB."""
_WORDS_AT_ONCE = 1 << 15
_OF_LAYERS = """
    InputLayer Embedding Dense EinsumDense Activation ReLU LeakyReLU PReLU ELU Softmax Masking Identity
    Conv1D SeparableConv1D DepthwiseConv1D MaxPooling1D AveragePooling1D GlobalMaxPooling1D GlobalAveragePooling1D
    Conv1DTranspose ZeroPadding1D Cropping1D UpSampling1D
    Conv2D SeparableConv2D DepthwiseConv2D MaxPooling2D AveragePooling2D GlobalMaxPooling2D GlobalAveragePooling2D
    ZeroPadding2D Cropping2D UpSampling2D Flatten Reshape Permute RepeatVector
    LSTM GRU SimpleRNN RNN LSTMCell GRUCell SimpleRNNCell StackedRNNCells Bidirectional TimeDistributed
    Attention AdditiveAttention MultiHeadAttention GroupQueryAttention
    BatchNormalization LayerNormalization RMSNormalization GroupNormalization UnitNormalization
    Dropout SpatialDropout1D SpatialDropout2D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization
    Rescaling Concatenate Add Subtract Multiply Average Maximum Minimum Dot
"""
_OF_NUMPY = """
    Absolute Abs Add Subtract Multiply Divide TrueDivide Negative Power Square Sqrt Exp Log Log1p Tanh Maximum Minimum
    Clip Sum Mean Max Min Var Std Prod Cumsum Matmul Dot Einsum Transpose Swapaxes Reshape ExpandDims Squeeze
    Concatenate Stack Where GetItem Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalNot
    LogicalXor Any All OnesLike ZerosLike Amax Amin Argmax Argmin Argsort Sort Flip Roll Sin Cos Tan Sinh Cosh Arcsin
    Arccos Arctan Arctan2 Floor Ceil Round Trunc Sign Reciprocal Exp2 Expm1 Log2 Log10 Logaddexp FloorDivide Mod
    DivideNoNan CountNonzero Cumprod Moveaxis Ravel Average Median Ptp Outer Tensordot Inner Take TakeAlongAxis Tril
    Triu Pad Tile Isnan Isfinite Isinf NanToNum Hstack Vstack
"""
_OF_MATH = "TopK Logsumexp Rsqrt Erf Erfc"
_OF_NN = """
    Relu Relu6 LeakyRelu Elu Selu Celu Gelu Glu Silu Sigmoid LogSigmoid HardSigmoid HardSilu HardTanh TanhShrink Softmax
    LogSoftmax Sparsemax Softplus Softsign Squareplus OneHot MultiHot Normalize Moments MaxPool AveragePool RMSNorm
    LayerNorm DotProductAttention
"""
_CONSTANTS = {"__numpy__", "__tensor__"}
_NUMBERS = {"float16", "bfloat16", "float32", "float64", "int32", "int64", "bool"}
"""Of the constants: numbers, of which none is larger than it is written."""
_PARTS: dict[str | None, set[str]] = {
    "keras": {"Sequential", "Functional", "DTypePolicy"},
    "keras.src.models.functional": {"Functional"},
    "keras.layers": set(_OF_LAYERS.split()),
    "keras.src.ops.numpy": set(_OF_NUMPY.split()),
    "keras.src.ops.nn": set(_OF_NN.split()),
    "keras.src.ops.math": set(_OF_MATH.split()),
    "keras.src.ops.core": {"Cast", "StopGradient", "Slice"},
    "keras.src.ops.linalg": {"Norm"},
    None: {"__keras_tensor__", "__slice__", "__ellipsis__", *_CONSTANTS},
}
"""What a network may be made of without trust: classes by their modules. What a small description may make endless of,
at once or before `_require_small` sees it, is not among them (Split, Diff, adaptive pooling)."""


class _NeedsTrustError(ValueError):
    """What a network's description holds may do more than compute."""


def load_network(bundle: Bundle) -> Any:
    """The bundle's network as a Keras model.

    Raises:
        SentrayError: When this sentray does not know the architecture, the bundle has layers of its own and is not
            trusted, or the file does not hold the network and its weights.
    """
    spec = bundle.spec
    architecture, function = models.ARCHITECTURES.get(spec.architecture), spec.function
    if architecture is None and (spec.architecture != models.FUNCTION or function is None):
        raise SentrayError(
            f"{bundle} has a network {spec.architecture!r}, which this sentray does not know; use the sentray "
            f"that made it ({bundle.versions.get('sentray', 'its version is not recorded')}), or train it again"
        )
    require_trust(bundle)
    models.prepare_tensorflow()
    try:
        with zipfile.ZipFile(io.BytesIO(bundle.files[MODEL])) as archive:
            content = _member(archive, _WEIGHTS, MAX_BYTES[MODEL])
            if architecture is not None:
                return _rebuilt(architecture, bundle, content)
            config = json.loads(_member(archive, _CONFIG, _MAX_CONFIG))
            # How it was trained is no matter.
            config["compile_config"] = None
            return _as_described(bundle, config, content)
    except SentrayError:
        raise
    except _NeedsTrustError as error:
        raise SentrayError(
            f"the network in {MODEL} of {bundle} {error}, which needs --trust-model (in Python trust_model=True): give "
            "it if you trust the bundle's maker"
        ) from error
    # zipfile, h5py and Keras let through whatever a damaged file makes them raise.
    except Exception as error:
        raise SentrayError(
            f"the network in {MODEL} of {bundle} cannot be used ({first_line(error)}): copy or train it again"
        ) from error


def batch(length: int) -> int:
    """How many reviews of so many words, padding included, are computed together: fewer of long ones."""
    return min(max(_WORDS_AT_ONCE // length, BATCH), 8 * BATCH)


def as_inputs(given: Sequence[Any]) -> Any:
    """A network's inputs as Keras takes them."""
    return list(given) if len(given) > 1 else given[0]


def require_trust(bundle: Bundle) -> None:
    """Refuse a bundle with parts that need trust, and that is not trusted.

    Raises:
        SentrayError: With the layers and the cure.
    """
    function = bundle.spec.function
    if function is not None and function.layers and not bundle.trusted:
        raise SentrayError(
            f"{bundle} {described(function)}: give --trust-model (in Python trust_model=True, of MLflow "
            "model_config={'trust_model': True}) if you trust that, or train without such layers"
        )


def described(function: Function) -> str:
    """What of a function's network needs trust, and why; it has some."""
    some = function.own_layers or function.layers
    names = ", ".join(some[:5]) + (" and more" if len(some) > 5 else "")
    if function.own_layers:
        return f"has layers that are not Keras's own ({names}), so that using it runs its maker's code"
    return f"has layers of Keras that are not among those known to do nothing but compute ({names})"


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise ValueError(f"its {name} is compressed or too large")
    return archive.read(info)


def _as_described(bundle: Bundle, config: Any, content: bytes) -> Any:
    """The network of a description, with the weights of an HDF5 file.

    Raises:
        SentrayError: When its layers' module cannot be imported or lacks one.
        ValueError: When it is made of what is not known, or does not fit the bundle or the weights.
    """
    import h5py
    import keras
    from keras.src.saving.serialization_lib import ObjectSharingScope

    own = {}
    if bundle.trusted and bundle.spec.function is not None:
        try:
            own = models.custom_objects(bundle.spec.function.own_layers)
        except SentrayError as error:
            raise SentrayError(
                f"{bundle} needs its own layers: {error}; on a cluster each node needs the module, which `sentray "
                "submit` takes along where it is in the current folder"
            ) from error

    def build() -> Any:
        with ObjectSharingScope():
            made = keras.saving.deserialize_keras_object(
                copy.deepcopy(config), custom_objects=own, safe_mode=not bundle.trusted
            )
        if not isinstance(made, keras.Model):
            raise ValueError("it describes no model")
        _require_fits(bundle, made)
        return made

    if not bundle.trusted:
        config = _known(config)
        planned = _planned(build)
        with h5py.File(io.BytesIO(content), "r") as file:
            _require_bytes(planned, _stored_bytes(file))
        for length in {min(models.MIN_PADDED, bundle.spec.max_length), bundle.spec.max_length}:
            _require_small(planned, length)
    return _with_weights(build(), content)


def needs_trust(model: Any, module: str) -> tuple[str, ...]:
    """What of a network its bundle does not load without trust, by names as of `models.custom_layers`.

    These, and of Keras's own what is not in `_PARTS`.

    Args:
        model: The network.
        module: See `models.custom_layers`.
    """
    from keras.saving import serialize_keras_object

    own, stock = models.custom_layers(model, module), set[str]()
    _known(serialize_keras_object(model) | {"compile_config": None}, stock)
    return (*own, *sorted(name for name in stock if models.is_stock(name)))


def _known(part: Any, unknown: set[str] | None = None) -> Any:
    """A copy of a network's description, or of a part of it, without what only training needs.

    Args:
        part: The description.
        unknown: Where given, it gets the names of what needs trust, `module:CLASS`, and nothing is raised.

    Raises:
        _NeedsTrustError: When it is made of anything else than `_PARTS`.
    """
    if isinstance(part, list | tuple):
        return [_known(each, unknown) for each in part]
    if not isinstance(part, dict):
        return part
    if "class_name" in part:
        module, name = part.get("module"), part["class_name"]
        known = isinstance(name, str) and name in _PARTS.get(module, ())
        known &= name not in _CONSTANTS or part.get("config", {}).get("dtype") in _NUMBERS
        if unknown is not None:
            unknown |= set() if known else {f"{module}:{name}"}
        elif not known:
            raise _NeedsTrustError(f"has a part {f'{module}.{name}'[:100]!r}")
        elif part.get("registered_name") not in (None, name) or part.get("compile_config"):
            raise _NeedsTrustError(f"has a {name} that is registered or compiled")
    found: dict[str, Any] = {}
    for key, value in part.items():
        if key.endswith("_initializer") and value is not None:
            found[key] = "zeros"
        elif key.endswith(("_regularizer", "_constraint")):
            found[key] = None
        else:
            found[key] = False if key == "unroll" else _known(value, unknown)
    return found


def _require_fits(bundle: Bundle, model: Any) -> None:
    """Refuse a network of other inputs or outputs than the bundle's.

    Raises:
        ValueError: Saying which.
    """
    spec, wanted = bundle.spec, task.outputs(bundle.spec.task, len(bundle.labels))
    takes = {(models.IDS, "int32", (None, length)) for length in (None, spec.max_length)}
    takes.add((models.NUMBERS, "float32", (None, len(spec.numeric))))
    for given in model.inputs:
        if (given.name, given.dtype, given.shape) not in takes:
            raise ValueError(f"its input {given.name!r} of {given.dtype} has the shape {given.shape}")
    if len({given.name for given in model.inputs}) < len(model.inputs) or model.output_shape != (None, wanted):
        raise ValueError(f"it has an input twice, or gives another shape than (None, {wanted})")
    for layer in model.layers:
        if type(layer).__name__ == "Embedding" and any(layer.input is each for each in model.inputs):
            _require_words(layer.input_dim, bundle)


def _require_words(rows: int, bundle: Bundle) -> None:
    if rows != bundle.vocabulary.size:
        raise ValueError(f"it knows {rows:,} words, the bundle {bundle.vocabulary.size:,}")


def _require_small(model: Any, length: int) -> None:
    """Refuse a network in which a review of so many words becomes too large anywhere.

    Raises:
        ValueError: With the step that gives so many numbers.
    """
    import tensorflow as tf

    shapes = [(1, *(length if side is None else side for side in each.shape[1:])) for each in model.inputs]
    given = [tf.TensorSpec(shape, each.dtype) for shape, each in zip(shapes, model.inputs, strict=True)]
    traced = tf.function(lambda *inputs: model(as_inputs(inputs), training=False)).get_concrete_function(*given)
    for step in traced.graph.get_operations():
        for each in step.outputs:
            size = each.shape.num_elements() or 0
            if size > MAX_VALUES * BATCH // batch(length):
                raise ValueError(f"its step {step.name} gives {size:,} numbers for a review")


def _rebuilt(architecture: models.Architecture, bundle: Bundle, content: bytes) -> Any:
    """The network of an architecture, with the weights of an HDF5 file.

    Raises:
        ValueError: When they are not those of this network, or a review becomes too large in it.
    """
    import h5py

    spec, words, dimensions = bundle.spec, bundle.vocabulary.size, None
    with h5py.File(io.BytesIO(content), "r") as file:
        stored = _stored_bytes(file)
        if not isinstance(architecture, models.Halves):
            if _EMBEDDING not in file:
                raise ValueError(f"its {_WEIGHTS} has no array {_EMBEDDING}")
            rows, dimensions = file[_EMBEDDING].shape
            _require_words(rows, bundle)
    if spec.max_length < architecture.min_length:
        raise ValueError(f"it takes {architecture.min_length} words at least, the bundle {spec.max_length}")
    for half, known in {models.WIDE: spec.grams, models.DEEP: spec.deep}.items():
        if (half in architecture.heads) != (known is not None):
            raise ValueError(f"it and the bundle differ in whether there is a {half} half")
    build = partial(
        architecture.build,
        words,
        spec.max_length,
        len(spec.labels),
        dimensions,
        gram_rows=len(bundle.files.get(GRAMS, b"")) // 8 + 1,
        deep=spec.deep,
        task=spec.task,
        numbers=len(spec.numeric),
    )
    planned = _planned(build)
    _require_bytes(planned, stored)
    for layer in planned.layers:
        size = math.prod(spec.max_length if side is None else side for side in layer.output.shape[1:])
        if size > MAX_VALUES:
            raise ValueError(f"its layer {layer.name} gives {size:,} numbers for a review")
    return _with_weights(build(), content)


def _planned(build: Callable[[], Any]) -> Any:
    """A network without any memory for its weights: they may be larger than all that the file has."""
    import keras
    from keras.src.backend.common import global_state

    with keras.StatelessScope(initialize_variables=False):
        planned = build()
    # Else the next such scope in this process, as training enters, would make these weights after all.
    global_state.set_global_attribute("uninitialized_variables", [])
    return planned


def _require_bytes(planned: Any, stored: int) -> None:
    """Refuse weights of another size than a network's.

    Raises:
        ValueError: With both sizes.
    """
    wanted = 4 * planned.count_params()
    if wanted != stored or any(each.dtype != "float32" for each in planned.weights):
        raise ValueError(f"its weights take {stored:,} bytes, those of the network {wanted:,}")


def _with_weights(model: Any, content: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, _WEIGHTS).write_bytes(content)
        model.load_weights(f"{folder}/{_WEIGHTS}")
    return model


def _stored_bytes(group: Any) -> int:
    """Bytes of the arrays in an HDF5 group; none of them is read.

    Raises:
        ValueError: When something else than float32 arrays that are stored as they are is in it, such as a link.
    """
    import h5py

    total = 0
    for name in group:
        if (group.name, name) == ("/", "optimizer"):
            # Never read.
            continue
        found: Any = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(found, h5py.Group):
            total += _stored_bytes(found)
            continue
        plain = isinstance(found, h5py.Dataset) and not (found.chunks or found.external or found.is_virtual)
        if not plain or found.dtype != np.float32 or found.id.get_storage_size() < found.nbytes:
            raise ValueError(f"{group.name}/{name} in its {_WEIGHTS} is no array of 32-bit floats stored as it is")
        total += found.nbytes
    return total
