"""`load_network`: a bundle's network, rebuilt by the name of its architecture and given the weights of its file.

Nothing in `model.keras` says what is built or run. Of its members only the weights are read, an HDF5 file, in which
every array must be stored as it is, and which must be large enough for the network before memory is taken for it.
"""

import io
import math
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sentray import models
from sentray.bundle import GRAMS, MAX_BYTES, MODEL, Bundle
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
    try:
        with zipfile.ZipFile(io.BytesIO(bundle.files[MODEL])) as archive:
            info = archive.getinfo(_WEIGHTS)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES[MODEL]:
                raise ValueError(f"its {_WEIGHTS} is compressed or too large")
            return _rebuilt(architecture, bundle, archive.read(info))
    # zipfile, h5py and Keras let through whatever a damaged file makes them raise.
    except Exception as error:
        raise SentrayError(
            f"the network in {MODEL} of {bundle} cannot be used ({first_line(error)}): copy or train it again"
        ) from error


def _rebuilt(architecture: models.Architecture, bundle: Bundle, content: bytes) -> Any:
    """The network with the weights of an HDF5 file.

    Raises:
        ValueError: When they are not those of this network, or a review becomes too large in it.
    """
    import h5py
    import keras
    from keras.src.backend.common import global_state

    spec, words = bundle.spec, bundle.vocabulary.size
    with h5py.File(io.BytesIO(content), "r") as file:
        stored = _stored_bytes(file)
        if isinstance(architecture, models.Stack):
            if _EMBEDDING not in file:
                raise ValueError(f"its {_WEIGHTS} has no array {_EMBEDDING}")
            rows, dimensions = file[_EMBEDDING].shape
            if rows != words:
                raise ValueError(f"it knows {rows:,} words, the bundle {words:,}")
        else:
            dimensions = None
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
    )
    # Without any memory for its weights: they may be larger than all that the file has.
    with keras.StatelessScope(initialize_variables=False):
        planned = build()
    # Else the next such scope in this process, as training enters, would make these weights after all.
    global_state.set_global_attribute("uninitialized_variables", [])
    if 4 * planned.count_params() != stored:
        raise ValueError(f"its weights take {stored:,} bytes, those of the network {4 * planned.count_params():,}")
    for layer in planned.layers:
        size = math.prod(spec.max_length if side is None else side for side in layer.output.shape[1:])
        if size > MAX_VALUES:
            raise ValueError(f"its layer {layer.name} gives {size:,} numbers for a review")
    model = build()
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
        found: Any = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(found, h5py.Group):
            total += _stored_bytes(found)
            continue
        plain = isinstance(found, h5py.Dataset) and not (found.chunks or found.external or found.is_virtual)
        if not plain or found.dtype != np.float32 or found.id.get_storage_size() < found.nbytes:
            raise ValueError(f"{group.name}/{name} in its {_WEIGHTS} is no array of 32-bit floats stored as it is")
        total += found.nbytes
    return total
