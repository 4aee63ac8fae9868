"""Loading a bundle's network with Keras, after a look at what its file asks for.

Keras's safe mode runs no code of a file. It does build whatever layers the file names, at whatever size, before it
looks at the weights. So the file must be a plain archive of three members, name nothing but layers that only compute,
hold each weight as it is, and ask for no more memory than its weights take.
"""

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sentray import models
from sentray.bundle import MAX_BYTES, MODEL, Bundle
from sentray.errors import SentrayError
from sentray.storage import parse_json

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MAX_CONFIG, _MAX_OBJECTS = 1 << 22, 10_000
_MAX_VALUES = 1 << 24
"""Numbers of a review that a layer gives: a batch of 32 of these takes 2 GB."""
_HARMLESS: Mapping[str | None, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        None: "__keras_tensor__",
        "keras": "DTypePolicy Functional Sequential",
        "keras.src.models.functional": "Functional",
        "keras.src.ops.numpy": "NotEqual",
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
        "keras.initializers": """
            Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal
            LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal
            VarianceScaling Zeros""",
        "keras.layers": """
            Activation Add AlphaDropout Average AveragePooling1D BatchNormalization Bidirectional
            Concatenate Conv1D Conv1DTranspose Cropping1D Dense DepthwiseConv1D Dot Dropout EinsumDense
            ELU Embedding Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalMaxPooling1D
            GroupNormalization GRU GRUCell Identity InputLayer LayerNormalization LeakyReLU LSTM
            LSTMCell Masking Maximum MaxPooling1D Minimum Multiply Permute PReLU ReLU RepeatVector
            Reshape RMSNormalization RNN SeparableConv1D SimpleRNN SimpleRNNCell Softmax SpatialDropout1D
            SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
            ZeroPadding1D""",
    }.items()
}
"""What a network may be made of: by module, the names.

Others may read files (StringLookup), run code (Lambda), or compare each word with each other inside (attention).
"""


def load_network(bundle: Bundle) -> Any:
    """The bundle's network as a Keras model.

    Raises:
        SentrayError: When the file is no network that Keras can load, or asks for more than it should.
    """
    models.prepare_tensorflow()
    import keras

    try:
        config = checked_config(bundle)
        # Keras keeps what it builds with in the thread, and this is not to be left behind.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_require_memory, config, bundle).result()
        return keras.models.load_model(bundle.model_file, compile=False, safe_mode=True)
    # Keras lets through whatever the reading of a foreign file raises: zip, HDF5, JSON, its own errors.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise SentrayError(
            f"Keras {keras.__version__} cannot load {bundle.model_file} ({reason}); it was made by Keras "
            f"{bundle.versions.get('keras', '?')}: install that version or train the bundle again"
        ) from error


def checked_config(bundle: Bundle) -> dict[str, Any]:
    """What the network is made of.

    Raises:
        ValueError: When it is of anything but harmless layers, or the weights are not there as they are.
    """
    with zipfile.ZipFile(bundle.model_file) as archive:
        members = archive.infolist()
        if sorted(info.filename for info in members) != [_CONFIG, _METADATA, _WEIGHTS]:
            raise ValueError(f"it is no archive of {_CONFIG}, {_METADATA} and {_WEIGHTS} alone")
        most = {_CONFIG: _MAX_CONFIG, _METADATA: _MAX_CONFIG, _WEIGHTS: MAX_BYTES[MODEL]}
        for info in members:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > most[info.filename]:
                raise ValueError(f"its {info.filename} is compressed or too large")
        config = parse_json(archive.read(_CONFIG))
        with archive.open(_WEIGHTS) as stream:
            _require_plain(stream)
    if not isinstance(config, dict):
        raise ValueError(f"its {_CONFIG} is no network")
    config["compile_config"] = None
    for count, found in enumerate(_objects(config)):
        module, name = found.get("module"), found["class_name"]
        if not isinstance(name, str) or name not in _HARMLESS.get(module, ()) or count > _MAX_OBJECTS:
            raise ValueError(f"it has a {str(module)[:100]}.{str(name)[:100]}, which no bundle may have")
        if found.get("registered_name") not in (None, name):
            raise ValueError(f"it has a {name} under another name")
        if isinstance(found.get("config"), dict) and found["config"].get("unroll"):
            raise ValueError(f"it has a {name} that is unrolled, which takes memory and time to compile")
    return config


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All that Keras would make of a configuration."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _objects(each)


def _require_plain(stream: Any) -> None:
    """Refuse HDF5 that refers to other files, or whose arrays are larger than what is stored of them.

    Raises:
        ValueError: Saying where.
    """
    import h5py

    with h5py.File(stream, "r") as file:
        groups, count = [file["/"]], 0
        while groups:
            group = groups.pop()
            for name in group:
                count += 1
                if count > _MAX_OBJECTS or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"its {_WEIGHTS} has a link or too many groups")
                found = group[name]
                if isinstance(found, h5py.Group):
                    groups.append(found)
                elif not isinstance(found, h5py.Dataset) or not _is_plain(found):
                    raise ValueError(f"its {_WEIGHTS} has an array that is not stored as it is")


def _is_plain(array: Any) -> bool:
    elsewhere = array.chunks is not None or array.external or array.is_virtual
    return not elsewhere and array.dtype.kind in "biufV" and array.id.get_storage_size() >= array.nbytes


def _require_memory(config: dict[str, Any], bundle: Bundle) -> None:
    """Build the network without any weight, and refuse one that would take more memory than it should.

    Raises:
        ValueError: When its weights are larger than its file, or a review becomes too large in it.
    """
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)), safe_mode=True)
    asked, stored = sum(math.prod(weight.shape) for weight in model.variables), bundle.model_file.stat().st_size
    # A weight takes a byte at least.
    if asked > stored:
        raise ValueError(f"it asks for {asked:,} weights and its file has {stored:,} bytes")
    # Networks within the network, too; what a wrapper calls has no output of its own, and the wrapper's is as large.
    for layer in model._flatten_layers(include_self=False):
        for tensor in keras.tree.flatten(getattr(layer, "output", [])):
            values = math.prod(bundle.max_length if size is None else size for size in tensor.shape[1:])
            if values > _MAX_VALUES:
                raise ValueError(f"its layer {layer.name} gives {values:,} numbers for a review")
