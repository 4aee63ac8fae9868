"""`load_network`: a bundle's network, rebuilt by the name of its architecture and given the weights of its file.

Nothing in `model.keras` says what is built or run. Of its members only the weights are read, an HDF5 file, and each
array must have the name and the shape of the rebuilt network's before memory is taken for it.
"""

import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import models
from sentray.bundle import MAX_BYTES, MODEL, Bundle
from sentray.errors import SentrayError
from sentray.storage import first_line

_WEIGHTS = "model.weights.h5"
_EMBEDDING = "layers/embedding/vars/0"
MAX_VALUES = 1 << 24
"""Numbers of a review that a layer gives: a batch of 32 of these takes 2 GB."""


def load_network(bundle: Bundle) -> Any:
    """The bundle's network as a Keras model.

    Raises:
        SentrayError: When this sentray does not know the architecture, or the file does not hold its weights.
    """
    architecture = models.ARCHITECTURES.get(bundle.spec.architecture)
    if architecture is None:
        raise SentrayError(
            f"{bundle} has a network {bundle.spec.architecture!r}, which this sentray does not know; use the sentray "
            f"that made it ({bundle.versions.get('sentray', 'its version is not recorded')}), or train it again"
        )
    models.prepare_tensorflow()
    import h5py

    try:
        with zipfile.ZipFile(io.BytesIO(bundle.files[MODEL])) as archive:
            info = archive.getinfo(_WEIGHTS)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES[MODEL]:
                raise ValueError(f"its {_WEIGHTS} is compressed or too large")
            stream = io.BytesIO(archive.read(info))
        with h5py.File(stream, "r") as file:
            return _rebuilt(architecture, bundle, file)
    # zipfile and h5py let through whatever a damaged file makes them raise.
    except Exception as error:
        raise SentrayError(
            f"the network in {MODEL} of {bundle} cannot be used ({first_line(error)}): copy or train it again"
        ) from error


def _rebuilt(architecture: models.Architecture, bundle: Bundle, file: Any) -> Any:
    """The network with the weights of an HDF5 file.

    Raises:
        ValueError: When they are not those of this network, or a review becomes too large in it.
    """
    import keras
    from keras.src.backend.common import global_state

    rows, length = bundle.vocabulary.size, bundle.spec.max_length
    if length < architecture.min_length:
        raise ValueError(f"it takes {architecture.min_length} words at least, the bundle {length}")
    dimensions = _array(file, _EMBEDDING, (rows, None)).shape[1]
    # Without any memory for its weights: they may be larger than all that the file has.
    with keras.StatelessScope(initialize_variables=False):
        planned = architecture.build(rows, length, len(bundle.labels), dimensions)
    # Else the next such scope in this process, as training enters, would make these weights after all.
    global_state.set_global_attribute("uninitialized_variables", [])
    for name, weight in _named_weights(planned):
        _array(file, name, weight.shape)
    for layer in planned.layers:
        size = math.prod(layer.output.shape[1:])
        if size > MAX_VALUES:
            raise ValueError(f"its layer {layer.name} gives {size:,} numbers for a review")
    model = architecture.build(rows, length, len(bundle.labels), dimensions)
    for name, weight in _named_weights(model):
        values: NDArray[np.float32] = _array(file, name, weight.shape)[...]
        weight.assign(values)
    return model


def _named_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """The network's weights under the names that Keras 3 gives them in a file: by class, the second with `_1`."""
    from keras.src.utils.naming import to_snake_case

    seen: Counter[str] = Counter()
    for layer in model.layers:
        kind = to_snake_case(type(layer).__name__)
        group = f"layers/{kind}_{seen[kind]}" if seen[kind] else f"layers/{kind}"
        seen[kind] += 1
        for number, weight in enumerate(layer.weights):
            yield f"{group}/vars/{number}", weight


def _array(file: Any, name: str, shape: Sequence[int | None]) -> Any:
    """An array of an HDF5 file, which is not read yet and takes no more memory than its part of the file.

    Args:
        file: The file.
        name: Names of the groups down to it and its own, parted by `/`.
        shape: What it must be, with None for any length.

    Raises:
        ValueError: When it is missing, lies behind a link, is not stored as it is, or is of another shape or type.
    """
    import h5py

    found = file
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"its {_WEIGHTS} has no array {name}")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.chunks is not None or found.external or found.is_virtual:
        raise ValueError(f"its {_WEIGHTS} has no array {name} that is stored as it is")
    fits = len(found.shape) == len(shape)
    fits &= all(want in (None, size) for size, want in zip(found.shape, shape, strict=False))
    if not fits or found.dtype != np.float32 or found.id.get_storage_size() < found.nbytes:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {found.dtype}{list(found.shape)}, not float32[{wanted}]")
    return found
